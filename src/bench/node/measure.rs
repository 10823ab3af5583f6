//! The measurement of a node: start, warm-up, exchange, matching.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context as _};
use peregrine_ros::client::{Client, LinkTopics};

use super::exchange::{run, ExchangePlan};
use super::links::{wait_for_answers, Link, Messages};
use super::matching::{records, records_without_timing, Exchange};
use super::plan::{self, Due};
use super::process::{prepare_environment, temporary_folder, NodeProcess};
use super::start::{camera_names, prefix_of, start_node, start_peer};
use crate::command::live::ProgressView;
use crate::command::setup::Setup;
use crate::monitor::{Conditions, Monitor};
use crate::peers::PeerChoice;
use crate::record::{BenchLayer, BenchRun, FrameRecord};
use crate::report::MeasuredNode;
use crate::schedule::Observer;
use crate::timetable::{FrameSchedule, Timetable};
use crate::usage::{CostPerFrame, ProcessCounters};

/// The measurement of one node.
pub struct NodeMeasurement {
    pub name: &'static str,
    pub run: BenchRun,
    /// Detections in all frames: equal students on equal images find about the same number.
    pub detections: usize,
    /// `None` for a node that was not started here.
    pub cost: Option<CostPerFrame>,
}

/// All that was measured.
pub struct Measured {
    /// The node under test first.
    pub nodes: Vec<NodeMeasurement>,
    pub conditions: Conditions,
    /// The node under test, if it was not set up here.
    pub foreign: Option<MeasuredNode>,
}

/// The nodes with their links, node by node, and their processes, one of each node if it was started here.
struct Nodes {
    names: Vec<&'static str>,
    links: Vec<Link>,
    processes: Vec<NodeProcess>,
}

/// Measures the node, the peer if there is one, and the conditions of the machine meanwhile.
///
/// # Errors
/// If a node cannot be started or does not answer.
pub fn measure(setup: &Setup) -> anyhow::Result<Measured> {
    ensure!(
        std::env::var_os("AMENT_PREFIX_PATH").is_some(),
        "--layer node: no ROS 2 environment; run `. launch/setup/env.sh` first"
    );
    let arguments = setup.arguments;
    let folder = temporary_folder()?;
    prepare_environment(folder.path(), !arguments.attach)?;
    let mut client =
        Client::create("latency_bench").context("ROS 2 cannot start; check ROS_DOMAIN_ID and RMW_IMPLEMENTATION")?;
    let Nodes { names, mut links, mut processes } = nodes(setup, &mut client, folder.path())?;
    let cameras = links.len() / names.len();
    let messages_of = |link: usize| Messages::new(setup.frames_of(link % cameras), links.len());
    let mut messages: Vec<_> = (0..links.len()).map(messages_of).collect();
    let alive = |processes: &mut Vec<NodeProcess>| processes.iter_mut().try_for_each(NodeProcess::require_alive);
    wait_for_answers(&mut client, &mut links, &mut messages, || {
        ensure!(!setup.stop.load(Ordering::Relaxed), "interrupted before the first frame");
        alive(&mut processes)
    })?;

    let messages = {
        let plan = exchange_plan(setup, warm_up_frames(setup, names.len(), cameras)?);
        run(&mut client, &mut links, messages, &plan, |_| alive(&mut processes))?.messages
    };
    let frames = frames(setup, names.len(), cameras)?;
    let plan = ExchangePlan { dropped_from: setup.faults.dropped_from(), ..exchange_plan(setup, frames) };
    // A launcher's node is there by now.
    let ids: Vec<Vec<u32>> = processes.iter().map(NodeProcess::ids).collect();
    let monitor = Monitor::start(ids.iter().flatten().copied().chain([std::process::id()]).collect());
    let usage = || -> Vec<_> { ids.iter().map(|ids| ProcessCounters::read_all(ids)).collect() };
    let before = usage();
    let mut live = ProgressView::new(plan.frames.len());
    let mut seen = 0;
    let outcome = run(&mut client, &mut links, messages, &plan, |exchanges| {
        show(exchanges, &mut seen, setup, &mut live);
        alive(&mut processes)
    });
    let after = usage();
    drop(live);
    let mut conditions = monitor.stop();
    if arguments.attach {
        // The load of a node that was not started here is indistinguishable from that of other
        // programs.
        conditions.load = None;
    }
    let outcome = outcome?;
    if outcome.strange > 0 {
        tracing::warn!(
            "{} detections had stamps of no image that was sent, and were not counted: another camera, or stamps that \
             are not the image's",
            outcome.strange
        );
    }
    let timed = links.iter().all(|link| link.timed);
    let nodes = names.into_iter().enumerate().map(|(number, name)| {
        let links = number * cameras..(number + 1) * cameras;
        let (run, detections) = run_of(links.clone(), timed, &outcome.exchanges, setup);
        let sent = outcome.exchanges.iter().filter(|(due, _)| links.contains(&due.link)).count();
        let cost = before.get(number).copied().flatten().zip(after.get(number).copied().flatten());
        NodeMeasurement { name, run, detections, cost: cost.map(|(before, after)| before.per_frame(&after, sent)) }
    });
    let foreign = arguments.is_foreign_node().then(|| MeasuredNode {
        command: arguments.command.clone(),
        image_topics: links.iter().map(|link| link.topics.image.clone()).collect(),
        detections_topics: links.iter().map(|link| link.topics.detections.clone()).collect(),
        frame_timing: timed,
    });
    Ok(Measured { nodes: nodes.collect(), conditions, foreign })
}

