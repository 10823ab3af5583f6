//! A measurement of the node, in order: start, warm up, exchange, match.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context as _};
use peregrine_ros::client::Client;

use super::exchange::{run, wait_for_answers, Link, Messages, Plan};
use super::matching::{records, Exchange};
use super::process::{prepare_environment, NodeProcess, Scratch};
use crate::command::live::Live;
use crate::command::setup::Setup;
use crate::monitor::{Conditions, Monitor};
use crate::record::{FrameRecord, Layer, Run};
use crate::schedule::Observer;
use crate::timetable::{Schedule, Timetable};
use crate::usage::{CostPerFrame, ProcessCounters};
use crate::LatePolicy;

/// With a peer, frames go to one node for so many frames and then to the other.
const BLOCK: usize = 250;

/// The first frames of a block, in which a node's memory comes back into the caches, are not counted.
const SETTLE: usize = 10;

/// What was measured of one node.
pub struct Measured {
    pub name: &'static str,
    pub run: Run,
    /// Found in all frames together: equal students on equal images should find about as much.
    pub detections: usize,
    /// Of a node that was started here.
    pub cost: Option<CostPerFrame>,
}

/// Which node the frames of a run are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    node: usize,
    image: usize,
    counted: bool,
}

/// Turns such that each of `nodes` has at least `frames` that count, all of them on the same images.
fn turns(nodes: usize, frames: usize) -> Vec<Turn> {
    if nodes == 1 {
        return (0..frames).map(|image| Turn { node: 0, image, counted: true }).collect();
    }
    let length = BLOCK.min(frames + SETTLE);
    let turn =
        |block: usize, node| (0..length).map(move |i| Turn { node, image: block * length + i, counted: i >= SETTLE });
    (0..frames.div_ceil(length - SETTLE)).flat_map(|block| (0..nodes).flat_map(move |node| turn(block, node))).collect()
}

