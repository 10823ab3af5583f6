//! A topic of a recording.

use crate::image::ImageType;

/// A topic of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Such as `/camera/image_raw`.
    pub name: String,
    /// Such as `sensor_msgs/msg/Image`.
    pub type_name: String,
    /// How its messages are encoded: `cdr` of ROS 2.
    pub encoding: String,
    /// Number of its messages. `None` where nothing says it.
    pub count: Option<u64>,
}

impl Topic {
    /// How its messages carry images. `None` if they do not, or not in an encoding that is read.
    pub fn image_type(&self) -> Option<ImageType> {
        ImageType::named(&self.type_name).filter(|_| self.encoding == "cdr")
    }

    /// Name, type and count, as a list shows it.
    pub fn described(&self) -> String {
        let count = self.count.map_or_else(String::new, |count| format!(", {count} messages"));
        format!("{} ({}{count})", self.name, self.type_name)
    }
}
