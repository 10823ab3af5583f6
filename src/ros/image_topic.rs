//! The topic of a camera's images, as the user has named or remapped it.

use super::parameters::Parameters;
use super::topics::CameraTopics;

/// The messages in which a camera's images come, by image_transport's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Raw,
    /// JPEG, PNG, or the packets of a video.
    Compressed,
    /// The packets of a video, as foxglove_compressed_video_transport and Foxglove have them.
    Foxglove,
}

impl Transport {
    /// The values of the parameter `image_transport`.
    pub const NAMES: [&str; 3] = ["raw", "compressed", "foxglove"];
    pub const ALL: [Self; 3] = [Self::Raw, Self::Compressed, Self::Foxglove];

    /// By its name; raw for any other, which the parameter does not take.
    fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|transport| transport.name() == name).unwrap_or(Self::Raw)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// What image_transport appends to the topic of the images.
    pub fn suffix(self) -> &'static str {
        ["", "/compressed", "/foxglove"][self as usize]
    }

    /// The ROS type of the messages.
    pub fn message_type(self) -> &'static str {
        ["sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "foxglove_msgs/msg/CompressedVideo"][self as usize]
    }
}

/// Where a camera's images are taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTopic {
    /// As it is passed to ROS, which applies the remapping rules to it.
    pub name: String,
    /// The full name after remapping.
    pub full: String,
    /// The name that a rule on the command line would remap, such as `front/image`.
    pub remappable: String,
    /// What comes on it.
    pub transport: Transport,
}

impl ImageTopic {
    /// Of a camera, whose `parameters` these are. For a transport that is not raw, what is given or
    /// remapped may be the image topic, below which image_transport has it, or its own topic.
    pub fn of(parameters: &Parameters, topics: &CameraTopics) -> Self {
        let topic = parameters.text("image_topic");
        let transport = Transport::named(parameters.text("image_transport"));
        let suffix = transport.suffix();
        let (below, image) = (format!("{topic}{suffix}"), topics.resolve(topic));
        let taken = if image.ends_with(suffix) {
            topic.to_owned()
        } else if topics.is_remapped(&below) {
            below
        } else {
            image + suffix
        };
        let (name, full) = (topics.name(&taken), topics.resolve(&taken));
        Self { name, full, remappable: topics.name(topic), transport }
    }

    /// The topic of the raw images of the same camera, if it is named as image_transport names them.
    pub fn raw(&self) -> &str {
        self.full.strip_suffix(self.transport.suffix()).unwrap_or(&self.full)
    }

    /// The topic of the same camera's JPEGs.
    pub fn compressed(&self) -> String {
        match self.transport {
            Transport::Compressed => self.full.clone(),
            Transport::Raw | Transport::Foxglove => format!("{}{}", self.raw(), Transport::Compressed.suffix()),
        }
    }

    /// The arguments after `--ros-args` with which the node takes images of any type from `topic`, a
    /// full name.
    pub fn arguments_for(&self, topic: &str, transport: Transport) -> String {
        let option = if transport == self.transport {
            String::new()
        } else {
            format!("-p image_transport:={} ", transport.name())
        };
        // Only a topic below the images' own is found by itself.
        let (suffix, to) = match topic.strip_suffix(transport.suffix()) {
            Some(image) => ("", image),
            None => (transport.suffix(), topic),
        };
        format!("{option}-r {}{suffix}:={to}", self.remappable)
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
        use Transport::{Compressed, Foxglove, Raw};
        for from in Transport::ALL {
            for (to, transport) in [
                ("/camera/image_raw/compressed", Compressed),
                ("/jpeg", Compressed),
                ("/camera/image_raw", Raw),
                ("/camera/image_raw/foxglove", Foxglove),
                ("/h264", Foxglove),
            ] {
                let arguments = topic("camera", "image", from.name(), "").arguments_for(to, transport);
                let rules = arguments.split_once("-r").unwrap().1;
                assert_eq!(arguments.contains("image_transport:="), from != transport, "{arguments}");
                let led = topic("camera", "image", transport.name(), &format!("-r{rules}")).full;
                assert_eq!(led, to, "{arguments}");
            }
        }
    }

    #[test]
    fn a_camera_has_its_other_transports_beside_each_other() {
        for transport in Transport::NAMES {
            let of = topic("", "/camera/image_raw", transport, "");
            assert_eq!((of.raw(), of.compressed().as_str()), ("/camera/image_raw", "/camera/image_raw/compressed"));
        }
        let own = topic("", "image", "foxglove", "-r image/foxglove:=/h264");
        assert_eq!((own.full.as_str(), own.compressed().as_str()), ("/h264", "/h264/compressed"));
    }
}
