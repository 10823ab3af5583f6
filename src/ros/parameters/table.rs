//! The table.

use super::declaration::{Declaration, Domain};

const fn at_start(name: &'static str, domain: Domain, description: &'static str) -> Declaration {
    Declaration { name, domain, live: false, per_camera: false, description }
}

const fn live(name: &'static str, domain: Domain, description: &'static str) -> Declaration {
    Declaration { live: true, ..at_start(name, domain, description) }
}

const fn of_camera(name: &'static str, domain: Domain, description: &'static str) -> Declaration {
    Declaration { per_camera: true, ..at_start(name, domain, description) }
}

/// All parameters, in the order in which they are shown.
pub static DECLARATIONS: &[Declaration] = &[
    live(
        "model",
        Domain::Text { default: "" },
        "Folder of a student package; empty means the embedded one. A new one is loaded beside the old, which works on until then.",
    ),
    at_start(
        "device",
        Domain::Choice { default: "auto", of: &["auto", "cpu", "cuda"] },
        "Where inference runs; auto is CUDA where there is a device for it, else (and once that fails) the CPU.",
    ),
    at_start(
        "gpu_wait",
        Domain::Choice { default: "block", of: &["block", "spin"] },
        "How a GPU is waited for: block leaves the CPU to others, spin takes a core and is some microseconds sooner.",
    ),
    at_start(
        "threads",
        Domain::Integer { default: 0, min: 0, max: 256 },
        "Threads for inference on the CPU; 0 means one for each core the process may use.",
    ),
    at_start(
        "pin_threads",
        Domain::Flag { default: false },
        "Whether each of the network's own threads stays on a core of its own; the frame thread stays where cpu_affinity puts it.",
    ),
    at_start(
        "input_width",
        Domain::Integer { default: 0, min: 0, max: 4096 },
        "Width of the network's input in pixels, a multiple of 32; 0 means the student's own size.",
    ),
    at_start(
        "input_height",
        Domain::Integer { default: 0, min: 0, max: 4096 },
        "Height of the network's input in pixels, a multiple of 32; 0 means the student's own size.",
    ),
    at_start(
        "cameras",
        Domain::Text { default: "" },
        "Names of several cameras, such as front,rear: each has its topics below its name. Empty means one without a name.",
    ),
    of_camera("image_topic", Domain::Text { default: "image" }, "Topic of the images; may be remapped like any other."),
    of_camera(
        "image_transport",
        Domain::Choice { default: "raw", of: &["raw", "compressed"] },
        "raw: sensor_msgs/Image on image_topic; compressed: JPEG or PNG on image_topic/compressed.",
    ),
    live(
        "score_threshold",
        Domain::Real { default: 0.3, min: 0.01, max: 0.99 },
        "Detections with a lower score are left out.",
    ),
    live(
        "nms_iou",
        Domain::Real { default: 0.6, min: 0.0, max: 1.0 },
        "Of two boxes of a class that overlap by more than this IoU, only the better one stays.",
    ),
    at_start(
        "max_detections",
        Domain::Integer { default: 100, min: 1, max: 1000 },
        "Most detections for one image; the best ones stay.",
    ),
    at_start(
        "segmentation",
        Domain::Flag { default: true },
        "Whether to segment as well; road_mask and segmentation are published while somebody subscribes to them.",
    ),
    at_start(
        "tracking",
        Domain::Flag { default: true },
        "Whether to follow objects from image to image; detections then carry the identity of their track.",
    ),
    at_start(
        "track_low_score",
        Domain::Real { default: 0.1, min: 0.01, max: 0.99 },
        "Detections from this score up to score_threshold are not published, but keep alive the tracks they belong to.",
    ),
    at_start(
        "track_keep_s",
        Domain::Real { default: 1.0, min: 0.0, max: 60.0 },
        "How long a track goes on while its object is not seen, in s.",
    ),
    at_start(
        "mask_resolution",
        Domain::Choice { default: "student", of: &["student", "source"] },
        "Size of road_mask and segmentation: a pixel for each cell of the network's mask, or for each of the image.",
    ),
    of_camera(
        "mounting",
        Domain::Text { default: "" },
        "Where the camera is over the ground: x y z in m and roll pitch yaw in rad (REP 103), such as '1.2 0 1.5 0 0.05 0'; with it and CameraInfo, objects, drivable_ground and markers are published.",
    ),
    of_camera(
        "mounting_height_sigma_m",
        Domain::Real { default: 0.05, min: 0.0, max: 10.0 },
        "How far the camera's height over the road may be off (standard deviation), in m.",
    ),
    of_camera(
        "mounting_angle_sigma_deg",
        Domain::Real { default: 0.5, min: 0.0, max: 45.0 },
        "How far each of the mounting's angles may be off (standard deviation), in degrees.",
    ),
    of_camera(
        "camera_info_topic",
        Domain::Text { default: "" },
        "Topic of the CameraInfo; empty means camera_info beside the images.",
    ),
    of_camera(
        "image_is_rectified",
        Domain::Flag { default: false },
        "Whether images are rectified already, so that CameraInfo's P holds for them, and not K and D.",
    ),
    of_camera("ground_frame", Domain::Text { default: "base_link" }, "frame_id of what is on the ground; see mounting."),
    of_camera(
        "ground_range_m",
        Domain::Real { default: 80.0, min: 1.0, max: 1000.0 },
        "How far from the camera objects are placed on the ground, in m.",
    ),
    of_camera(
        "map_length_m",
        Domain::Real { default: 40.0, min: 1.0, max: 500.0 },
        "How far ahead drivable_ground reaches, in m.",
    ),
    of_camera(
        "map_width_m",
        Domain::Real { default: 20.0, min: 1.0, max: 500.0 },
        "How wide drivable_ground is, half of it to each side, in m.",
    ),
    of_camera(
        "map_resolution_m",
        Domain::Real { default: 0.2, min: 0.02, max: 10.0 },
        "Side of a cell of drivable_ground, in m.",
    ),
    live(
        "deadline_ms",
        Domain::Real { default: 100.0, min: 0.0, max: 10_000.0 },
        "How old an image may be, from its stamp, when its detections are published, in ms; 0 means no deadline.",
    ),
    live(
        "deadline_policy",
        Domain::Choice { default: "publish_late", of: &["publish_late", "drop_late"] },
        "What becomes of results past the deadline: published and marked late, or dropped.",
    ),
    live(
        "max_consecutive_misses",
        Domain::Integer { default: 5, min: 1, max: 100_000 },
        "Deadlines missed in a row that make the diagnostics an error instead of a warning.",
    ),
    live(
        "stale_after_ms",
        Domain::Real { default: 2_000.0, min: 10.0, max: 3_600_000.0 },
        "Time without an image, in ms, after which a stream has stopped, which is an error.",
    ),
    live(
        "recover_after_frames",
        Domain::Integer { default: 30, min: 1, max: 100_000 },
        "Frames on time in a row after which a warning or an error about deadlines ends.",
    ),
    at_start(
        "degraded_mode",
        Domain::Choice { default: "none", of: &["none", "no_segmentation", "smaller_input", "both"] },
        "What is left out to keep deadlines when they are missed: segmentation, half of the input's pixels, or both.",
    ),
    live(
        "degrade_after_misses",
        Domain::Integer { default: 5, min: 1, max: 100_000 },
        "Deadlines missed in a row after which the degraded mode is entered.",
    ),
    live(
        "restore_after_frames",
        Domain::Integer { default: 150, min: 1, max: 100_000 },
        "Frames on time in a row after which it is left; doubled, up to 16 times, when it has to be entered again soon.",
    ),
    at_start(
        "realtime_priority",
        Domain::Integer { default: 0, min: 0, max: 99 },
        "Priority of the node's threads, the middleware's among them, under SCHED_FIFO; 0 leaves scheduling as it is.",
    ),
    at_start(
        "cpu_affinity",
        Domain::Text { default: "" },
        "Cores for the node's own threads, such as 2,4-6; empty leaves it to the system.",
    ),
    at_start(
        "lock_memory",
        Domain::Flag { default: false },
        "Whether to keep all memory of the process from being paged out (mlockall).",
    ),
    at_start(
        "prefault_stack_kib",
        Domain::Integer { default: 256, min: 0, max: 65_536 },
        "KiB of the frame thread's stack to touch before the first frame.",
    ),
    at_start(
        "autostart",
        Domain::Flag { default: true },
        "Whether the node configures and activates itself; otherwise whoever manages it does, as with any lifecycle node.",
    ),
    at_start("use_sim_time", Domain::Flag { default: false }, "Whether time comes from /clock instead of the system."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_permitted() {
        for d in DECLARATIONS {
            assert_eq!(d.check(d.name, d.default()).as_ref(), Ok(&d.default()), "{}", d.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = DECLARATIONS.iter().map(|d| d.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DECLARATIONS.len());
    }
}
