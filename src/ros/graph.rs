//! What the ROS graph shows of a camera's topic: who publishes it, and why no images come.

use r2r::{Node, QosProfile};

use super::image_topic::{ImageTopic, Transport};
use super::qos;

/// Most other topics that are queried in order to suggest one.
const MAX_SUGGESTIONS: usize = 8;

/// The image topics of this node itself.
const OWN: [&str; 4] = ["/road_mask", "/segmentation", "/debug_image", "/debug_image/compressed"];

/// The full names of the nodes that publish a topic, once for each of their publishers.
pub fn publishers(node: &Node, topic: &str) -> r2r::Result<Vec<String>> {
    let found = node.get_publishers_info_by_topic(topic, false)?;
    let mut names: Vec<_> =
        found.iter().map(|p| format!("{}/{}", p.node_namespace.trim_end_matches('/'), p.node_name)).collect();
    names.sort();
    Ok(names)
}

/// That several publishers share a camera's topic; `None` if they do not.
pub fn rivals(publishers: &[String], topic: &str) -> Option<String> {
    (publishers.len() > 1).then(|| {
        let names = publishers.join(" and ");
        format!(
            "{topic} has {} publishers, {names}: their images are taken for one camera's, which spoils the tracks; \
                 give each a topic of its own, and name them in the parameter cameras",
            publishers.len()
        )
    })
}

/// Why there may be no images on `topic`, subscribed to with `wanted`, as far as the ROS graph shows.
pub fn explanation(node: &Node, topic: &ImageTopic, wanted: &QosProfile) -> String {
    let Ok(publishers) = node.get_publishers_info_by_topic(&topic.full, false) else {
        return "the ROS graph query for its publishers failed".into();
    };
    let ours = topic.transport.message_type();
    if let Some(other) = publishers.iter().find(|p| p.topic_type != ours) {
        let (node, theirs) = (&other.node_name, &other.topic_type);
        let known = Transport::ALL.into_iter().find(|transport| transport.message_type() == theirs);
        let remedy = known.map_or_else(String::new, |transport| {
            format!("; start this node with --ros-args {}", topic.arguments_for(&topic.full, transport))
        });
        return format!("type mismatch: {node} publishes {theirs} there, and this node subscribes to {ours}{remedy}");
    }
    if publishers.is_empty() {
        return nothing_published(node, topic);
    }
    for publisher in &publishers {
        let reasons = qos::incompatibilities(&publisher.qos_profile, wanted);
        if !reasons.is_empty() {
            let (name, topic) = (&publisher.node_name, &topic.full);
            let reasons = reasons.join("; ");
            return format!("incompatible QoS of {name} ({reasons}); see qos_overrides.{topic}");
        }
    }
    let names: Vec<_> = publishers.iter().map(|p| p.node_name.as_str()).collect();
    format!("{} publishes it with a compatible QoS, but sends nothing", names.join(", "))
}

/// What to do about a topic without a publisher.
fn nothing_published(node: &Node, topic: &ImageTopic) -> String {
    let ours = topic.transport;
    let others = Transport::ALL.into_iter().filter(|transport| *transport != ours);
    let of_others: Vec<_> = others.map(|transport| (transport, published(node, topic, transport))).collect();
    // The same camera's images of another type come first: then the transport alone is wrong.
    for (transport, topics) in &of_others {
        let beside = format!("{}{}", topic.raw(), transport.suffix());
        if topics.contains(&beside) {
            let arguments = topic.arguments_for(&beside, *transport);
            return format!("it has no publisher, only {beside} has one; start this node with --ros-args {arguments}");
        }
    }
    let of_any = [(ours, published(node, topic, ours))].into_iter().chain(of_others);
    match of_any.into_iter().find(|(_, topics)| !topics.is_empty()) {
        None => format!("it has no publisher, and no topic has one of {}", ours.message_type()),
        Some((transport, topics)) => {
            let each: Vec<_> = topics.iter().map(|other| topic.arguments_for(other, transport)).collect();
            format!("it has no publisher; start this node with --ros-args {}", each.join(", or with "))
        }
    }
}

/// The topics, but this node's, that have a publisher of a transport's messages.
fn published(node: &Node, topic: &ImageTopic, transport: Transport) -> Vec<String> {
    let wanted = transport.message_type();
    let topics = node.get_topic_names_and_types().unwrap_or_default();
    let of_type = topics.into_iter().filter(|(_, types)| types.iter().any(|t| t == wanted));
    let is_published = |name: &String| node.get_publishers_info_by_topic(name, false).is_ok_and(|p| !p.is_empty());
    let is_own = |name: &String| OWN.iter().any(|own| name.ends_with(own));
    let mut names: Vec<_> = of_type.map(|(name, _)| name).filter(|name| !is_own(name) && *name != topic.full).collect();
    names.sort();
    // Each costs a query of the graph, while cameras that do send are waiting.
    names.truncate(MAX_SUGGESTIONS);
    names.retain(is_published);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_that_share_a_topic_are_all_named() {
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        assert_eq!(rivals(&names(&[]), "/image"), None);
        assert_eq!(rivals(&names(&["/left"]), "/image"), None);
        let told = rivals(&names(&["/left", "/right"]), "/image").unwrap();
        assert!(told.starts_with("/image has 2 publishers, /left and /right: "), "{told}");
    }
}
