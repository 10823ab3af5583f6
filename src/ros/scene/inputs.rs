//! The spinning thread's side of a scene: which outputs have subscribers, and the geometry by
//! `CameraInfo`.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use futures::{FutureExt, Stream, StreamExt};
use nalgebra::Vector3;
use peregrine_geometry::occupancy::{Extent, OccupancyGrid};
use peregrine_geometry::{Camera, CameraError, CameraInfo, Ground, Mounting, Uncertainty};
use r2r::sensor_msgs::msg::CameraInfo as InfoMessage;
use r2r::{Node, QosProfile};

use super::labels::Labels;
use super::shared::{GroundView, SceneShared};
use crate::error::NodeError;
use crate::image_topic::Transport;
use crate::parameters::{ParameterError, Parameters};
use crate::topics::CameraTopics;

/// Maximum number of cells of the map: a larger one would take longer to publish than a frame.
const MAX_CELLS: usize = 1_000_000;

/// The scene's publishers, whose subscribers the spinning thread counts.
pub struct Publishers {
    pub tracks: r2r::Publisher<r2r::peregrine_msgs::msg::Track2DArray>,
    pub objects: r2r::Publisher<r2r::vision_msgs::msg::Detection3DArray>,
    pub map: r2r::Publisher<r2r::nav_msgs::msg::OccupancyGrid>,
    pub markers: r2r::Publisher<r2r::visualization_msgs::msg::MarkerArray>,
    pub raw: r2r::Publisher<r2r::sensor_msgs::msg::Image>,
    pub compressed: r2r::Publisher<r2r::sensor_msgs::msg::CompressedImage>,
    pub labels: Labels,
}

impl Publishers {
    /// Destroys them; to be called once nothing publishes any more.
    pub fn destroy(self, node: &mut Node) {
        node.destroy_publisher(self.tracks);
        node.destroy_publisher(self.objects);
        node.destroy_publisher(self.map);
        node.destroy_publisher(self.markers);
        node.destroy_publisher(self.raw);
        node.destroy_publisher(self.compressed);
        self.labels.destroy(node);
    }
}

/// What the spinning thread keeps of a scene.
pub struct SceneInputs {
    pub publishers: Publishers,
    shared: Arc<SceneShared>,
    /// `None` without a mounting, and so without places on the ground.
    calibration: Option<Calibration>,
    status: Result<String, String>,
}

/// From a camera's `CameraInfo` to the geometry.
struct Calibration {
    infos: Box<dyn Stream<Item = InfoMessage> + Unpin>,
    mounting: Mounting,
    rectified: bool,
    uncertainty: Uncertainty,
    max_range: f64,
    extent: Extent,
    known: Option<CameraInfo>,
    /// Size of the images that `known` is for, if it is valid.
    size: Option<(u32, u32)>,
}

impl SceneInputs {
    pub(super) fn new(
        node: &mut Node,
        parameters: &Parameters,
        image_topic: &str,
        topics: &CameraTopics,
        shared: Arc<SceneShared>,
        publishers: Publishers,
    ) -> Result<Self, NodeError> {
        let mut status = Ok("off: the parameter 'mounting' is empty".to_owned());
        let mut calibration = None;
        if let Some(mounting) = mounting(parameters)? {
            let topic = match parameters.text("camera_info_topic") {
                "" => beside(image_topic),
                topic => topics.name(topic),
            };
            let qos = topics.subscription(&topic, QosProfile::sensor_data());
            let refuse = |error: r2r::Error| NodeError::Topic { name: topic.clone(), why: error.to_string() };
            let infos = node.subscribe::<InfoMessage>(&topic, qos).map_err(refuse)?;
            status = Err(format!("no CameraInfo has arrived on {topic}: objects cannot be placed on the ground"));
            calibration = Some(Calibration {
                infos: Box::new(infos),
                mounting,
                rectified: parameters.flag("image_is_rectified"),
                uncertainty: Uncertainty {
                    height: parameters.real("mounting_height_sigma_m"),
                    angle: parameters.real("mounting_angle_sigma_deg").to_radians(),
                    ..Uncertainty::default()
                },
                max_range: parameters.real("ground_range_m"),
                extent: extent(parameters)?,
                known: None,
                size: None,
            });
        }
        Ok(Self { publishers, shared, calibration, status })
    }

