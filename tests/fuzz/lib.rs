//! Fuzz targets: every reader of what comes from outside, as a function of bytes. Each must take any
//! bytes without a panic, a hang or memory beyond limits.
//!
//! `make fuzz TIME=seconds` runs them under libFuzzer, which is guided by coverage; the seeds are made by code or
//! are files that other tests keep. What it has found lies in `found/<target>/` and is run by
//! `cargo test -p peregrine-fuzz`, as are all seeds.
//!
//! - [`images`]: raw messages, JPEG and PNG, image files, masks. [`camera`]: `CameraInfo`.
//! - [`packages`]: manifests and weights. [`data`]: data sets in every layout, and their descriptions.
//! - [`networks`]: ONNX files. [`training`]: configurations, soft targets, checkpoints.
//! - [`recordings`]: bags and traces. [`video`]: packets of H.264 and H.265.
//! - [`scratch`]: where a target puts the file that its reader opens.

pub mod camera;
pub mod data;
pub mod images;
pub mod networks;
pub mod packages;
pub mod recordings;
pub mod scratch;
pub mod training;
pub mod video;

/// A reader of bytes.
pub struct Target {
    pub name: &'static str,
    /// Reads the bytes.
    pub run: fn(&[u8]),
    /// Inputs that are read to their end.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 19] = [
    Target { name: "image_message", run: images::message, seeds: images::message_seeds },
    Target { name: "compressed_image", run: images::compressed, seeds: images::compressed_seeds },
    Target { name: "image_file", run: images::file, seeds: images::file_seeds },
    Target { name: "mask", run: images::mask, seeds: images::mask_seeds },
    Target { name: "camera_info", run: camera::info, seeds: camera::seeds },
    Target { name: "manifest", run: packages::manifest, seeds: packages::manifest_seeds },
    Target { name: "weights", run: packages::weights, seeds: packages::weights_seeds },
    Target { name: "package", run: packages::package, seeds: packages::package_seeds },
    Target { name: "labels", run: data::labels, seeds: data::labels_seeds },
    Target { name: "dataset_toml", run: data::dataset_toml, seeds: data::dataset_toml_seeds },
    Target { name: "onnx", run: networks::onnx, seeds: networks::onnx_seeds },
    Target { name: "teacher_description", run: networks::description, seeds: networks::description_seeds },
    Target { name: "training_toml", run: training::config, seeds: training::config_seeds },
    Target { name: "shard", run: training::shard, seeds: training::shard_seeds },
    Target { name: "checkpoint", run: training::checkpoint, seeds: training::checkpoint_seeds },
    Target { name: "trace", run: recordings::trace, seeds: recordings::trace_seeds },
    Target { name: "mcap", run: recordings::mcap, seeds: recordings::mcap_seeds },
    Target { name: "sqlite_bag", run: recordings::sqlite, seeds: recordings::sqlite_seeds },
    Target { name: "video", run: video::packets, seeds: video::packets_seeds },
];

/// The target called `name`.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// The file at `path` of this repository.
///
/// # Panics
/// When it is not there.
pub(crate) fn tracked(path: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
