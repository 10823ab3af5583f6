//! The definitions of the messages that are written, gathered by `build.rs`.

include!(concat!(env!("OUT_DIR"), "/schemas.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_brings_those_that_it_uses() {
        let of = |name: &str| SCHEMAS.iter().find(|(known, _)| *known == name).unwrap().1;
        let detections = of("vision_msgs/msg/Detection2DArray");
        assert!(detections.contains("Detection2D[] detections"));
        for used in ["std_msgs/Header", "builtin_interfaces/Time", "vision_msgs/BoundingBox2D", "geometry_msgs/Point"] {
            assert_eq!(detections.matches(&format!("\nMSG: {used}\n")).count(), 1, "{used}");
        }
        assert!(!of("sensor_msgs/msg/CompressedImage").contains("vision_msgs"));
    }
}
