//! The QoS of each topic of the node, with its overrides, and why two profiles are incompatible.

use std::cell::RefCell;
use std::time::Duration;

use r2r::qos::{DurabilityPolicy, LivelinessPolicy, ReliabilityPolicy};
use r2r::{Node, QosProfile};

use super::arguments::RosArguments;
use super::names;
use super::parameters::qos_overrides::{self, Entity};
use super::parameters::{ParameterError, Parameters};

/// Seconds of the longest duration that ROS knows, which stands for infinity.
const INFINITE_SECONDS: u64 = i64::MAX as u64 / 1_000_000_000;

/// The QoS of the topics of one node. Remembers for which topics it was asked, so that it can tell
/// which overrides are for none of them.
pub struct TopicQos<'a> {
    parameters: &'a Parameters,
    namespace: String,
    node: String,
    asked: RefCell<Vec<(String, Entity)>>,
    /// The rules of remapping; `None` if ROS does not understand them.
    rules: Option<RosArguments>,
}

impl<'a> TopicQos<'a> {
    /// # Errors
    /// When the node has no name.
    pub fn new(node: &Node, parameters: &'a Parameters) -> r2r::Result<Self> {
        Ok(Self::of_node(&node.namespace()?, &node.name()?, parameters))
    }

    /// Of a node with this namespace and name.
    pub fn of_node(namespace: &str, node: &str, parameters: &'a Parameters) -> Self {
        let (namespace, node) = (namespace.to_owned(), node.to_owned());
        Self { parameters, namespace, node, asked: RefCell::default(), rules: RosArguments::of_process().ok() }
    }

    /// With the rules of a command line that is not this process's.
    #[cfg(test)]
    pub fn with_rules(self, rules: RosArguments) -> Self {
        Self { rules: Some(rules), ..self }
    }

    /// The full name of `topic` after remapping.
    pub fn resolve(&self, topic: &str) -> String {
        let full = names::expand(topic, &self.namespace, &self.node);
        self.remapped(&full).unwrap_or(full)
    }

    /// Whether a rule of remapping applies to `topic`.
    pub fn is_remapped(&self, topic: &str) -> bool {
        self.remapped(&names::expand(topic, &self.namespace, &self.node)).is_some()
    }

    fn remapped(&self, full: &str) -> Option<String> {
        self.rules.as_ref()?.remapped(full, &self.namespace, &self.node)
    }

    /// The profile for one side of `topic`, a name as it is passed to ROS.
    pub fn of(&self, topic: &str, entity: Entity, default: QosProfile) -> QosProfile {
        let topic = self.resolve(topic);
        let profile = qos_overrides::profile(default, &topic, entity, self.parameters.qos_overrides());
        self.asked.borrow_mut().push((topic, entity));
        profile
    }

    /// To be called once every topic was asked for: an override with a mistyped topic would have no
    /// effect.
    ///
    /// # Errors
    /// Names the first override that is for none of them, and the topics of the node.
    pub fn check(&self) -> Result<(), ParameterError> {
        let asked = self.asked.borrow();
        for (name, _) in self.parameters.qos_overrides() {
            let (topic, entity, _) = qos_overrides::split(name)?;
            if !asked.iter().any(|(t, e)| t == topic && *e == entity) {
                let known: Vec<_> = asked.iter().map(|(topic, entity)| format!("{topic}.{}", entity.name())).collect();
                let why = format!("is for a topic that this node does not have; it has {}", known.join(", "));
                if self.parameters.is_shared(name) {
                    tracing::warn!("parameter '{name}' {why}; it is ignored, since its file is for other nodes too");
                    continue;
                }
                return Err(ParameterError::Invalid { name: name.to_owned(), why });
            }
        }
        Ok(())
    }
}

/// Why a subscription with `wanted` gets nothing from a publisher with `offered`: the incompatible
/// policies, by the rules of DDS (requested versus offered: a reader may not request more than the
/// writer offers).
pub fn incompatibilities(offered: &QosProfile, wanted: &QosProfile) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut put = |policy: &str, offered: &str, wanted: &str| {
        reasons.push(format!("{policy}: it offers {offered}, this node requests {wanted}"));
    };
    if offered.reliability == ReliabilityPolicy::BestEffort && wanted.reliability == ReliabilityPolicy::Reliable {
        put("reliability", "best_effort", "reliable");
    }
    if offered.durability == DurabilityPolicy::Volatile && wanted.durability == DurabilityPolicy::TransientLocal {
        put("durability", "volatile", "transient_local");
    }
    // Zero stands for no limit, and so does what ROS has for infinity.
    let limit = |duration: Duration| Some(duration).filter(|d| !d.is_zero() && d.as_secs() < INFINITE_SECONDS);
    let exceeds = |offered: Duration, wanted: Duration| {
        let (offered, wanted) = (limit(offered), limit(wanted)?);
        let shown = offered.map_or("none".into(), |offered| format!("{offered:?}"));
        offered.is_none_or(|offered| offered > wanted).then(|| (shown, format!("{wanted:?}")))
    };
    if let Some((offered, wanted)) = exceeds(offered.deadline, wanted.deadline) {
        put("deadline", &offered, &wanted);
    }
    if offered.liveliness == LivelinessPolicy::Automatic && wanted.liveliness == LivelinessPolicy::ManualByTopic {
        put("liveliness", "automatic", "manual_by_topic");
    }
    if let Some((offered, wanted)) = exceeds(offered.liveliness_lease_duration, wanted.liveliness_lease_duration) {
        put("liveliness_lease_duration", &offered, &wanted);
    }
    reasons
}

#[cfg(test)]
mod tests {
    use r2r::ParameterValue;

    use super::*;

    #[test]
    fn an_override_for_an_unknown_topic_is_named_with_those_known() {
        let depth = ("qos_overrides./tracks.publisher.depth".to_owned(), ParameterValue::Integer(3));
        let parameters = Parameters::with([depth]).unwrap();
        let qos = TopicQos::of_node("/", "eye", &parameters);
        assert_eq!(qos.of("image", Entity::Subscription, QosProfile::default()).depth, QosProfile::default().depth);
        let sentence = qos.check().unwrap_err().to_string();
        assert!(sentence.contains("a topic that this node does not have; it has /image.subscription"), "{sentence}");
        assert_eq!(qos.of("tracks", Entity::Publisher, QosProfile::default()).depth, 3);
        assert_eq!(qos.check(), Ok(()));
    }

    #[test]
    fn requesting_more_than_is_offered_names_the_policies() {
        let offered = QosProfile::sensor_data();
        let wanted = QosProfile::sensor_data().reliable().transient_local();
        let reasons = incompatibilities(&offered, &wanted);
        assert!(reasons[0].starts_with("reliability: it offers best_effort") && reasons[1].starts_with("durability"));
        assert_eq!(incompatibilities(&wanted, &offered), Vec::<String>::new());
    }

    #[test]
    fn a_lease_longer_than_requested_or_none_is_incompatible() {
        let lease = |ms| QosProfile::sensor_data().liveliness_lease_duration(Duration::from_millis(ms));
        let reasons = |offered, wanted| incompatibilities(&lease(offered), &lease(wanted)).concat();
        assert_eq!(reasons(300, 200), "liveliness_lease_duration: it offers 300ms, this node requests 200ms");
        assert_eq!(reasons(0, 200), "liveliness_lease_duration: it offers none, this node requests 200ms");
        assert_eq!(reasons(i64::MAX as u64 / 1_000_000, 200), reasons(0, 200));
        assert_eq!((reasons(200, 200), reasons(100, 200), reasons(300, 0)), Default::default());
    }
}
