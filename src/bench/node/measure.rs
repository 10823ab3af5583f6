//! The measurement of a node: start, warm-up, exchange, matching.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context as _};
use peregrine_ros::client::Client;

use super::exchange::{run, wait_for_answers, ExchangePlan, Link, Messages};
use super::matching::{records, Exchange};
use super::process::{prepare_environment, temporary_folder, NodeProcess};
use crate::command::live::ProgressView;
use crate::command::setup::Setup;
use crate::monitor::{Conditions, Monitor};
use crate::record::{BenchLayer, BenchRun, FrameRecord};
use crate::schedule::Observer;
use crate::timetable::{FrameSchedule, Timetable};
use crate::usage::{CostPerFrame, ProcessCounters};
use crate::LatePolicy;

/// Frames of a block: with a peer, the nodes take turns in blocks.
const BLOCK: usize = 250;

/// Frames at the start of a block that are not counted, in which the caches refill.
const SETTLE: usize = 10;

/// The measurement of one node.
pub struct NodeMeasurement {
    pub name: &'static str,
    pub run: BenchRun,
    /// Detections in all frames: equal students on equal images find about the same number.
    pub detections: usize,
    /// `None` for a node that was not started here.
    pub cost: Option<CostPerFrame>,
}

/// The node and image of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    node: usize,
    image: usize,
    counted: bool,
}

/// Turns in which each of `nodes` has at least `frames` counted frames, all on the same images.
fn turns(nodes: usize, frames: usize) -> Vec<Turn> {
    if nodes == 1 {
        return (0..frames).map(|image| Turn { node: 0, image, counted: true }).collect();
    }
    let length = BLOCK.min(frames + SETTLE);
    let turn =
        |block: usize, node| (0..length).map(move |i| Turn { node, image: block * length + i, counted: i >= SETTLE });
    (0..frames.div_ceil(length - SETTLE)).flat_map(|block| (0..nodes).flat_map(move |node| turn(block, node))).collect()
}

/// Measures the node, the peer if there is one, and the conditions of the machine meanwhile.
///
/// # Errors
/// If a node cannot be started or does not answer.
pub fn measure(setup: &Setup) -> anyhow::Result<(Vec<NodeMeasurement>, Conditions)> {
    ensure!(
        std::env::var_os("AMENT_PREFIX_PATH").is_some(),
        "--layer node: no ROS 2 environment; run `. launch/setup/env.sh` first"
    );
    let arguments = setup.arguments;
    let folder = temporary_folder()?;
    prepare_environment(folder.path(), !arguments.attach)?;
    let mut client =
        Client::create("latency_bench").context("ROS 2 cannot start; check ROS_DOMAIN_ID and RMW_IMPLEMENTATION")?;
    let (mut processes, mut links, mut names) = (vec![], vec![], vec![]);
    if arguments.attach {
        links.push(Link::new(&mut client, "the running node", "")?);
        names.push("node");
    } else {
        links.push(Link::new(&mut client, "the node", "/bench/node/")?);
        names.push("node");
        processes.push(start_node(setup, folder.path())?);
        if let Some(python) = &arguments.peer {
            links.push(Link::new(&mut client, "the peer", "/bench/peer/")?);
            names.push("peer");
            processes.push(start_peer(setup, python, folder.path())?);
        }
    }

    let mut messages = Messages::new(&setup.frames);
    wait_for_answers(&mut client, &mut links, &mut messages, || {
        ensure!(!setup.stop.load(Ordering::Relaxed), "interrupted before the first frame");
        processes.iter_mut().try_for_each(NodeProcess::require_alive)
    })?;
    let linger = Duration::from_secs_f64((3.0 * setup.profile.deadline_ms / 1e3).clamp(0.5, 10.0));
    let plan = |turns: &[Turn], schedule: &FrameSchedule| -> anyhow::Result<ExchangePlan> {
        Ok(ExchangePlan {
            timetable: Timetable::new(schedule, turns.len(), setup.profile.period_ns())?,
            frames: turns.iter().map(|turn| (turn.node, turn.image)).collect(),
            dropped_from: None,
            linger,
            stop: Arc::clone(&setup.stop),
        })
    };
    let alive = |processes: &mut Vec<NodeProcess>| processes.iter_mut().try_for_each(NodeProcess::require_alive);

    let warm_up: Vec<_> = (0..links.len())
        .flat_map(|node| (0..setup.profile.warmup_frames).map(move |image| Turn { node, image, counted: false }))
        .collect();
    let (_, messages) =
        run(&mut client, &mut links, messages, &plan(&warm_up, &FrameSchedule::Fixed)?, |_| alive(&mut processes))?;

    let turns = turns(links.len(), setup.profile.frames);
    let plan = ExchangePlan { dropped_from: setup.faults.dropped_from(), ..plan(&turns, &arguments.schedule)? };
    let watched: Vec<_> = processes.iter().map(NodeProcess::id).chain([std::process::id()]).collect();
    let monitor = Monitor::start(watched);
    let usage =
        |processes: &[NodeProcess]| -> Vec<_> { processes.iter().map(|p| ProcessCounters::read(p.id())).collect() };
    let before = usage(&processes);
    let mut live = ProgressView::new(turns.len());
    let mut seen = 0;
    let exchanges = run(&mut client, &mut links, messages, &plan, |exchanges| {
        show(exchanges, &mut seen, setup, &mut live);
        alive(&mut processes)
    });
    let after = usage(&processes);
    drop(live);
    let mut conditions = monitor.stop();
    if arguments.attach {
        // The load of a node that was not started here is indistinguishable from that of other
        // programs.
        conditions.load = None;
    }
    let (exchanges, _) = exchanges?;
    let interrupted = setup.stop.load(Ordering::Relaxed).then_some(setup.profile.frames);
    let measured = names.into_iter().enumerate().map(|(number, name)| {
        let run = run_of(number, &exchanges, &turns, setup, interrupted);
        let own = exchanges.iter().zip(&turns).filter(|(_, turn)| turn.node == number && turn.counted);
        let detections = own.take(run.records.len()).map(|(exchange, _)| exchange.detections).sum();
        let sent = turns.iter().filter(|turn| turn.node == number).count();
        let cost = before.get(number).copied().flatten().zip(after.get(number).copied().flatten());
        let cost = cost.map(|(before, after)| before.per_frame(&after, sent));
        NodeMeasurement { name, run, detections, cost }
    });
    Ok((measured.collect(), conditions))
}