/// The nodes that are measured, with their links, and the processes that were started.
fn nodes(setup: &Setup, client: &mut Client, folder: &Path) -> anyhow::Result<Nodes> {
    let arguments = setup.arguments;
    let (mut names, mut links, mut processes) = (vec!["node"], vec![], vec![]);
    if arguments.is_foreign_node() {
        let name = if arguments.attach { "the running node" } else { "the node of --command" };
        for topics in foreign_topics(setup) {
            links.push(Link::foreign(client, name, topics)?);
        }
        if let Some(line) = &arguments.command {
            processes.push(NodeProcess::start_line(line, folder.join("node.log"))?);
        }
        return Ok(Nodes { names, links, processes });
    }
    let cameras = camera_names(arguments.camera_count());
    for camera in &cameras {
        links.push(Link::own(client, "the node", LinkTopics::below(&format!("/bench/node/{}", prefix_of(camera))))?);
    }
    processes.push(start_node(setup, "/bench/node/", &cameras, folder)?);
    if let Some(PeerChoice::Node(python)) = arguments.peer.first() {
        names.push("peer");
        links.push(Link::own(client, "the peer", LinkTopics::below("/bench/peer/"))?);
        processes.push(start_peer(setup, python, "/bench/peer/", folder)?);
    }
    Ok(Nodes { names, links, processes })
}

/// The topics of each camera of a node that was not set up here. A `FrameTiming` is looked for beside the detections.
fn foreign_topics(setup: &Setup) -> Vec<LinkTopics> {
    let arguments = setup.arguments;
    let of = |topics: &[String], camera: usize, default: &str| {
        topics.get(camera).or(topics.first()).cloned().unwrap_or_else(|| default.to_owned())
    };
    let topics = |camera| {
        let detections = of(&arguments.detections_topic, camera, "detections");
        let namespace = detections.rfind('/').map_or("", |end| &detections[..=end]);
        let timing = format!("{namespace}timing");
        LinkTopics { image: of(&arguments.image_topic, camera, "image"), detections, timing }
    };
    (0..arguments.camera_count()).map(topics).collect()
}

