//! `vision_msgs/Detection3DArray`: detections on the ground.

use peregrine_core::Detection;
use peregrine_geometry::ground::GroundObject;
use peregrine_geometry::Ground;
use peregrine_pipeline::FrameResult;
use r2r::vision_msgs::msg::{Detection3D, Detection3DArray, ObjectHypothesisWithPose};
use r2r::NativeMsg;

use super::sequence::{name_of, resize, LONG_NAME};
use crate::messages::{set_header, set_identity, set_string, NativeHeader};

/// A detection with its position on the ground.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    pub detection: Detection,
    /// Of its track; 0 without one.
    pub identity: u64,
    pub object: GroundObject,
}

/// The detections of a frame that stand on the ground.
pub struct Objects(Vec<Placed>);

impl Objects {
    pub fn with_capacity(max_objects: usize) -> Self {
        Self(Vec::with_capacity(max_objects))
    }

    /// Places the detections of a frame. Those above the horizon, out of range or cut off by the
    /// image's lower edge, whose point of contact is not visible, are left out.
    pub fn place(&mut self, ground: &Ground, result: &FrameResult) {
        let (width, height) = result.size;
        let ground = Ground { camera: ground.camera.resized(width as u32, height as u32), ..*ground };
        let contact_is_visible = |d: &Detection| d.bbox.y_max < height as f32 - 1.0;
        let identities = result.identities.iter().copied().chain(std::iter::repeat(0));
        self.0.clear();
        self.0.extend(
            result
                .detections
                .iter()
                .zip(identities)
                .take(self.0.capacity())
                .filter(|(d, _)| contact_is_visible(d))
                .filter_map(|(&detection, identity)| {
                    Some(Placed { detection, identity, object: ground.object(&detection.bbox)? })
                }),
        );
    }

    pub fn placed(&self) -> &[Placed] {
        &self.0
    }
}

/// With room for a fixed number of objects.
pub struct ObjectsMessage {
    pub native: NativeMsg<Detection3DArray>,
    frame: String,
}

// SAFETY: as for `DetectionsMessage`.
unsafe impl Send for ObjectsMessage {}

impl ObjectsMessage {
    /// With the frame_id `frame`.
    pub fn new(max_objects: usize, frame: &str) -> Self {
        let mut hypothesis = ObjectHypothesisWithPose::default();
        hypothesis.hypothesis.class_id = LONG_NAME.into();
        let mut blank = Detection3D { results: vec![hypothesis], id: u64::MAX.to_string(), ..Default::default() };
        blank.header.frame_id = frame.into();
        let mut message = Detection3DArray { detections: vec![blank; max_objects], ..Default::default() };
        message.header.frame_id = frame.into();
        Self { native: NativeMsg::from(&message), frame: frame.into() }
    }

    /// The stamp is `header`'s. An object is an upright rectangle that faces the camera, with the
    /// width and height of its box; its length along the line of sight is not visible, and 0. The
    /// result's pose is the point of contact with the ground, with the covariance of x and y.
    pub fn fill(&mut self, header: &NativeHeader, placed: &[Placed], class_names: &[String]) {
        set_header(&mut self.native.header, header);
        set_string(&mut self.native.header.frame_id, self.frame.as_bytes());
        for (slot, placed) in resize!(self.native.detections, placed.len()).iter_mut().zip(placed) {
            (slot.header.stamp.sec, slot.header.stamp.nanosec) = (header.stamp.sec, header.stamp.nanosec);
            set_identity(&mut slot.id, placed.identity);
            let object = &placed.object;
            let (position, covariance) = (&object.point.position, &object.point.covariance);
            let (sin, cos) = (object.azimuth / 2.0).sin_cos();
            let pose = &mut slot.bbox.center;
            (pose.position.x, pose.position.y, pose.position.z) = (position.x, position.y, object.height / 2.0);
            (pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w) = (0.0, 0.0, sin, cos);
            (slot.bbox.size.x, slot.bbox.size.y, slot.bbox.size.z) = (0.0, object.width, object.height);
            // SAFETY: `new` gave every detection one result.
            let result = unsafe { &mut *slot.results.data };
            result.hypothesis.score = f64::from(placed.detection.score);
            set_string(&mut result.hypothesis.class_id, name_of(class_names, placed.detection.class));
            let pose = &mut result.pose;
            (pose.pose.position.x, pose.pose.position.y) = (position.x, position.y);
            (pose.pose.orientation.z, pose.pose.orientation.w) = (sin, cos);
            for (row, column) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                pose.covariance[6 * row + column] = covariance[(row, column)];
            }
        }
    }
}