/// The run of one node. Frames that are not counted still help to find which ones were superseded.
fn run_of(node: usize, exchanges: &[Exchange], turns: &[Turn], setup: &Setup, interrupted: Option<usize>) -> BenchRun {
    let own: Vec<_> = exchanges.iter().zip(turns).filter(|(_, turn)| turn.node == node).collect();
    let all: Vec<_> = own.iter().map(|(exchange, _)| **exchange).collect();
    let records = records(&all, setup.profile.deadline_ns(), setup.profile.late);
    let counted = records.into_iter().zip(&own).filter(|(_, (_, turn))| turn.counted).map(|(record, _)| record);
    let most = setup.profile.frames;
    let records: Vec<_> = counted.take(most).enumerate().map(|(index, r)| FrameRecord { index, ..r }).collect();
    let start = records.first().map_or(0, |r| r.scheduled);
    let end = records.last().map_or(0, |r| r.timestamps.map_or(r.scheduled, |p| p.done()));
    BenchRun { layer: BenchLayer::Node, records, elapsed: end.saturating_sub(start), interrupted }
}

/// Shows the frames that are certainly over in the progress bar.
fn show(exchanges: &[Exchange], seen: &mut usize, setup: &Setup, live: &mut ProgressView) {
    let over = peregrine_core::now_ns().saturating_sub(setup.profile.deadline_ns() + 500_000_000);
    let until = exchanges.partition_point(|e| e.scheduled < over);
    if until > *seen {
        let sent = exchanges[*seen..until].iter().map(|e| Exchange { sent: Some(e.scheduled), ..*e });
        let sent: Vec<_> = sent.collect();
        for (i, record) in records(&sent, setup.profile.deadline_ns(), setup.profile.late).into_iter().enumerate() {
            live.frame(&FrameRecord { index: *seen + i, ..record });
        }
        *seen = until;
    }
    live.tick();
}

fn start_node(setup: &Setup, folder: &Path) -> anyhow::Result<NodeProcess> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("perception_node"));
    let program = setup.arguments.node.clone().or_else(beside).unwrap_or_else(|| PathBuf::from("perception_node"));
    ensure!(
        program.is_file(),
        "--layer node: {} not found; build it with `make build`, or name one with --node",
        program.display()
    );
    let mut arguments = remapped("/bench/node/");
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
    if let Some(model) = &setup.arguments.model {
        set("model", model.display().to_string());
    }
    if let Some((width, height)) = options.input_size {
        set("input_width", width.to_string());
        set("input_height", height.to_string());
    }
    NodeProcess::start(&program, &arguments, folder.join("node.log"))
}

fn remapped(prefix: &str) -> Vec<String> {
    let remap = |topic: &str| ["-r".to_owned(), format!("{topic}:={prefix}{topic}")];
    std::iter::once("--ros-args".to_owned())
        .chain(["image", "detections", "timing"].iter().flat_map(|t| remap(t)))
        .collect()
}

fn start_peer(setup: &Setup, python: &Path, folder: &Path) -> anyhow::Result<NodeProcess> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/peers/node.py");
    ensure!(script.is_file(), "--peer: {} not found; it is part of the source", script.display());
    let model = export(setup, folder)?;
    let options = &setup.options;
    let mut arguments = vec![script.display().to_string(), model.display().to_string(), options.threads.to_string()];
    arguments.extend(remapped("/bench/peer/"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_alternate_in_blocks_on_the_same_images() {
        let turns = turns(2, 500);
        let counted = |node| turns.iter().filter(|t| t.node == node && t.counted).map(|t| t.image).collect::<Vec<_>>();
        assert_eq!(counted(0), counted(1));
        assert!(counted(0).len() >= 500);
        assert!(turns[..BLOCK].iter().all(|t| t.node == 0) && turns[BLOCK].node == 1);
    }

    #[test]
    fn few_frames_take_one_short_block_per_node() {
        let turns = turns(2, 30);
        assert_eq!((turns.len(), turns.iter().filter(|t| t.counted).count()), (2 * (30 + SETTLE), 60));
    }

    #[test]
    fn a_single_node_receives_every_frame() {
        assert_eq!(turns(1, 7).iter().filter(|t| t.counted).count(), 7);
    }
}