    /// Whether objects are placed on the ground, or that they are not to be: for the diagnostics.
    ///
    /// # Errors
    /// Why they are not, although the camera has a mounting.
    pub fn status(&self) -> Result<String, String> {
        let known = self.calibration.as_ref().and_then(|c| c.size);
        match (self.shared.misfit(), known) {
            (Some((width, height)), Some((w, h))) => Err(format!(
                "off: CameraInfo is for images of {w}x{h}, by its binning and region of interest, and the images have \
                 {width}x{height}; calibrate the camera at that size, or let the driver publish both alike"
            )),
            _ => self.status.clone(),
        }
    }

    /// Updates which outputs have subscribers, and the geometry by the newest `CameraInfo`. To be
    /// called after every spin.
    pub fn poll(&mut self) {
        let (p, s) = (&self.publishers, &self.shared);
        let some = |count: r2r::Result<usize>| count.unwrap_or(0) > 0;
        s.wanted.tracks.store(some(p.tracks.get_inter_process_subscription_count()), Relaxed);
        s.wanted.objects.store(some(p.objects.get_inter_process_subscription_count()), Relaxed);
        s.wanted.map.store(some(p.map.get_inter_process_subscription_count()), Relaxed);
        s.wanted.markers.store(some(p.markers.get_inter_process_subscription_count()), Relaxed);
        let raw = some(p.raw.get_inter_process_subscription_count());
        let compressed = some(p.compressed.get_inter_process_subscription_count());
        s.wanted.image.store(raw || compressed, Relaxed);
        // Views that were replaced are dropped here, off the frame thread.
        while s.retired.pop().is_some() {}
        let Some(calibration) = &mut self.calibration else { return };
        let mut newest = None;
        while let Some(message) = calibration.infos.next().now_or_never().flatten() {
            newest = Some(message);
        }
        if let Some(message) = newest {
            self.set_camera_info(from_message(message));
        }
    }

    /// Updates the geometry by a `CameraInfo`; no effect if it is the same as before.
    pub fn set_camera_info(&mut self, info: CameraInfo) {
        let Some(calibration) = &mut self.calibration else { return };
        if calibration.known.as_ref() == Some(&info) {
            return;
        }
        let view = calibration.view(&info);
        calibration.size = view.as_ref().ok().map(|view| view.ground.camera.size());
        self.status = match &view {
            Ok(view) => {
                let (width, height) = view.ground.camera.size();
                let model = if calibration.rectified { "rectified" } else { &info.distortion_model };
                Ok(format!("on: {width}x{height}, {model}"))
            }
            Err(error) => {
                tracing::warn!("nothing is placed on the ground: {error}");
                Err(format!("off: {error}"))
            }
        };
        // Without a view nothing is placed: never by a camera that is no longer said to be that one.
        // A view that has not been taken yet is dropped.
        self.shared.view.force_push(view.ok().map(Box::new));
        calibration.known = Some(info);
    }
}

impl Calibration {
    fn view(&self, info: &CameraInfo) -> Result<GroundView, CameraError> {
        let camera = Camera::new(info, self.rectified)?;
        let Self { mounting, uncertainty, max_range, extent, .. } = *self;
        let map = OccupancyGrid::new(&camera, &mounting, extent);
        Ok(GroundView { ground: Ground { camera, mounting, uncertainty, max_range }, map })
    }
}

/// The topic `camera_info` in the namespace of the images, as image_transport has it.
fn beside(image_topic: &str) -> String {
    let raw = Transport::ALL.iter().rev().find_map(|transport| image_topic.strip_suffix(transport.suffix()));
    let raw = raw.unwrap_or(image_topic);
    format!("{}/camera_info", raw.rsplit_once('/').map_or("", |(namespace, _)| namespace))
}

