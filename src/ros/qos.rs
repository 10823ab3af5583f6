//! Quality of service of each topic, by the standard parameters `qos_overrides.<topic>.<entity>.<policy>`.
//!
//! As in rclcpp: the topic is its full name after remapping, the entity `publisher` or `subscription`, and the
//! parameters can be set at start only. Written in a parameter file:
//!
//! ```yaml
//! qos_overrides:
//!   /camera/image_raw:
//!     subscription: {reliability: reliable, depth: 1}
//! ```

use std::cell::RefCell;
use std::time::Duration;

use r2r::qos::{DurabilityPolicy, HistoryPolicy, LivelinessPolicy, ReliabilityPolicy};
use r2r::{Node, ParameterValue, QosProfile};

use super::parameters::{shown, Parameters, Refusal};
use super::topics;

/// What the names of these parameters begin with.
pub const PREFIX: &str = "qos_overrides.";

/// Which side of a topic the node is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entity {
    Publisher,
    Subscription,
}

impl Entity {
    /// As it stands in the parameters' names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Subscription => "subscription",
        }
    }
}

/// The policies with what each may be.
const POLICIES: [(&str, &str); 8] = [
    ("deadline", "a whole number of nanoseconds from 0"),
    ("depth", "a whole number from 1 to 10000"),
    ("durability", "one of volatile, transient_local, system_default"),
    ("history", "one of keep_last, keep_all, system_default"),
    ("lifespan", "a whole number of nanoseconds from 0"),
    ("liveliness", "one of automatic, manual_by_topic, system_default"),
    ("liveliness_lease_duration", "a whole number of nanoseconds from 0"),
    ("reliability", "one of reliable, best_effort, system_default"),
];

/// Of the longest duration that ROS knows, which stands for infinity.
const INFINITE_SECONDS: u64 = i64::MAX as u64 / 1_000_000_000;

/// Whether a parameter called so is an override of a quality of service.
pub fn is_override(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What an override may be, and what it is for.
///
/// # Errors
/// When the name has no such form.
pub fn describe(name: &str) -> Result<(&'static str, String), Refusal> {
    let (topic, entity, policy) = split(name)?;
    let (_, expected) = POLICIES.iter().find(|(known, _)| *known == policy).expect("split knows the policy");
    Ok((expected, format!("The {policy} of the {} of {topic}.", entity.name())))
}

/// Checks the name and the value of an override.
///
/// # Errors
/// A sentence that names the parameter, and what it may be.
pub fn check(name: &str, value: &ParameterValue) -> Result<(), Refusal> {
    let (_, _, policy) = split(name)?;
    // Any profile will do.
    set(&mut QosProfile::default(), policy, value).ok_or_else(|| refusal(name, policy, value))
}

/// The profile of one side of `topic`, a full name: `default`, changed by the `overrides` that are about it.
fn profile<'a>(
    default: QosProfile,
    topic: &str,
    entity: Entity,
    overrides: impl Iterator<Item = (&'a str, &'a ParameterValue)>,
) -> QosProfile {
    let mut profile = default;
    for (name, value) in overrides {
        if let Ok((t, e, policy)) = split(name) {
            if t == topic && e == entity {
                // Checked when it was set.
                set(&mut profile, policy, value);
            }
        }
    }
    profile
}

/// The overrides as they bear on the topics of one node. Remembers which topics it was asked about, so that it can tell
/// which overrides were about none.
pub struct TopicQos<'a> {
    parameters: &'a Parameters,
    namespace: String,
    node: String,
    asked: RefCell<Vec<(String, Entity)>>,
}

impl<'a> TopicQos<'a> {
    /// # Errors
    /// When the node has no name.
    pub fn new(node: &Node, parameters: &'a Parameters) -> r2r::Result<Self> {
        Ok(Self::of_node(&node.namespace()?, &node.name()?, parameters))
    }

    /// Of a node with this namespace and name.
    pub fn of_node(namespace: &str, node: &str, parameters: &'a Parameters) -> Self {
        Self { parameters, namespace: namespace.to_owned(), node: node.to_owned(), asked: RefCell::default() }
    }

    /// The full name of `topic` after remapping.
    pub fn resolve(&self, topic: &str) -> String {
        topics::resolve(topic, &self.namespace, &self.node)
    }

