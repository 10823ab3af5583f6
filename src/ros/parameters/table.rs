//! The table of parameters.

use super::declaration::{Declaration, Domain};
use super::error::ParameterError;
use crate::image_topic::Transport;
use crate::spelling::nearest;

/// What is road unless the user says otherwise.
pub const DEFAULT_ROAD: &str = "road";

const fn at_start(name: &'static str, domain: Domain, description: &'static str) -> Declaration {
    Declaration { name, domain, live: false, fixed: false, per_camera: false, description }
}

const fn live(name: &'static str, domain: Domain, description: &'static str) -> Declaration {
    Declaration { live: true, ..at_start(name, domain, description) }
}

const fn fixed(name: &'static str, domain: Domain, description: &'static str) -> Declaration {
    Declaration { fixed: true, ..at_start(name, domain, description) }
}

const fn of_camera(name: &'static str, domain: Domain, description: &'static str) -> Declaration {
    Declaration { per_camera: true, ..at_start(name, domain, description) }
}

/// The range of scores: the pipeline accepts every threshold strictly between 0 and 1.
const fn score(default: f64) -> Domain {
    Domain::Real { default, min: 0.01, max: 0.99 }
}

/// The range of counts of frames.
const fn frames(default: i64) -> Domain {
    Domain::Integer { default, min: 1, max: 100_000 }
}

