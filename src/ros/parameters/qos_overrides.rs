//! The standard parameters `qos_overrides.<topic>.<entity>.<policy>`: their names, and the check of
//! their values.
//!
//! As in rclcpp: the topic is its full name after remapping, the entity `publisher` or
//! `subscription`, and the parameters can be set at start only. Written in a parameter file:
//!
//! ```yaml
//! qos_overrides:
//!   /camera/image_raw:
//!     subscription: {reliability: reliable, depth: 1}
//! ```

use std::time::Duration;

use r2r::qos::{DurabilityPolicy, HistoryPolicy, LivelinessPolicy, ReliabilityPolicy};
use r2r::{ParameterValue, QosProfile};

use super::declaration::shown;
use super::ParameterError;

/// The beginning of these parameters' names.
pub(super) const PREFIX: &str = "qos_overrides.";

/// Which side of a topic the node is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entity {
    Publisher,
    Subscription,
}

impl Entity {
    /// As in the parameters' names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Subscription => "subscription",
        }
    }
}

/// The policies with their permitted values.
const POLICIES: [(&str, &str); 8] = [
    ("deadline", "an integer of nanoseconds, at least 0"),
    ("depth", "an integer from 1 to 10000"),
    ("durability", "one of volatile, transient_local, system_default"),
    ("history", "one of keep_last, keep_all, system_default"),
    ("lifespan", "an integer of nanoseconds, at least 0"),
    ("liveliness", "one of automatic, manual_by_topic, system_default"),
    ("liveliness_lease_duration", "an integer of nanoseconds, at least 0"),
    ("reliability", "one of reliable, best_effort, system_default"),
];

/// Whether a parameter of that name is a QoS override.
pub fn is_override(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The permitted values of an override, and its description.
///
/// # Errors
/// When the name does not have the form above.
pub fn describe(name: &str) -> Result<(&'static str, String), ParameterError> {
    let (topic, entity, policy) = split(name)?;
    let (_, expected) = POLICIES.iter().find(|(known, _)| *known == policy).expect("split knows the policy");
    Ok((expected, format!("The {policy} of the {} of {topic}.", entity.name())))
}

/// Checks the name and the value of an override.
///
/// # Errors
/// A sentence that names the parameter and its permitted values.
pub fn check(name: &str, value: &ParameterValue) -> Result<(), ParameterError> {
    let (_, _, policy) = split(name)?;
    // Any profile will do.
    set(&mut QosProfile::default(), policy, value).ok_or_else(|| refusal(name, policy, value))
}

/// The profile of one side of `topic`, a full name: `default` with the `overrides` for it.
pub fn profile<'a>(
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

fn refusal(name: &str, policy: &str, value: &ParameterValue) -> ParameterError {
    let expected = POLICIES.iter().find(|(known, _)| *known == policy).map_or("", |(_, expected)| expected);
    ParameterError::Invalid { name: name.to_owned(), why: format!("must be {expected}, not {}", shown(value)) }
}

/// Topic, entity and policy of an override.
pub fn split(name: &str) -> Result<(&str, Entity, &str), ParameterError> {
    let fault = |why: String| ParameterError::Invalid { name: name.to_owned(), why };
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
        return Err(fault(format!("names the topic '{topic}', which must be a full name and begin with /")));
    }
    if !POLICIES.iter().any(|(known, _)| *known == policy) {
        let known: Vec<_> = POLICIES.iter().map(|(known, _)| *known).collect();
        return Err(fault(format!("names an unknown policy; there are {}", known.join(", "))));
    }
    Ok((topic, entity, policy))
}

/// Sets one policy; `None` if the value is not permitted.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> ParameterValue {
        ParameterValue::String(text.into())
    }

    #[test]
    fn an_override_changes_its_topic_and_entity_only() {
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
    fn invalid_names_and_values_are_refused_with_valid_ones() {
        let depth = ParameterValue::Integer(0);
        for (name, value, fault) in [
            ("qos_overrides./image.subscription.depth", &depth, "from 1 to 10000, not 0"),
            ("qos_overrides./image.subscription.reliability", &text("sure"), "reliable, best_effort"),
            ("qos_overrides./image.subscription.colour", &depth, "unknown policy"),
            ("qos_overrides./image.reader.depth", &depth, "form"),
            ("qos_overrides.image.subscription.depth", &depth, "begin with /"),
            ("qos_overrides.depth", &depth, "form"),
        ] {
            let sentence = check(name, value).unwrap_err().to_string();
            assert!(sentence.contains(name) && sentence.contains(fault), "{sentence}");
        }
    }
}