    /// The profile for one side of `topic`, a name as ROS is given it.
    pub fn of(&self, topic: &str, entity: Entity, default: QosProfile) -> QosProfile {
        let topic = self.resolve(topic);
        let profile = profile(default, &topic, entity, self.parameters.qos_overrides());
        self.asked.borrow_mut().push((topic, entity));
        profile
    }

    /// To be called once every topic was asked about: an override with a mistyped topic would do nothing.
    ///
    /// # Errors
    /// Names the first override that is about none of them, and what there is.
    pub fn check(&self) -> Result<(), Refusal> {
        let asked = self.asked.borrow();
        for (name, _) in self.parameters.qos_overrides() {
            let (topic, entity, _) = split(name)?;
            if !asked.iter().any(|(t, e)| t == topic && *e == entity) {
                let known: Vec<_> = asked.iter().map(|(topic, entity)| format!("{topic}.{}", entity.name())).collect();
                let why = format!("is about no topic of this node; there are {}", known.join(", "));
                return Err(Refusal::Unfit { name: name.to_owned(), why });
            }
        }
        Ok(())
    }
}

fn refusal(name: &str, policy: &str, value: &ParameterValue) -> Refusal {
    let expected = POLICIES.iter().find(|(known, _)| *known == policy).map_or("", |(_, expected)| expected);
    Refusal::Unfit { name: name.to_owned(), why: format!("must be {expected}, not {}", shown(value)) }
}

fn split(name: &str) -> Result<(&str, Entity, &str), Refusal> {
    let fault = |why: String| Refusal::Unfit { name: name.to_owned(), why };
    let form = || fault("must have the form qos_overrides./full/topic.subscription.reliability".into());
    let rest = name.strip_prefix(PREFIX).ok_or_else(form)?;
    let (rest, policy) = rest.rsplit_once('.').ok_or_else(form)?;
    let (topic, entity) = rest.rsplit_once('.').ok_or_else(form)?;
    let entity = match entity {
        "publisher" => Entity::Publisher,
        "subscription" => Entity::Subscription,
        _ => return Err(form()),
    };
    if !topic.starts_with('/') {
        return Err(fault(format!("is about '{topic}', which is no full topic name: it must begin with /")));
    }
    if !POLICIES.iter().any(|(known, _)| *known == policy) {
        let known: Vec<_> = POLICIES.iter().map(|(known, _)| *known).collect();
        return Err(fault(format!("is about no policy; there are {}", known.join(", "))));
    }
    Ok((topic, entity, policy))
}