/// All parameters, in the order in which they are listed.
pub static DECLARATIONS: &[Declaration] = &[
    live(
        "model",
        Domain::Text { default: "" },
        "Folder of a student package; empty for the embedded one. A new one is loaded in the background and replaces the \
         old between two frames.",
    ),
    fixed(
        "models_root",
        Domain::Text { default: "" },
        "Folder that every model must lie in once links are resolved, and that relative names of models count from; \
         empty: anywhere.",
    ),
    at_start(
        "device",
        Domain::Choice { default: "auto", of: &["auto", "cpu", "cuda", "cuda:N"] },
        "Inference device. auto: CUDA if a device is available, otherwise the CPU; falls back to the CPU if CUDA fails. \
         cuda:1 and the like: that one of several GPUs, from 0; cuda is cuda:0.",
    ),
    at_start(
        "precision",
        Domain::Choice { default: "auto", of: &["auto", "f32", "int8"] },
        "Arithmetic of the network: int8 takes the package in the model's folder int8 (made by distill quantize). auto: \
         that one on a CPU where it is the faster (with VNNI, and with AVX2 for networks mostly of 3x3 convolutions), if \
         it is there; otherwise floating point (f32).",
    ),
    at_start(
        "gpu_wait",
        Domain::Choice { default: "block", of: &["block", "spin"] },
        "GPU synchronisation: block (sleep) or spin (busy-wait, lower latency, uses a core).",
    ),
    at_start(
        "gpu_timeout_ms",
        Domain::Real { default: 500.0, min: 10.0, max: 60_000.0 },
        "Longest wait for the GPU to finish a frame; then the CPU takes over (device: auto), or the frame is rejected \
         (device: cuda) [ms].",
    ),
    at_start(
        "gpu_cameras_at_once",
        Domain::Integer { default: 4, min: 1, max: 8 },
        "Most cameras whose images a GPU works on at once, where several wait for it; 1: one after the other, so that the \
         most urgent image has it to itself. Not yet measured on any GPU.",
    ),
    at_start(
        "threads",
        Domain::Integer { default: 0, min: 0, max: 256 },
        "CPU threads for inference; 0: one for each core that the process may use.",
    ),
    at_start(
        "pin_threads",
        Domain::Flag { default: false },
        "Pin each inference thread to a core of its own; the frame thread follows cpu_affinity.",
    ),
    at_start(
        "input_width",
        Domain::Integer { default: 0, min: 0, max: 4096 },
        "Width of the network's input [px], a multiple of 32; 0: the student's own.",
    ),
    at_start(
        "input_height",
        Domain::Integer { default: 0, min: 0, max: 4096 },
        "Height of the network's input [px], a multiple of 32; 0: the student's own.",
    ),
    at_start(
        "cameras",
        Domain::Text { default: "" },
        "Names of the cameras, separated by commas, such as front,rear: the topics of each are below its name. Empty: one \
         camera without a name.",
    ),
    of_camera("image_topic", Domain::Text { default: "image" }, "Topic of the images; can be remapped."),
    of_camera(
        "image_transport",
        Domain::Choice { default: "raw", of: &Transport::NAMES },
        "raw: sensor_msgs/Image on image_topic; compressed: sensor_msgs/CompressedImage (JPEG, PNG, H.264 or H.265) on \
         image_topic/compressed; foxglove: foxglove_msgs/CompressedVideo (H.264 or H.265) on image_topic/foxglove.",
    ),
    of_camera(
        "yuv_range",
        Domain::Choice { default: "limited", of: &["limited", "full"] },
        "Range of yuyv, uyvy, nv12, nv21, nv24 and yuv420, ITU-R BT.601. limited: luma from 16 to 235, as video has it; \
         full: 0 to 255, as JPEG and some USB cameras have it.",
    ),
    of_camera(
        "white_level",
        Domain::Integer { default: 65535, min: 1, max: 65535 },
        "Value of 16-bit encodings that is white, as all above it: 4095 for a camera of 12 bits in the lower ones, 1023 \
         of 10.",
    ),
    live("score_threshold", score(0.3), "Minimum score of a published detection."),
    live(
        "nms_iou",
        Domain::Real { default: 0.6, min: 0.0, max: 1.0 },
        "IoU threshold of non-maximum suppression, for each class.",
    ),
    live(
        "cross_class_nms_iou",
        Domain::Real { default: 0.9, min: 0.0, max: 1.0 },
        "IoU above which two boxes of different classes are of one object, and the lesser score is dropped; 1.0: each class \
         by itself.",
    ),
    at_start(
        "max_detections",
        Domain::Integer { default: 100, min: 1, max: 1000 },
        "Maximum number of detections per image, the best scores first.",
    ),
    at_start(
        "segmentation",
        Domain::Flag { default: true },
        "Run the segmentation head; road_mask and segmentation are published while they have subscribers.",
    ),
    live(
        "scene_smoothing_s",
        Domain::Real { default: 1.0, min: 0.0, max: 3600.0 },
        "Time constant of the exponential average over the images' classes of scenes, which are published as scene [s]; 0: \
         each image by itself.",
    ),
    at_start(
        "road_classes",
        Domain::Text { default: DEFAULT_ROAD },
        "Segmentation classes that are road in road_mask and drivable_ground, separated by commas.",
    ),
    at_start(
        "tracking",
        Domain::Flag { default: true },
        "Track objects across frames; detections carry the ID of their track.",
    ),
    at_start(
        "track_low_score",
        score(0.1),
        "Minimum score of detections that continue a track; below score_threshold they are not published.",
    ),
    at_start(
        "track_keep_s",
        Domain::Real { default: 1.0, min: 0.0, max: 60.0 },
        "Time that a track is kept without a matching detection [s].",
    ),
    at_start(
        "mask_resolution",
        Domain::Choice { default: "student", of: &["student", "source"] },
        "Resolution of road_mask and segmentation: that of the network's output or of the source image.",
    ),
    of_camera(
        "mounting",
        Domain::Text { default: "" },
        "Pose of the camera in ground_frame: x y z [m] and roll pitch yaw [rad] (REP 103), such as '1.2 0 1.5 0 0.05 0'. \
         With it and a CameraInfo, objects, drivable_ground and markers are published.",
    ),
    of_camera(
        "mounting_height_sigma_m",
        Domain::Real { default: 0.05, min: 0.0, max: 10.0 },
        "1-σ uncertainty of the camera height [m].",
    ),
    of_camera(
        "mounting_angle_sigma_deg",
        Domain::Real { default: 0.5, min: 0.0, max: 45.0 },
        "1-σ uncertainty of each mounting angle [deg].",
    ),
    of_camera(
        "camera_info_topic",
        Domain::Text { default: "" },
        "Topic of the CameraInfo; empty: camera_info in the namespace of the images.",
    ),
    of_camera(
        "image_is_rectified",
        Domain::Flag { default: false },
        "The images are rectified: use CameraInfo's P instead of K and D.",
    ),
    of_camera(
        "ground_frame",
        Domain::Text { default: "base_link" },
        "frame_id of objects, drivable_ground and markers; its origin is on the ground.",
    ),
    of_camera(
        "ground_range_m",
        Domain::Real { default: 80.0, min: 1.0, max: 1000.0 },
        "Maximum distance of an object on the ground from the camera [m].",
    ),
    of_camera(
        "map_length_m",
        Domain::Real { default: 40.0, min: 1.0, max: 500.0 },
        "Extent of drivable_ground along x, ahead of ground_frame [m].",
    ),
    of_camera(
        "map_width_m",
        Domain::Real { default: 20.0, min: 1.0, max: 500.0 },
        "Extent of drivable_ground along y, half of it to each side [m].",
    ),
    of_camera(
        "map_resolution_m",
        Domain::Real { default: 0.2, min: 0.02, max: 10.0 },
        "Cell size of drivable_ground [m].",
    ),
    live(
        "deadline_ms",
        Domain::Real { default: 100.0, min: 0.0, max: 10_000.0 },
        "Deadline from the image's stamp to the publication of its detections [ms]; 0: none.",
    ),
    live(
        "deadline_policy",
        Domain::Choice { default: "publish_late", of: &["publish_late", "drop_late"] },
        "What happens to results past the deadline: published with verdict LATE, or dropped.",
    ),
    live(
        "max_consecutive_misses",
        frames(5),
        "Consecutive deadline misses from which diagnostics report an error instead of a warning.",
    ),
    live(
        "stale_after_ms",
        Domain::Real { default: 2_000.0, min: 10.0, max: 3_600_000.0 },
        "Timeout of the stream liveness watchdog: time without an image until the stream is stale, an error [ms].",
    ),
    live(
        "stall_after_ms",
        Domain::Real { default: 1_000.0, min: 10.0, max: 3_600_000.0 },
        "Timeout of the watchdog: time that a frame is processed until it hangs, an error that names the stage [ms].",
    ),
    live(
        "recover_after_frames",
        frames(30),
        "Consecutive frames on time after which a deadline warning or error is cleared.",
    ),
    at_start(
        "degraded_mode",
        Domain::Choice { default: "none", of: &["none", "no_segmentation", "smaller_input", "both"] },
        "What is left out while deadlines are missed: segmentation, half of the input's pixels, or both.",
    ),
    live("degrade_after_misses", frames(5), "Consecutive deadline misses after which the degraded mode is entered."),
    live(
        "restore_after_frames",
        frames(150),
        "Consecutive frames on time after which it is left; backs off exponentially, up to 16 times that, if it is soon \
         entered again.",
    ),
    at_start(
        "realtime_priority",
        Domain::Integer { default: 0, min: 0, max: 99 },
        "SCHED_FIFO priority of the node's threads and the middleware's; 0: default scheduling.",
    ),
    at_start(
        "cpu_affinity",
        Domain::Text { default: "" },
        "Cores that the node's own threads may run on, such as 2,4-6; empty: all.",
    ),
    at_start("lock_memory", Domain::Flag { default: false }, "Lock all memory of the process into RAM (mlockall)."),
    at_start(
        "prefault_stack_kib",
        Domain::Integer { default: 256, min: 0, max: 65_536 },
        "Part of the frame thread's stack that is prefaulted before the first frame [KiB].",
    ),
    at_start(
        "autostart",
        Domain::Flag { default: true },
        "Configure and activate at start; if false, waits in unconfigured for a lifecycle manager.",
    ),
    at_start(
        "record_on",
        Domain::Choice { default: "never", of: &["never", "error", "miss"] },
        "Black box: when the last record_s are written to a file: when a status becomes an error; on a missed deadline, too; \
         or never, which costs nothing.",
    ),
    at_start(
        "record_s",
        Domain::Real { default: 10.0, min: 1.0, max: 600.0 },
        "Time that the black box keeps in memory [s]: images as JPEG, detections, timing, diagnostics, parameters.",
    ),
    at_start(
        "record_folder",
        Domain::Text { default: "" },
        "Folder of the black box's files; empty: black_box in $ROS_HOME (~/.ros).",
    ),
    at_start(
        "record_interval_s",
        Domain::Real { default: 60.0, min: 0.0, max: 86_400.0 },
        "Minimum time between two files [s].",
    ),
    at_start(
        "record_memory_mb",
        Domain::Integer { default: 256, min: 1, max: 65_536 },
        "Maximum memory of what is kept [MB]; if that is less than record_s takes, the oldest are left out. Twice that while \
         a file is written.",
    ),
    at_start(
        "record_disk_mb",
        Domain::Integer { default: 2048, min: 1, max: 1_048_576 },
        "Maximum size of all files of this node in the folder [MB]; the oldest are removed to make room.",
    ),
    at_start(
        "web_port",
        Domain::Integer { default: 0, min: 0, max: 65_535 },
        "Port of the web page that shows pictures, boxes, latencies and diagnostics; 0: none.",
    ),
    at_start(
        "web_address",
        Domain::Text { default: "127.0.0.1" },
        "Address that the page is served on: this machine alone, or 0.0.0.0 for everybody who reaches it, without a password.",
    ),
    at_start(
        "web_viewers",
        Domain::Integer { default: 4, min: 1, max: 64 },
        "Maximum number of viewers of the page at the same time.",
    ),
    at_start("use_sim_time", Domain::Flag { default: false }, "Use the time of /clock instead of the system's clock."),
];

