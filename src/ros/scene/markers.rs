//! `visualization_msgs/MarkerArray`: the objects on the ground, for RViz and Foxglove.

use r2r::visualization_msgs::msg::{Marker, MarkerArray};
use r2r::NativeMsg;

use super::objects::Placed;
use super::painter::COLOURS;
use super::sequence::{name_of, resize, LONG_NAME};
use crate::messages::{set_header, set_string, NativeHeader};

/// Markers of one object: the 2-σ ellipse of its position, its box, its name.
const MARKERS_PER_OBJECT: usize = 3;

/// Length in metres of the box of an object: an image does not show how long it is.
const THICKNESS: f64 = 0.1;

/// With room for a fixed number of objects.
pub struct MarkersMessage {
    pub native: NativeMsg<MarkerArray>,
    frame: String,
    text: Vec<u8>,
}

// SAFETY: as for `DetectionsMessage`.
unsafe impl Send for MarkersMessage {}

impl MarkersMessage {
    pub fn new(max_objects: usize, frame: &str) -> Self {
        let text = format!("{LONG_NAME} {}", u64::MAX);
        let blank = |ns: &str, kind: i64| {
            let mut marker = Marker { ns: ns.into(), type_: kind as i32, text: text.clone(), ..Default::default() };
            marker.header.frame_id = frame.into();
            marker.pose.orientation.w = 1.0;
            marker
        };
        // The first deletes the markers of the frame before.
        let mut markers = vec![blank("", 0)];
        markers[0].action = Marker::DELETEALL as i32;
        for i in 0..max_objects {
            let kinds = [
                ("uncertainty", Marker::CYLINDER as i64),
                ("objects", Marker::CUBE as i64),
                ("names", Marker::TEXT_VIEW_FACING as i64),
            ];
            for (ns, kind) in kinds {
                markers.push(Marker { id: i as i32, ..blank(ns, kind) });
            }
        }
        let capacity = text.len();
        Self {
            native: NativeMsg::from(&MarkerArray { markers }),
            frame: frame.into(),
            text: Vec::with_capacity(capacity),
        }
    }

    pub fn fill(&mut self, header: &NativeHeader, placed: &[Placed], class_names: &[String]) {
        let markers = resize!(self.native.markers, 1 + MARKERS_PER_OBJECT * placed.len());
        for marker in markers.iter_mut() {
            set_header(&mut marker.header, header);
            set_string(&mut marker.header.frame_id, self.frame.as_bytes());
        }
        for (group, placed) in markers[1..].chunks_exact_mut(MARKERS_PER_OBJECT).zip(placed) {
            let [uncertainty, body, name] = group else { continue };
            let object = &placed.object;
            let position = &object.point.position;
            let [red, green, blue] = COLOURS[placed.detection.class % COLOURS.len()].map(|c| f32::from(c) / 255.0);
            for (marker, height, alpha) in [
                (&mut *uncertainty, 0.02, 0.3),
                (&mut *body, object.height / 2.0, 0.7),
                (&mut *name, object.height + 0.4, 1.0),
            ] {
                let at = &mut marker.pose.position;
                (at.x, at.y, at.z) = (position.x, position.y, height);
                (marker.color.r, marker.color.g, marker.color.b, marker.color.a) = (red, green, blue, alpha);
            }
            let (axes, angle) = ellipse(&object.point.covariance);
            (uncertainty.scale.x, uncertainty.scale.y, uncertainty.scale.z) = (4.0 * axes[0], 4.0 * axes[1], 0.02);
            set_yaw(&mut uncertainty.pose.orientation.z, &mut uncertainty.pose.orientation.w, angle);
            (body.scale.x, body.scale.y, body.scale.z) = (THICKNESS, object.width.max(0.05), object.height.max(0.05));
            set_yaw(&mut body.pose.orientation.z, &mut body.pose.orientation.w, object.azimuth);
            name.scale.z = 0.5;
            self.text.clear();
            self.text.extend_from_slice(name_of(class_names, placed.detection.class));
            if placed.identity != 0 {
                self.text.push(b' ');
                crate::messages::decimal(placed.identity, |digits| self.text.extend_from_slice(digits));
            }
            set_string(&mut name.text, &self.text);
        }
    }
}

/// Standard deviations along the two axes of a covariance, and the angle of the first.
fn ellipse(covariance: &nalgebra::Matrix2<f64>) -> ([f64; 2], f64) {
    let (a, b, c) = (covariance[(0, 0)], covariance[(0, 1)], covariance[(1, 1)]);
    let (middle, spread) = ((a + c) / 2.0, ((a - c) / 2.0).hypot(b));
    ([(middle + spread).max(1e-6).sqrt(), (middle - spread).max(1e-6).sqrt()], (2.0 * b).atan2(a - c) / 2.0)
}

/// A rotation about the z axis as the quaternion's z and w.
fn set_yaw(z: &mut f64, w: &mut f64, angle: f64) {
    (*z, *w) = (angle / 2.0).sin_cos();
}

#[cfg(test)]
mod tests {
    use r2r::WrappedTypesupport;

    use super::*;
    use nalgebra::{Matrix2, Vector2};
    use peregrine_core::{BoundingBox, Detection};
    use peregrine_geometry::ground::{GroundObject, GroundPoint};

    #[test]
    fn an_ellipse_has_the_axes_of_its_covariance() {
        let turned = nalgebra::Rotation2::new(0.4);
        let covariance = turned.matrix() * Matrix2::new(9.0, 0.0, 0.0, 4.0) * turned.matrix().transpose();
        let (axes, angle) = ellipse(&covariance);
        assert!((axes[0] - 3.0).abs() < 1e-9 && (axes[1] - 2.0).abs() < 1e-9 && (angle - 0.4).abs() < 1e-9);
    }

    #[test]
    fn an_object_has_its_box_its_name_and_its_ellipse() {
        let mut message = MarkersMessage::new(4, "base_link");
        let names = ["car".into(), "bus".into()];
        let detection = Detection { class: 0, score: 0.9, bbox: BoundingBox::default() };
        let point = GroundPoint { position: Vector2::new(10.0, 2.0), covariance: Matrix2::new(4.0, 0.0, 0.0, 1.0) };
        let object = GroundObject { point, azimuth: 0.2, width: 1.8, height: 1.4 };
        let header = NativeMsg::from(&r2r::std_msgs::msg::Header { frame_id: "front".into(), ..Default::default() });
        let placed = Placed { detection, identity: 42, object };
        message.fill(&header, &[placed, placed], &names);
        message.fill(&header, &[placed], &names);
        let sent = MarkerArray::from_native(&message.native).markers;
        assert_eq!((sent.len(), sent[0].action), (4, Marker::DELETEALL as i32));
        assert!(sent.iter().all(|m| m.header.frame_id == "base_link"));
        assert_eq!((sent[1].scale.x, sent[1].scale.y), (8.0, 4.0));
        assert_eq!((sent[2].pose.position.x, sent[2].pose.position.z, sent[2].scale.y), (10.0, 0.7, 1.8));
        assert_eq!((sent[3].text.as_str(), sent[3].ns.as_str()), ("car 42", "names"));
    }
}
