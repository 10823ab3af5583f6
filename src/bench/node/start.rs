//! Starts the nodes that are measured: this project's, the reference peer, or the user's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context as _};

use super::process::NodeProcess;
use crate::command::setup::Setup;
use crate::LatePolicy;

/// Names of a node's cameras: one has none.
pub fn camera_names(cameras: usize) -> Vec<String> {
    match cameras {
        1 => vec![String::new()],
        _ => (1..=cameras).map(|number| format!("camera{number}")).collect(),
    }
}

/// What a camera's topics are below.
pub fn prefix_of(camera: &str) -> String {
    if camera.is_empty() {
        String::new()
    } else {
        format!("{camera}/")
    }
}

/// Starts this project's node with the topics of `cameras` below `prefix`.
///
/// # Errors
/// If the program is not there or cannot be started.
pub fn start_node(setup: &Setup, prefix: &str, cameras: &[String], folder: &Path) -> anyhow::Result<NodeProcess> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("perception_node"));
    let program = setup.arguments.node.clone().or_else(beside).unwrap_or_else(|| PathBuf::from("perception_node"));
    ensure!(
        program.is_file(),
        "--layer node: {} not found; build it with `make build`, or name one with --node",
        program.display()
    );
    let mut arguments = remapped(prefix, cameras);
    let mut set = |name: &str, value: String| arguments.extend(["-p".to_owned(), format!("{name}:={value}")]);
    let options = &setup.options;
    set("device", setup.arguments.device.to_string());
    // What was loaded here, so that the report says what the node runs.
    set("precision", setup.student.precision().to_string());
    set("threads", options.threads.to_string());
    set("pin_threads", options.pin_threads.to_string());
    set("segmentation", options.segmentation.to_string());
    set("deadline_ms", format!("{:?}", setup.profile.deadline_ms));
    let policy = if setup.profile.late == LatePolicy::Drop { "drop_late" } else { "publish_late" };
    set("deadline_policy", policy.to_owned());
    set("yuv_range", setup.arguments.levels.yuv_range.to_string());
    set("white_level", setup.arguments.levels.white_level.to_string());
    if cameras.len() > 1 {
        set("cameras", cameras.join(","));
    }
    if let Some(model) = &setup.arguments.model {
        set("model", model.display().to_string());
    }
    if let Some((width, height)) = options.input_size {
        set("input_width", width.to_string());
        set("input_height", height.to_string());
    }
    NodeProcess::start(&program, &arguments, folder.join("node.log"))
}

fn remapped(prefix: &str, cameras: &[String]) -> Vec<String> {
    let topics = |camera: &String| ["image", "detections", "timing"].map(|topic| prefix_of(camera) + topic);
    let remap = |topic: String| ["-r".to_owned(), format!("{topic}:={prefix}{topic}")];
    std::iter::once("--ros-args".to_owned()).chain(cameras.iter().flat_map(topics).flat_map(remap)).collect()
}

/// Starts the reference node with its topics below `prefix`.
///
/// # Errors
/// If the student cannot be exported, or the script is not there or cannot be started.
pub fn start_peer(setup: &Setup, python: &Path, prefix: &str, folder: &Path) -> anyhow::Result<NodeProcess> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/peers/node.py");
    ensure!(script.is_file(), "--peer: {} not found; it is part of the source", script.display());
    let model = export(setup, folder)?;
    let options = &setup.options;
    let mut arguments = vec![script.display().to_string(), model.display().to_string(), options.threads.to_string()];
    arguments.extend(remapped(prefix, &camera_names(1)));
    NodeProcess::start(python, &arguments, folder.join("peer.log"))
}

/// Exports the student to ONNX, by `distill export`.
fn export(setup: &Setup, folder: &Path) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("distill");
    let model = folder.join("student.onnx");
    let mut command = Command::new(&program);
    command.args(["export", "--out"]).arg(&model);
    if let Some(package) = &setup.arguments.model {
        command.arg("--model").arg(package);
    }
    if let Some((width, height)) = setup.options.input_size {
        command.args(["--input", &format!("{width}x{height}")]);
    }
    if std::env::var_os("ORT_DYLIB_PATH").is_none() {
        command.arg("--no-check");
    }
    let output = command.output().with_context(|| format!("--peer: {} cannot be started", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "--peer: {} export failed: {}", program.display(), said.trim_end());
    Ok(model)
}