fn exchange_plan(setup: &Setup, frames: Vec<Due>) -> ExchangePlan {
    let linger = Duration::from_secs_f64((3.0 * setup.profile.deadline_ms / 1e3).clamp(0.5, 10.0));
    ExchangePlan { frames, dropped_from: None, linger, stop: Arc::clone(&setup.stop) }
}

/// Frames that are not counted: of several nodes one after the other, of several cameras together.
fn warm_up_frames(setup: &Setup, nodes: usize, cameras: usize) -> anyhow::Result<Vec<Due>> {
    let (frames, period) = (setup.profile.warmup_frames, setup.profile.period_ns());
    let regular = |frames| Timetable::new(&FrameSchedule::Fixed, frames, period);
    if nodes > 1 {
        return Ok(plan::at(&regular(nodes * frames)?, plan::warm_up(nodes, frames)));
    }
    Ok(plan::of_cameras(&vec![regular(frames)?; cameras], setup.frames.len() > 1))
}

/// The frames that are measured.
fn frames(setup: &Setup, nodes: usize, cameras: usize) -> anyhow::Result<Vec<Due>> {
    let (frames, period) = (setup.profile.frames, setup.profile.period_ns());
    if nodes > 1 {
        let turns = plan::turns(nodes, frames);
        return Ok(plan::at(&setup.timetable_of(0, turns.len(), period)?, turns));
    }
    let timetables =
        (0..cameras).map(|camera| setup.timetable_of(camera, frames, period)).collect::<Result<Vec<_>, _>>();
    Ok(plan::of_cameras(&timetables?, setup.frames.len() > 1))
}

/// The run of one node, and its detections in all counted frames. Frames that are not counted still help to find which
/// ones were superseded.
fn run_of(
    links: std::ops::Range<usize>,
    timed: bool,
    exchanges: &[(Due, Exchange)],
    setup: &Setup,
) -> (BenchRun, usize) {
    let (deadline, most) = (setup.profile.deadline_ns(), setup.profile.frames);
    let (mut all, mut detections) = (vec![], 0);
    for (camera, link) in links.clone().enumerate() {
        let own: Vec<_> = exchanges.iter().filter(|(due, _)| due.link == link).collect();
        let exchanges: Vec<_> = own.iter().map(|(_, exchange)| *exchange).collect();
        let records = match timed {
            true => records(&exchanges, deadline, setup.profile.late),
            false => records_without_timing(&exchanges, deadline),
        };
        let counted = records.into_iter().zip(&own).filter(|(_, (due, _))| due.counted).take(most);
        for (index, (record, (_, exchange))) in counted.enumerate() {
            all.push(FrameRecord { camera, index, ..record });
            detections += exchange.detections;
        }
    }
    let start = all.iter().map(|record| record.scheduled).min().unwrap_or(0);
    let end = all.iter().map(|r| r.timestamps.map_or(r.scheduled, |p| p.done())).max().unwrap_or(0);
    let interrupted = setup.stop.load(Ordering::Relaxed).then_some(most * links.len());
    let layer = if timed { BenchLayer::Node } else { BenchLayer::ForeignNode };
    (BenchRun { layer, records: all, elapsed: end.saturating_sub(start), interrupted }, detections)
}

/// Shows the frames that are certainly over in the progress bar, those of all cameras as one stream.
fn show(exchanges: &[(Due, Exchange)], seen: &mut usize, setup: &Setup, live: &mut ProgressView) {
    let over = peregrine_core::now_ns().saturating_sub(setup.profile.deadline_ns() + 500_000_000);
    let until = exchanges.partition_point(|(_, e)| e.scheduled < over);
    if until > *seen {
        let sent = exchanges[*seen..until].iter().map(|(_, e)| Exchange { sent: Some(e.scheduled), ..*e });
        let sent: Vec<_> = sent.collect();
        for (i, record) in records(&sent, setup.profile.deadline_ns(), setup.profile.late).into_iter().enumerate() {
            live.frame(&FrameRecord { index: *seen + i, ..record });
        }
        *seen = until;
    }
    live.tick();
}
