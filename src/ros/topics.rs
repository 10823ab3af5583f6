//! The topics of one camera: their names and their QoS.

use r2r::{Node, Publisher, QosProfile, WrappedTypesupport};

use super::parameters::qos_overrides::Entity;
use super::qos::TopicQos;

/// The topics of one camera: below its name, unless it has none, and with their QoS overrides.
pub struct CameraTopics<'a> {
    camera: &'a str,
    qos: &'a TopicQos<'a>,
}

impl<'a> CameraTopics<'a> {
    pub fn new(camera: &'a str, qos: &'a TopicQos<'a>) -> Self {
        Self { camera, qos }
    }

    /// A topic's name as it is passed to ROS. Full and private names stay unchanged.
    pub fn name(&self, topic: &str) -> String {
        if self.camera.is_empty() || topic.starts_with(['/', '~']) {
            topic.to_owned()
        } else {
            format!("{}/{topic}", self.camera)
        }
    }

    /// The full name of `topic` after remapping.
    pub fn resolve(&self, topic: &str) -> String {
        self.qos.resolve(&self.name(topic))
    }

    /// Whether a rule of remapping applies to `topic`.
    pub fn is_remapped(&self, topic: &str) -> bool {
        self.qos.is_remapped(&self.name(topic))
    }

    /// # Errors
    /// When ROS refuses the topic.
    pub fn publisher<T: WrappedTypesupport>(
        &self,
        node: &mut Node,
        topic: &str,
        default: QosProfile,
    ) -> r2r::Result<Publisher<T>> {
        let name = self.name(topic);
        node.create_publisher(&name, self.qos.of(&name, Entity::Publisher, default))
    }

    /// The QoS of a subscription to the topic that is passed to ROS as `name`.
    pub fn subscription(&self, name: &str, default: QosProfile) -> QosProfile {
        self.qos.of(name, Entity::Subscription, default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;

    #[test]
    fn topics_of_a_named_camera_are_below_its_name() {
        let parameters = Parameters::default();
        let qos = TopicQos::of_node("/car", "eye", &parameters);
        let name = |camera: &str, topic: &str| CameraTopics::new(camera, &qos).name(topic);
        assert_eq!(name("", "image"), "image");
        assert_eq!(name("front", "image"), "front/image");
        assert_eq!(name("front", "/image"), "/image");
        assert_eq!(CameraTopics::new("front", &qos).resolve("image"), "/car/front/image");
    }
}