/// Changes one policy; none if the value is not permitted.
fn set(profile: &mut QosProfile, policy: &str, value: &ParameterValue) -> Option<()> {
    let nanoseconds = || match value {
        ParameterValue::Integer(ns) => u64::try_from(*ns).ok().map(Duration::from_nanos),
        _ => None,
    };
    let text = match value {
        ParameterValue::String(text) => text.as_str(),
        _ => "",
    };
    match (policy, value) {
        ("depth", ParameterValue::Integer(depth @ 1..=10_000)) => profile.depth = *depth as usize,
        ("deadline", _) => profile.deadline = nanoseconds()?,
        ("lifespan", _) => profile.lifespan = nanoseconds()?,
        ("liveliness_lease_duration", _) => profile.liveliness_lease_duration = nanoseconds()?,
        ("reliability", _) => {
            profile.reliability = match text {
                "reliable" => ReliabilityPolicy::Reliable,
                "best_effort" => ReliabilityPolicy::BestEffort,
                "system_default" => ReliabilityPolicy::SystemDefault,
                _ => return None,
            }
        }
        ("durability", _) => {
            profile.durability = match text {
                "volatile" => DurabilityPolicy::Volatile,
                "transient_local" => DurabilityPolicy::TransientLocal,
                "system_default" => DurabilityPolicy::SystemDefault,
                _ => return None,
            }
        }
        ("history", _) => {
            profile.history = match text {
                "keep_last" => HistoryPolicy::KeepLast,
                "keep_all" => HistoryPolicy::KeepAll,
                "system_default" => HistoryPolicy::SystemDefault,
                _ => return None,
            }
        }
        ("liveliness", _) => {
            profile.liveliness = match text {
                "automatic" => LivelinessPolicy::Automatic,
                "manual_by_topic" => LivelinessPolicy::ManualByTopic,
                "system_default" => LivelinessPolicy::SystemDefault,
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(())
}

/// Why a subscription with `wanted` gets nothing from a publisher with `offered`: the policies that do not go
/// together, by the rules of DDS (a reader may not ask for more than a writer gives).
pub fn incompatibilities(offered: &QosProfile, wanted: &QosProfile) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut put = |policy: &str, offered: &str, wanted: &str| {
        reasons.push(format!("{policy}: it offers {offered}, this node asks for {wanted}"));
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
        let told = offered.map_or("none".into(), |offered| format!("{offered:?}"));
        offered.is_none_or(|offered| offered > wanted).then(|| (told, format!("{wanted:?}")))
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
    use super::*;

    fn text(text: &str) -> ParameterValue {
        ParameterValue::String(text.into())
    }

    #[test]
    fn an_override_changes_its_topic_and_entity_and_nothing_else() {
        let all = [
            ("qos_overrides./image.subscription.reliability", text("reliable")),
            ("qos_overrides./image.subscription.depth", ParameterValue::Integer(1)),
            ("qos_overrides./image.publisher.depth", ParameterValue::Integer(7)),
            ("qos_overrides./other.subscription.depth", ParameterValue::Integer(9)),
        ];
        let overrides = || all.iter().map(|(name, value)| (*name, value));
        let changed = profile(QosProfile::sensor_data(), "/image", Entity::Subscription, overrides());
        assert_eq!((changed.depth, changed.reliability), (1, ReliabilityPolicy::Reliable));
        assert_eq!(changed.durability, QosProfile::sensor_data().durability);
        let same = profile(QosProfile::sensor_data(), "/third", Entity::Subscription, overrides());
        assert_eq!(same, QosProfile::sensor_data());
    }

    #[test]
    fn an_override_about_no_topic_of_the_node_is_named_with_what_there_is() {
        let depth = ("qos_overrides./tracks.publisher.depth".to_owned(), ParameterValue::Integer(3));
        let parameters = Parameters::with([depth]).unwrap();
        let qos = TopicQos::of_node("/", "eye", &parameters);
        assert_eq!(qos.of("image", Entity::Subscription, QosProfile::default()).depth, QosProfile::default().depth);
        let sentence = qos.check().unwrap_err().to_string();
        assert!(sentence.contains("no topic of this node; there are /image.subscription"), "{sentence}");
        assert_eq!(qos.of("tracks", Entity::Publisher, QosProfile::default()).depth, 3);
        assert_eq!(qos.check(), Ok(()));
    }

    #[test]
    fn names_and_values_that_mean_nothing_are_refused_with_what_would() {
        let depth = ParameterValue::Integer(0);
        for (name, value, fault) in [
            ("qos_overrides./image.subscription.depth", &depth, "from 1 to 10000, not 0"),
            ("qos_overrides./image.subscription.reliability", &text("sure"), "reliable, best_effort"),
            ("qos_overrides./image.subscription.colour", &depth, "no policy"),
            ("qos_overrides./image.reader.depth", &depth, "form"),
            ("qos_overrides.image.subscription.depth", &depth, "begin with /"),
            ("qos_overrides.depth", &depth, "form"),
        ] {
            let sentence = check(name, value).unwrap_err().to_string();
            assert!(sentence.contains(name) && sentence.contains(fault), "{sentence}");
        }
    }

    #[test]
    fn a_reader_that_asks_for_more_than_is_offered_is_told_which_policy() {
        let offered = QosProfile::sensor_data();
        let wanted = QosProfile::sensor_data().reliable().transient_local();
        let reasons = incompatibilities(&offered, &wanted);
        assert!(reasons[0].starts_with("reliability: it offers best_effort") && reasons[1].starts_with("durability"));
        assert_eq!(incompatibilities(&wanted, &offered), Vec::<String>::new());
    }

    #[test]
    fn a_lease_longer_than_the_reader_asks_for_or_none_at_all_is_told() {
        let lease = |ms| QosProfile::sensor_data().liveliness_lease_duration(Duration::from_millis(ms));
        let told = |offered, wanted| incompatibilities(&lease(offered), &lease(wanted)).concat();
        assert_eq!(told(300, 200), "liveliness_lease_duration: it offers 300ms, this node asks for 200ms");
        assert_eq!(told(0, 200), "liveliness_lease_duration: it offers none, this node asks for 200ms");
        assert_eq!(told(i64::MAX as u64 / 1_000_000, 200), told(0, 200));
        assert_eq!((told(200, 200), told(100, 200), told(300, 0)), Default::default());
    }
}
