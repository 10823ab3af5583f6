//! The topic of a camera's images, as the user has named or remapped it.

use super::parameters::Parameters;
use super::topics::CameraTopics;

/// What image_transport appends for JPEG and PNG.
pub const COMPRESSED: &str = "/compressed";

/// Where a camera's images are taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTopic {
    /// As it is passed to ROS, which applies the remapping rules to it.
    pub name: String,
    /// The full name after remapping.
    pub full: String,
    /// The name that a rule on the command line would remap, such as `front/image`.
    pub remappable: String,
    /// Whether the messages are `CompressedImage`.
    pub compressed: bool,
}

impl ImageTopic {
    /// Of a camera, whose `parameters` these are. For compressed images, what is given or remapped
    /// may be the image topic, below which they are as image_transport has it, or their own topic.
    pub fn of(parameters: &Parameters, topics: &CameraTopics) -> Self {
        let topic = parameters.text("image_topic");
        let compressed = parameters.text("image_transport") == "compressed";
        let (below, image) = (format!("{topic}{COMPRESSED}"), topics.resolve(topic));
        let taken = if !compressed || image.ends_with(COMPRESSED) {
            topic.to_owned()
        } else if topics.is_remapped(&below) {
            below
        } else {
            image + COMPRESSED
        };
        let (name, full) = (topics.name(&taken), topics.resolve(&taken));
        Self { name, full, remappable: topics.name(topic), compressed }
    }

    /// The ROS type of the messages.
    pub fn message_type(&self) -> &'static str {
        message_type(self.compressed)
    }

    /// The arguments after `--ros-args` with which the node takes images of either type from
    /// `topic`, a full name.
    pub fn arguments_for(&self, topic: &str, compressed: bool) -> String {
        let transport = match (self.compressed, compressed) {
            (false, true) => "-p image_transport:=compressed ",
            (true, false) => "-p image_transport:=raw ",
            _ => "",
        };
        // Only a topic below the images' own is found by itself.
        let (suffix, to) = match topic.strip_suffix(COMPRESSED).filter(|_| compressed) {
            Some(image) => ("", image),
            None if compressed => (COMPRESSED, topic),
            None => ("", topic),
        };
        format!("{transport}-r {}{suffix}:={to}", self.remappable)
    }
}

/// The ROS type of raw or compressed images.
pub fn message_type(compressed: bool) -> &'static str {
    if compressed {
        "sensor_msgs/msg/CompressedImage"
    } else {
        "sensor_msgs/msg/Image"
    }
}

#[cfg(test)]
mod tests {
    use r2r::ParameterValue;

    use super::*;
    use crate::arguments::RosArguments;
    use crate::qos::TopicQos;

    /// Of a camera with the parameters `image_topic` and `image_transport`, under rules of
    /// remapping.
    fn topic(camera: &str, topic: &str, transport: &str, rules: &str) -> ImageTopic {
        let text = |name: &str, value: &str| (name.to_owned(), ParameterValue::String(value.into()));
        let parameters = Parameters::with([text("image_topic", topic), text("image_transport", transport)]).unwrap();
        let line = ["node", "--ros-args"].into_iter().chain(rules.split_whitespace()).map(String::from);
        let qos = TopicQos::of_node("/", "eye", &parameters).with_rules(RosArguments::parse(line).unwrap());
        ImageTopic::of(&parameters, &CameraTopics::new(camera, &qos))
    }

    #[test]
    fn every_usual_way_to_name_a_compressed_topic_finds_it() {
        let wanted = "/camera/image_raw/compressed";
        for (parameter, rules) in [
            ("/camera/image_raw", ""),
            (wanted, ""),
            ("image", "-r image:=/camera/image_raw"),
            ("image", "-r image:=/camera/image_raw/compressed"),
            ("image", "-r image/compressed:=/camera/image_raw/compressed"),
            ("image", "-r /image/compressed:=/camera/image_raw/compressed"),
            ("image", "-r image:=/elsewhere -r image/compressed:=/camera/image_raw/compressed"),
            ("image", "-r image:=/here -r /here/compressed:=/camera/image_raw/compressed"),
            ("image/compressed", "-r image/compressed:=/camera/image_raw/compressed"),
        ] {
            assert_eq!(topic("", parameter, "compressed", rules).full, wanted, "{parameter} {rules}");
        }
        assert_eq!(topic("", "image", "compressed", "").full, "/image/compressed");
        assert_eq!(topic("", "image", "compressed", "-r image/compressed:=/jpeg").full, "/jpeg");
        let rules = "-r front/image:=/front/camera/image_raw";
        assert_eq!(topic("front", "image", "compressed", rules).full, "/front/camera/image_raw/compressed");
        assert_eq!(topic("", "image", "raw", "-r image:=/camera/image_raw").full, "/camera/image_raw");
    }

    /// The arguments are told to the user: taken at their word, they must lead to the topic.
    #[test]
    fn the_arguments_that_are_recommended_lead_to_the_topic() {
        for camera in ["", "front"] {
            for (from, to, compressed) in [
                ("raw", "/camera/image_raw/compressed", true),
                ("raw", "/jpeg", true),
                ("raw", "/camera/image_raw", false),
                ("compressed", "/camera/image_raw", false),
                ("compressed", "/camera/image_raw/compressed", true),
                ("compressed", "/jpeg", true),
            ] {
                let arguments = topic(camera, "image", from, "").arguments_for(to, compressed);
                let rules = arguments.split_once("-r").unwrap().1;
                let transport = ["raw", "compressed"][usize::from(compressed)];
                assert_eq!(arguments.contains("image_transport:="), from != transport, "{arguments}");
                assert_eq!(topic(camera, "image", transport, &format!("-r{rules}")).full, to, "{arguments}");
            }
        }
    }
}
