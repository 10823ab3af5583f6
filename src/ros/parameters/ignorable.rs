//! Parameters given at start that are no fault although this node does not have them.

use super::error::ParameterError;
use super::qos_overrides;
use crate::arguments::given::Source;

/// What every node of rclcpp has, and so every dump of one.
const OF_RCLCPP: [&str; 1] = ["start_type_description_service"];

/// Topics of every node of rclcpp, whose QoS this node does not let anybody change.
const TOPICS_OF_RCLCPP: [&str; 3] = ["/parameter_events", "/rosout", "/clock"];

/// Why a parameter that stands at `source` is ignored, which is refused with `refusal` if at all;
/// `None` if it is to be set, or is a fault.
pub fn why(name: &str, source: &Source, refusal: Option<ParameterError>) -> Option<String> {
    let place = match source {
        Source::CommandLine => "on the command line".to_owned(),
        Source::File { path, pattern } => format!("in {path} under {pattern}"),
    };
    if is_of_rclcpp(name) {
        return Some(format!("parameter '{name}' {place} is one of rclcpp's nodes, and has no effect on this one"));
    }
    match refusal {
        Some(refusal)
            if source.is_shared()
                && (matches!(refusal, ParameterError::Unknown { .. }) || qos_overrides::is_override(name)) =>
        {
            Some(format!("parameter {refusal}; it is ignored, since it stands {place}, which is for other nodes too"))
        }
        _ => None,
    }
}

fn is_of_rclcpp(name: &str) -> bool {
    let topic = name.strip_prefix(qos_overrides::PREFIX);
    let is_topics = |rest: &str, topic: &str| rest.strip_prefix(topic).is_some_and(|rest| rest.starts_with('.'));
    OF_RCLCPP.contains(&name) || topic.is_some_and(|rest| TOPICS_OF_RCLCPP.iter().any(|topic| is_topics(rest, topic)))
}

#[cfg(test)]
mod tests {
    use r2r::ParameterValue;

    use super::*;
    use crate::arguments::given::Given;
    use crate::parameters::Parameters;

    fn under(pattern: &str, name: &str, value: ParameterValue) -> (Parameters, Vec<String>) {
        let source = Source::File { path: "site.yaml".into(), pattern: pattern.into() };
        Parameters::given([Given { name: name.into(), value, source }])
    }

    #[test]
    fn somebody_elses_key_under_a_wildcard_is_told_and_ignored() {
        for pattern in ["/**", "/*", "/car/**", "**"] {
            for name in ["jpeg_quality", "camera.image_raw.format", "score_treshold"] {
                let (parameters, ignored) = under(pattern, name, ParameterValue::Integer(90));
                assert_eq!(parameters.fault(), None, "{name}");
                let told = &ignored[0];
                assert!(told.contains(name) && told.contains(&format!("in site.yaml under {pattern}")), "{told}");
            }
        }
        let told = under("/**", "score_treshold", ParameterValue::Double(0.5)).1;
        assert!(told[0].contains("did you mean 'score_threshold'?"), "{}", told[0]);
    }

    #[test]
    fn the_same_key_under_the_nodes_own_name_is_a_fault() {
        for name in ["jpeg_quality", "score_treshold", "qos_overrides./image.subscription.colour"] {
            let (parameters, ignored) = under("/perception", name, ParameterValue::Integer(90));
            assert!(parameters.fault().is_some_and(|fault| fault.to_string().contains(name)), "{name}");
            assert_eq!(ignored, Vec::<String>::new());
        }
    }

    #[test]
    fn a_known_key_with_a_wrong_value_is_a_fault_wherever_it_stands() {
        let (parameters, ignored) = under("/**", "threads", ParameterValue::String("many".into()));
        assert!(parameters.fault().is_some() && ignored.is_empty());
    }

    /// What `ros2 param dump` writes of a node of rclcpp.
    #[test]
    fn what_every_node_of_rclcpp_has_is_no_fault() {
        for pattern in ["/**", "/perception"] {
            for (name, value) in [
                ("start_type_description_service", ParameterValue::Bool(true)),
                ("use_sim_time", ParameterValue::Bool(false)),
                ("qos_overrides./parameter_events.publisher.depth", ParameterValue::Integer(1000)),
                ("qos_overrides./parameter_events.publisher.history", ParameterValue::String("keep_last".into())),
                ("qos_overrides./clock.subscription.durability", ParameterValue::String("volatile".into())),
                ("qos_overrides./rosout.publisher.reliability", ParameterValue::String("reliable".into())),
            ] {
                let (parameters, ignored) = under(pattern, name, value);
                assert_eq!(parameters.fault(), None, "{name}");
                assert_eq!(ignored.len(), usize::from(name != "use_sim_time"), "{name}");
            }
        }
    }
}