/// The declaration of the parameter called `name`, that of all cameras or that of one.
///
/// # Errors
/// [`ParameterError::Unknown`] if there is none.
pub fn declaration(name: &str) -> Result<&'static Declaration, ParameterError> {
    let of_camera = || {
        let (_, own) = split_camera(name)?;
        DECLARATIONS.iter().find(|d| d.per_camera && d.name == own)
    };
    let of_all = DECLARATIONS.iter().find(|d| d.name == name);
    let near = || nearest(name, DECLARATIONS.iter().map(|d| d.name));
    of_all.or_else(of_camera).ok_or_else(|| ParameterError::Unknown { name: name.to_owned(), near: near() })
}

/// Camera and parameter of a name such as `front.mounting`; `None` if it does not have that form.
pub fn split_camera(name: &str) -> Option<(&str, &str)> {
    name.split_once('.')
}

#[cfg(test)]
mod tests {
    use peregrine_pipeline::PipelineOptions;
    use peregrine_track::TrackerOptions;
    use r2r::ParameterValue;

    use super::*;

    #[test]
    fn every_default_is_permitted() {
        for d in DECLARATIONS {
            assert_eq!(d.check(d.name, d.default()).as_ref(), Ok(&d.default()), "{}", d.name);
        }
    }

    /// So that none is refused after it was accepted as a parameter.
    #[test]
    fn the_pipeline_accepts_every_permitted_threshold() {
        for bound in [0.01, 0.99] {
            let options = PipelineOptions {
                score_threshold: bound,
                tracking: Some(TrackerOptions { low_score: bound, ..TrackerOptions::default() }),
                ..PipelineOptions::default()
            };
            assert!(options.check().is_ok(), "{bound}");
            let value = ParameterValue::Double(f64::from(bound * 100.0).round() / 100.0);
            assert!(declaration("score_threshold").unwrap().check("score_threshold", value).is_ok(), "{bound}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = DECLARATIONS.iter().map(|d| d.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DECLARATIONS.len());
    }

    #[test]
    fn bounds_are_inclusive_and_values_beyond_are_refused() {
        let check = |value| declaration("nms_iou").unwrap().check("nms_iou", ParameterValue::Double(value));
        assert!(check(0.0).is_ok() && check(1.0).is_ok());
        for value in [-1e-9, 1.0 + 1e-9, f64::NAN, f64::INFINITY] {
            let sentence = check(value).unwrap_err().to_string();
            assert!(sentence.starts_with("'nms_iou' must be a number from 0 to 1, not "), "{sentence}");
        }
    }

    #[test]
    fn an_integer_is_accepted_for_a_real_number_not_vice_versa() {
        let real = declaration("deadline_ms").unwrap();
        assert_eq!(real.check("deadline_ms", ParameterValue::Integer(50)), Ok(ParameterValue::Double(50.0)));
        assert!(declaration("threads").unwrap().check("threads", ParameterValue::Double(2.0)).is_err());
    }
}
