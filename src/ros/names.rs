//! Topic names as ROS will resolve them: expanded, and remapped by the rules of the command line.
//!
//! r2r passes a name to ROS and does not learn what it resolves to. The node needs to know: to name its
//! source in diagnostics, because the compressed topic is below the *remapped* image topic, and
//! because QoS overrides are by full names.

use super::arguments::RosArguments;

/// `topic` as a full name, with the remapping rules of the process's command line applied.
///
/// `namespace` and `node` are the node's own. A topic that ROS would not accept is returned
/// unchanged.
pub fn resolve(topic: &str, namespace: &str, node: &str) -> String {
    let full = expand(topic, namespace, node);
    remap(&full, namespace, node).unwrap_or(full)
}

/// The full name of a relative (`image`), private (`~/image`) or full (`/image`) topic.
fn expand(topic: &str, namespace: &str, node: &str) -> String {
    let namespace = namespace.trim_end_matches('/');
    match topic.strip_prefix('~') {
        Some(rest) => format!("{namespace}/{node}{rest}"),
        None if topic.starts_with('/') => topic.to_owned(),
        None => format!("{namespace}/{topic}"),
    }
}

/// `None` if no rule applies.
fn remap(full: &str, namespace: &str, node: &str) -> Option<String> {
    RosArguments::of_process().ok()?.remapped(full, namespace, node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_expanded_as_ros_does() {
        assert_eq!(expand("image", "/", "eye"), "/image");
        assert_eq!(expand("image", "/car", "eye"), "/car/image");
        assert_eq!(expand("~/image", "/car", "eye"), "/car/eye/image");
        assert_eq!(expand("/front/image", "/car", "eye"), "/front/image");
    }

    #[test]
    fn without_a_rule_a_name_is_not_remapped() {
        assert_eq!(resolve("image", "/", "eye"), "/image");
    }
}
