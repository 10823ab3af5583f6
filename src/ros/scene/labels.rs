//! `vision_msgs/LabelInfo`: the names of the classes of both heads, latched.

use r2r::vision_msgs::msg::{LabelInfo, VisionClass};
use r2r::{Node, Publisher, QosProfile};

use crate::model::ModelClasses;
use crate::topics::CameraTopics;

/// The publishers of both tables; each goes to all subscribers to come (transient local).
pub struct Labels {
    segmentation: Publisher<LabelInfo>,
    detection: Publisher<LabelInfo>,
    threshold: f64,
}

impl Labels {
    /// # Errors
    /// When ROS refuses.
    pub fn new(node: &mut Node, topics: &CameraTopics, threshold: f64) -> r2r::Result<Self> {
        let latched = || QosProfile::default().keep_last(1).reliable().transient_local();
        Ok(Self {
            segmentation: topics.publisher(node, "label_info", latched())?,
            detection: topics.publisher(node, "detection_label_info", latched())?,
            threshold,
        })
    }

    /// Publishes the classes of a model; empty tables for a head that it lacks.
    ///
    /// # Errors
    /// When the middleware refuses.
    pub fn publish(&self, classes: &ModelClasses) -> r2r::Result<()> {
        self.segmentation.publish(&table(&classes.segmentation, self.threshold))?;
        self.detection.publish(&table(&classes.detection, self.threshold))
    }

    /// To be called once nothing publishes any more.
    pub fn destroy(self, node: &mut Node) {
        node.destroy_publisher(self.segmentation);
        node.destroy_publisher(self.detection);
    }
}

fn table(classes: &[String], threshold: f64) -> LabelInfo {
    let row = |(number, name): (usize, &String)| VisionClass { class_id: number as u16, class_name: name.clone() };
    let class_map = classes.iter().enumerate().map(row).collect();
    LabelInfo { class_map, threshold: threshold as f32, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use peregrine_student::Architecture;

    use super::*;

    #[test]
    fn each_class_of_the_mask_has_its_name() {
        let table = table(Architecture::default_student().segmentation_classes(), 0.3);
        let road = table.class_map.iter().find(|c| c.class_name == "road").map(|c| c.class_id);
        assert_eq!((table.class_map.len(), road, table.threshold), (11, Some(3), 0.3));
    }
}