/// Measures the node, and the peer beside it where there is one; and what the machine went through meanwhile.
///
/// # Errors
/// When a node cannot be started or does not answer.
pub fn measure(setup: &Setup) -> anyhow::Result<(Vec<Measured>, Conditions)> {
    ensure!(
        std::env::var_os("AMENT_PREFIX_PATH").is_some(),
        "--layer node: there is no ROS 2 environment; run `. launch/setup/env.sh` first"
    );
    let arguments = setup.arguments;
    let scratch = Scratch::new()?;
    prepare_environment(&scratch, !arguments.attach)?;
    let mut client = Client::create("latency_bench").context("ROS 2 could not start; look at ROS_DOMAIN_ID")?;
    let (mut processes, mut links, mut names) = (vec![], vec![], vec![]);
    if arguments.attach {
        links.push(Link::new(&mut client, "the running node", "")?);
        names.push("node");
    } else {
        links.push(Link::new(&mut client, "the node", "/bench/node/")?);
        names.push("node");
        processes.push(start_node(setup, &scratch)?);
        if let Some(python) = &arguments.peer {
            links.push(Link::new(&mut client, "the peer", "/bench/peer/")?);
            names.push("peer");
            processes.push(start_peer(setup, python, &scratch)?);
        }
    }

    let mut messages = Messages::new(&setup.frames);
    wait_for_answers(&mut client, &mut links, &mut messages, || {
        ensure!(!setup.stop.load(Ordering::Relaxed), "interrupted before the first frame");
        processes.iter_mut().try_for_each(NodeProcess::require_alive)
    })?;
    let linger = Duration::from_secs_f64((3.0 * setup.profile.deadline_ms / 1e3).clamp(0.5, 10.0));
    let plan = |turns: &[Turn], schedule: &Schedule| -> anyhow::Result<Plan> {
        Ok(Plan {
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
        run(&mut client, &mut links, messages, &plan(&warm_up, &Schedule::Fixed)?, |_| alive(&mut processes))?;

    let turns = turns(links.len(), setup.profile.frames);
    let plan = Plan { dropped_from: setup.faults.dropped_from(), ..plan(&turns, &arguments.schedule)? };
    let watched: Vec<_> = processes.iter().map(|p| p.id().to_string()).chain(["self".to_owned()]).collect();
    let monitor = Monitor::start(watched);
    let usage =
        |processes: &[NodeProcess]| -> Vec<_> { processes.iter().map(|p| ProcessCounters::read(p.id())).collect() };
    let before = usage(&processes);
    let mut live = Live::new(turns.len());
    let mut seen = 0;
    let exchanges = run(&mut client, &mut links, messages, &plan, |exchanges| {
        show(exchanges, &mut seen, setup, &mut live);
        alive(&mut processes)
    });
    let after = usage(&processes);
    drop(live);
    let mut conditions = monitor.stop();
    if arguments.attach {
        // The load of a node that was not started here cannot be told from that of other programs.
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
        Measured { name, run, detections, cost }
    });
    Ok((measured.collect(), conditions))
}

/// One node's frames. Those that do not count still tell which of their neighbours were superseded.
fn run_of(node: usize, exchanges: &[Exchange], turns: &[Turn], setup: &Setup, interrupted: Option<usize>) -> Run {
    let own: Vec<_> = exchanges.iter().zip(turns).filter(|(_, turn)| turn.node == node).collect();
    let all: Vec<_> = own.iter().map(|(exchange, _)| **exchange).collect();
    let records = records(&all, setup.profile.deadline_ns(), setup.profile.late);
    let counted = records.into_iter().zip(&own).filter(|(_, (_, turn))| turn.counted).map(|(record, _)| record);
    let most = setup.profile.frames;
    let records: Vec<_> = counted.take(most).enumerate().map(|(index, r)| FrameRecord { index, ..r }).collect();
    let start = records.first().map_or(0, |r| r.scheduled);
    let end = records.last().map_or(0, |r| r.passage.map_or(r.scheduled, |p| p.done()));
    Run { layer: Layer::Node, records, elapsed: end.saturating_sub(start), interrupted }
}

/// Hands frames that are surely over to the view.
fn show(exchanges: &[Exchange], seen: &mut usize, setup: &Setup, live: &mut Live) {
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

fn start_node(setup: &Setup, scratch: &Scratch) -> anyhow::Result<NodeProcess> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("perception_node"));
    let program = setup.arguments.node.clone().or_else(beside).unwrap_or_else(|| PathBuf::from("perception_node"));
    ensure!(
        program.is_file(),
        "--layer node: there is no {}; `make build` builds it, or name one with --node",
        program.display()
    );
    let mut arguments = remapped("/bench/node/");
    let mut set = |name: &str, value: String| arguments.extend(["-p".to_owned(), format!("{name}:={value}")]);
    let options = &setup.options;
    set("device", setup.arguments.device.to_string());
    set("threads", options.threads.to_string());
    set("pin_threads", options.pin_threads.to_string());
    set("segmentation", options.segmentation.to_string());
    set("deadline_ms", format!("{:?}", setup.profile.deadline_ms));
    let policy = if setup.profile.late == LatePolicy::Drop { "drop_late" } else { "publish_late" };
    set("deadline_policy", policy.to_owned());
    if let Some(folder) = &setup.arguments.model {
        set("model", folder.display().to_string());
    }
    if let Some((width, height)) = options.input_size {
        set("input_width", width.to_string());
        set("input_height", height.to_string());
    }
    NodeProcess::start(&program, &arguments, scratch.path("node.log"))
}

fn remapped(prefix: &str) -> Vec<String> {
    let remap = |topic: &str| ["-r".to_owned(), format!("{topic}:={prefix}{topic}")];
    std::iter::once("--ros-args".to_owned())
        .chain(["image", "detections", "timing"].iter().flat_map(|t| remap(t)))
        .collect()
}

fn start_peer(setup: &Setup, python: &Path, scratch: &Scratch) -> anyhow::Result<NodeProcess> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/peers/node.py");
    ensure!(script.is_file(), "--peer: there is no {}; the peer is a part of the source", script.display());
    let model = export(setup, scratch)?;
    let options = &setup.options;
    let mut arguments = vec![script.display().to_string(), model.display().to_string(), options.threads.to_string()];
    arguments.extend(remapped("/bench/peer/"));
    NodeProcess::start(python, &arguments, scratch.path("peer.log"))
}

/// The same student as ONNX, by the program that exports it for other runtimes.
fn export(setup: &Setup, scratch: &Scratch) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("distill");
    let model = scratch.path("student.onnx");
    let mut command = Command::new(&program);
    command.args(["export", "--out"]).arg(&model);
    if let Some(folder) = &setup.arguments.model {
        command.arg("--model").arg(folder);
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
    fn nodes_take_turns_in_blocks_on_the_same_images() {
        let turns = turns(2, 500);
        let counted = |node| turns.iter().filter(|t| t.node == node && t.counted).map(|t| t.image).collect::<Vec<_>>();
        assert_eq!(counted(0), counted(1));
        assert!(counted(0).len() >= 500);
        assert!(turns[..BLOCK].iter().all(|t| t.node == 0) && turns[BLOCK].node == 1);
    }

    #[test]
    fn few_frames_take_one_short_block_each() {
        let turns = turns(2, 30);
        assert_eq!((turns.len(), turns.iter().filter(|t| t.counted).count()), (2 * (30 + SETTLE), 60));
    }

    #[test]
    fn a_node_alone_has_every_frame() {
        assert_eq!(turns(1, 7).iter().filter(|t| t.counted).count(), 7);
    }
}
