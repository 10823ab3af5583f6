//! Which options go together.

use anyhow::{bail, ensure};
use peregrine_pipeline::DeviceChoice;
use peregrine_student::Precision;

use super::arguments::Arguments;
use crate::peers::PeerChoice;
use crate::record::{BenchLayer, LatencyStage};
use crate::stall::Fault;
use crate::timetable::FrameSchedule;

/// The stage that a fault stalls.
pub fn stage_of(fault: &Fault) -> Option<LatencyStage> {
    match *fault {
        Fault::Stall { stage, .. }
        | Fault::Repeated { stage, .. }
        | Fault::Drift { stage, .. }
        | Fault::Stuck { stage, .. } => Some(stage),
        Fault::Dropped { .. } => None,
    }
}

/// Refuses options that have no effect together: a figure would be labelled wrongly.
///
/// # Errors
/// Names the option.
pub fn check_combination(arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.layer {
        BenchLayer::Engine => {
            ensure!(!arguments.track, "--track: layer engine has no tracking; use layer pipeline");
            let elsewhere =
                arguments.inject.iter().filter_map(stage_of).find(|&stage| stage != LatencyStage::Inference);
            if let Some(stage) = elsewhere {
                bail!("--inject: layer engine has no {}; only inference can stall there", stage.name());
            }
        }
        BenchLayer::Pipeline => {}
        BenchLayer::Node | BenchLayer::ForeignNode => {
            ensure!(
                !arguments.closed_loop,
                "--closed-loop: layer node needs a camera's schedule; use layer engine or pipeline"
            );
            ensure!(!arguments.max_rate, "--max-rate: works with layers engine and pipeline");
            ensure!(
                arguments.peer.is_empty() || arguments.camera_count() == 1,
                "--peer: takes turns with the node on one camera; leave out --cameras and what names several"
            );
            if let Some(fault) = arguments.inject.iter().find(|fault| stage_of(fault).is_some()) {
                bail!("--inject {fault}: in layer node only dropped@FRAME can be injected; use layer pipeline");
            }
        }
    }
    let back_to_back = arguments.closed_loop || arguments.max_rate;
    if let Some(fault) = arguments.inject.iter().find(|fault| back_to_back && matches!(fault, Fault::Stuck { .. })) {
        bail!("--inject {fault}: frames back to back would wait for it forever; use a camera's schedule");
    }
    let pages = arguments.html.is_some() || arguments.hgrm.is_some() || arguments.hlog.is_some();
    ensure!(
        !arguments.max_rate || !pages,
        "--html, --hgrm, --hlog: describe a single run; --max-rate makes many, use --json"
    );
    ensure!(
        !arguments.max_rate || !arguments.json_to_stdout(),
        "--json -: --max-rate prints its progress there; name a file"
    );
    let only_in_node = arguments.is_foreign_node() || arguments.node.is_some();
    ensure!(
        arguments.layer == BenchLayer::Node || !only_in_node,
        "--node, --attach and --command belong to --layer node"
    );
    check_peers(arguments)?;
    check_cameras(arguments)?;
    check_foreign_node(arguments)?;
    let to_table = arguments.results.is_some();
    ensure!(arguments.layer == BenchLayer::Node || !to_table, "--results belongs to --layer node");
    ensure!(
        !arguments.closed_loop || arguments.schedule == [FrameSchedule::Fixed],
        "--schedule: the closed loop has no schedule"
    );
    ensure!(!arguments.closed_loop || arguments.camera_count() == 1, "--cameras: the closed loop has one");
    Ok(())
}

/// Refuses peers of another layer, and options without effect on a network alone that runs beside others.
fn check_peers(arguments: &Arguments) -> anyhow::Result<()> {
    for peer in &arguments.peer {
        let is_node = matches!(peer, PeerChoice::Node(_));
        ensure!(
            is_node == (arguments.layer == BenchLayer::Node),
            "--peer {peer}: onnxruntime:FILE and openvino:FILE run beside the network alone, a Python's node beside \
             --layer node"
        );
        ensure!(!is_node || arguments.peer.len() == 1, "--peer: there is one reference node; give it once");
    }
    if !arguments.has_peer_engines() {
        return Ok(());
    }
    let without_effect = [
        ("--device cuda", arguments.device.is_cuda()),
        ("--max-rate", arguments.max_rate),
        ("--cameras", arguments.camera_count() > 1),
        ("--schedule", arguments.schedule != [FrameSchedule::Fixed]),
        ("--inject", !arguments.inject.is_empty()),
        ("--track", arguments.track),
        ("--explain", arguments.explain > 0),
        ("--html, --hgrm and --hlog", arguments.html.is_some() || arguments.hgrm.is_some() || arguments.hlog.is_some()),
    ];
    match without_effect.into_iter().find(|(_, given)| *given) {
        Some((option, _)) => bail!("{option}: --peer runs engines in turn on the CPU, frame after frame; leave it out"),
        None => Ok(()),
    }
}

/// Refuses what names another number of cameras than there are.
fn check_cameras(arguments: &Arguments) -> anyhow::Result<()> {
    let cameras = arguments.camera_count();
    let named = [
        ("--schedule", arguments.schedule.len()),
        ("--topic", arguments.topic.len()),
        ("--image-topic", arguments.image_topic.len()),
        ("--detections-topic", arguments.detections_topic.len()),
    ];
    for (option, count) in named {
        ensure!(
            count <= 1 || count == cameras,
            "{option}: {count} are given for {cameras} cameras; give one for each camera, or one for all"
        );
        ensure!(count <= 1 || arguments.layer == BenchLayer::Node, "{option}: several belong to --layer node");
    }
    Ok(())
}

/// Refuses, for a node that is not set up here, what would set it up, and topics for any other.
fn check_foreign_node(arguments: &Arguments) -> anyhow::Result<()> {
    if !arguments.is_foreign_node() {
        let named = !arguments.image_topic.is_empty() || !arguments.detections_topic.is_empty();
        ensure!(!named, "--image-topic and --detections-topic belong to --attach and --command");
        return Ok(());
    }
    let (option, cameras) = (if arguments.attach { "--attach" } else { "--command" }, arguments.camera_count());
    let set_up = [
        ("--model", arguments.model.is_some()),
        ("--precision", arguments.precision != Precision::Auto),
        ("--device", arguments.device != DeviceChoice::Auto),
        ("--threads", arguments.threads != 0),
        ("--pin-threads", arguments.pin_threads),
        ("--input-size", arguments.input_size.is_some()),
        ("--no-segmentation", arguments.no_segmentation),
        ("--track", arguments.track),
    ];
    if let Some((without_effect, _)) = set_up.into_iter().find(|(_, given)| *given) {
        bail!("{without_effect}: {option} measures a node as it is; set it up where it is started");
    }
    ensure!(
        cameras == 1 || (arguments.image_topic.len() == cameras && !arguments.detections_topic.is_empty()),
        "{option}: with several cameras, give --image-topic for each, and --detections-topic for each or once for all"
    );
    Ok(())
}
