//! Topic names as ROS will resolve them: expanded, and remapped by the rules of the command line.
//!
//! r2r passes a name to ROS and does not learn what it resolves to. The node needs to know: to name its
//! source in diagnostics, because the compressed topic is below the *remapped* image topic, and
//! because QoS overrides are by full names.

/// The full name of a relative (`image`), private (`~/image`) or full (`/image`) topic.
pub fn expand(topic: &str, namespace: &str, node: &str) -> String {
    let namespace = namespace.trim_end_matches('/');
    match topic.strip_prefix('~') {
        Some(rest) => format!("{namespace}/{node}{rest}"),
        None if topic.starts_with('/') => topic.to_owned(),
        None => format!("{namespace}/{topic}"),
    }
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
}