/// The camera's pose; `None` if the parameter is empty.
fn mounting(parameters: &Parameters) -> Result<Option<Mounting>, ParameterError> {
    let text = parameters.text("mounting");
    if text.trim().is_empty() {
        return Ok(None);
    }
    let words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    let numbers: Option<Vec<f64>> = words.map(|word| word.parse().ok().filter(|v: &f64| v.is_finite())).collect();
    match numbers.as_deref() {
        Some(&[x, y, z, roll, pitch, yaw]) if z > 0.0 => {
            Ok(Some(Mounting { position: Vector3::new(x, y, z), roll, pitch, yaw }))
        }
        _ => Err(ParameterError::NotPermitted {
            name: "mounting".into(),
            expected: "six numbers, x y z [m] and roll pitch yaw [rad], with z > 0".into(),
            found: format!("'{text}'"),
        }),
    }
}

fn extent(parameters: &Parameters) -> Result<Extent, ParameterError> {
    let of = |name: &str| parameters.real(name);
    let extent = Extent { length: of("map_length_m"), width: of("map_width_m"), resolution: of("map_resolution_m") };
    let (ahead, across) = extent.cells();
    if ahead * across > MAX_CELLS {
        return Err(ParameterError::NotPermitted {
            name: "map_resolution_m".into(),
            expected: format!("coarse enough for a map of at most {MAX_CELLS} cells"),
            found: format!("{}, which gives {ahead}x{across}", extent.resolution),
        });
    }
    Ok(extent)
}

fn from_message(m: InfoMessage) -> CameraInfo {
    CameraInfo {
        width: m.width,
        height: m.height,
        distortion_model: m.distortion_model,
        d: m.d,
        k: fixed(m.k),
        p: fixed(m.p),
        binning: [m.binning_x, m.binning_y],
        roi_offset: [m.roi.x_offset, m.roi.y_offset],
        roi_size: [m.roi.width, m.roi.height],
    }
}

/// An array of fixed size, which r2r gives as a vector.
fn fixed<const N: usize>(values: Vec<f64>) -> [f64; N] {
    std::array::from_fn(|i| values.get(i).copied().unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use r2r::ParameterValue;

    fn mounted(text: &str) -> Result<Option<Mounting>, ParameterError> {
        mounting(&Parameters::with([("mounting".to_owned(), ParameterValue::String(text.into()))]).unwrap())
    }

    #[test]
    fn a_mounting_is_six_numbers_over_the_ground() {
        assert_eq!(mounted(""), Ok(None));
        let pose = mounted("1.2, 0.1 1.5 0 0.05 -0.2").unwrap().unwrap();
        assert_eq!((pose.position, pose.roll, pose.pitch, pose.yaw), (Vector3::new(1.2, 0.1, 1.5), 0.0, 0.05, -0.2));
        for wrong in ["1 2 3", "0 0 0 0 0 0", "0 0 -1 0 0 0", "0 0 NaN 0 0 0", "a b c d e f", "0 0 1 0 0 0 0"] {
            let sentence = mounted(wrong).unwrap_err().to_string();
            assert!(sentence.starts_with("'mounting' must be six numbers"), "{sentence}");
        }
    }

    #[test]
    fn camera_info_is_in_the_namespace_of_the_image() {
        assert_eq!(beside("/front/image_raw"), "/front/camera_info");
        assert_eq!(beside("/front/image_raw/compressed"), "/front/camera_info");
        assert_eq!(beside("/front/image_raw/foxglove"), "/front/camera_info");
        assert_eq!(beside("/image"), "/camera_info");
    }

    #[test]
    fn a_map_of_too_many_cells_is_refused() {
        let with = |name: &str, value: f64| (name.to_owned(), ParameterValue::Double(value));
        let huge = [with("map_length_m", 200.0), with("map_width_m", 200.0), with("map_resolution_m", 0.05)];
        assert!(extent(&Parameters::with(huge).unwrap()).unwrap_err().to_string().contains("4000x4000"));
        assert!(extent(&Parameters::default()).is_ok());
    }
}
