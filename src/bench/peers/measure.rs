//! Rounds in which every engine runs one frame, on the same input with as many threads.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Context as _;
use peregrine_core::now_ns;
use peregrine_engine::cpu::Isa;
use peregrine_engine::Engine;
use peregrine_pipeline::graph_for;
use peregrine_student::Precision;

use super::process::{PeerOptions, PeerProcess, Time};
use super::quiet::wait_for_quiet;
use super::report::{EngineFigures, PeerReport};
use super::PeerChoice;
use crate::command::arguments::FrameCount;
use crate::command::output;
use crate::command::setup::Setup;
use crate::monitor::Monitor;
use crate::usage::process_cpu_ns;
use crate::verdict::Verdict;
use crate::{stress, worker};

/// Rounds without `--frames N`.
const ROUNDS: usize = 300;

/// Frames of each engine before the first round.
const WARM_UP: usize = 20;

/// Ours in this process, with the peers in theirs.
struct Contenders {
    engine: Box<dyn Engine>,
    outputs: usize,
    peers: Vec<PeerProcess>,
}

impl Contenders {
    /// Runs a frame in each, beginning with another one every round. Each runs twice in its turn and the second time
    /// counts, so that all find their weights in the caches, as they would alone.
    fn round(&mut self, number: usize) -> anyhow::Result<Vec<Time>> {
        let count = 1 + self.peers.len();
        let peers: Vec<u32> = self.peers.iter().map(PeerProcess::id).collect();
        let mut times = vec![Time { wall: 0, cpu: 0 }; count];
        for which in (0..count).map(|i| (number + i) % count) {
            wait_for_quiet(&peers)?;
            self.frame(which)?;
            times[which] = self.frame(which)?;
        }
        Ok(times)
    }

    fn frame(&mut self, which: usize) -> anyhow::Result<Time> {
        if which > 0 {
            return self.peers[which - 1].frame();
        }
        let (cpu, wall) = (process_cpu_ns(), now_ns());
        self.engine.run()?;
        let wall = now_ns() - wall;
        Ok(Time { wall, cpu: process_cpu_ns() - cpu })
    }

    /// For each peer the largest difference of its outputs from ours, as a fraction of the largest of ours. `None` for
    /// another network, by the number of its outputs.
    fn differences(&mut self) -> anyhow::Result<Vec<Option<f32>>> {
        self.engine.run()?;
        let ours: Vec<f32> = (0..self.outputs).flat_map(|i| self.engine.output(i).to_vec()).collect();
        let scale = ours.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
        let difference = |peer: &mut PeerProcess| {
            let theirs = peer.outputs()?;
            let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            Ok((ours.len() == theirs.len()).then_some(worst / scale))
        };
        self.peers.iter_mut().map(difference).collect()
    }
}

/// Measures ours beside each `--peer`, and writes the report. Returns the exit code.
///
/// # Errors
/// If a peer cannot be started, an engine refuses the network, or a file cannot be written.
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    let arguments = setup.arguments;
    let folder = tempfile::Builder::new().prefix("peregrine-peers-").tempdir().context("temporary folder")?;
    let mut contenders = contenders(setup, folder.path())?;
    let differences = contenders.differences()?;
    for _ in 0..WARM_UP {
        (0..=contenders.peers.len()).try_for_each(|which| contenders.frame(which).map(|_| ()))?;
    }
    let load = stress::StressLoad::start(&arguments.stress).context("--stress")?;
    let processes = contenders.peers.iter().map(PeerProcess::id).chain([std::process::id()]).collect();
    let monitor = Monitor::start(processes);
    let rounds = match arguments.frames {
        Some(FrameCount::Number(rounds)) => rounds,
        _ => ROUNDS,
    };
    let begun = Instant::now();
    let mut times: Vec<Vec<Time>> = vec![vec![]; 1 + contenders.peers.len()];
    for number in 0..rounds {
        if setup.stop.load(Ordering::Relaxed) {
            break;
        }
        times.iter_mut().zip(contenders.round(number)?).for_each(|(all, time)| all.push(time));
    }
    let conditions = monitor.stop();
    drop(load);
    let precision = if setup.student.precision() == Precision::Int8 { "int8" } else { "f32" };
    let ours = (format!("ours, {precision}, {:?}", Isa::best()), None, None);
    let theirs = contenders.peers.iter().zip(&arguments.peer).zip(differences);
    let theirs = theirs.map(|((peer, choice), difference)| (peer.name.clone(), Some(choice.to_string()), difference));
    let engines = std::iter::once(ours).chain(theirs).zip(&times);
    let engines = engines.map(|((name, file, difference), times)| EngineFigures::new(name, file, difference, times));
    let report = PeerReport::new(setup, conditions, engines.collect(), &times, begun.elapsed());
    output::text_and_json(arguments, &report.text(), &report.json())?;
    Ok(if times[0].len() < rounds { Verdict::NotProvable.exit_code() } else { 0 })
}

/// Ours with the first image in its input, and the peers with the same.
fn contenders(setup: &Setup, folder: &std::path::Path) -> anyhow::Result<Contenders> {
    let (student, options) = (&setup.student, &setup.options);
    let graph = graph_for(&student.manifest.architecture, options);
    let mut engine = student.cpu_engine(&graph, options.threads, options.pin_threads)?;
    let outputs = graph.outputs.len();
    let image = worker::fill_input(&mut engine, student, options, setup.frames_of(0));
    let peer_options = PeerOptions { threads: options.threads, size: setup.input_size(), image: &image };
    let start = |(number, choice): (usize, &PeerChoice)| {
        let PeerChoice::Engine(kind, file) = choice else { unreachable!("checked with the options") };
        PeerProcess::start(*kind, file, &peer_options, &folder.join(number.to_string()))
            .with_context(|| format!("--peer {choice}"))
    };
    let peers = setup.arguments.peer.iter().enumerate().map(start).collect::<anyhow::Result<_>>()?;
    Ok(Contenders { engine, outputs, peers })
}
