//! `vision_msgs/LabelInfo`: the names of the classes in the mask, latched.

use peregrine_student::Architecture;
use r2r::vision_msgs::msg::{LabelInfo, VisionClass};
use r2r::{Node, Publisher, QosProfile};

use crate::topics::CameraTopics;

/// Publishes the class table of the segmentation for all subscribers to come (transient local).
///
/// # Errors
/// When ROS refuses.
pub fn publish(
    node: &mut Node,
    topics: &CameraTopics,
    architecture: &Architecture,
    threshold: f64,
) -> r2r::Result<Publisher<LabelInfo>> {
    let latched = QosProfile::default().keep_last(1).reliable().transient_local();
    let publisher = topics.publisher(node, "label_info", latched)?;
    publisher.publish(&table(architecture.segmentation_classes(), threshold))?;
    Ok(publisher)
}

fn table(classes: &[String], threshold: f64) -> LabelInfo {
    let row = |(number, name): (usize, &String)| VisionClass { class_id: number as u16, class_name: name.clone() };
    let class_map = classes.iter().enumerate().map(row).collect();
    LabelInfo { class_map, threshold: threshold as f32, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_of_the_mask_has_its_name() {
        let table = table(Architecture::default_student().segmentation_classes(), 0.3);
        let road = table.class_map.iter().find(|c| c.class_name == "road").map(|c| c.class_id);
        assert_eq!((table.class_map.len(), road, table.threshold), (11, Some(3), 0.3));
    }
}
