//! An engine that runs a frame on request: ours in this process, each peer in its own.
//!
//! A peer answers requests on its standard input, as `bench/peers/serve.py` describes, and measures
//! its own time, which excludes the pipe.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use peregrine_engine::cpu::int8::{Int8Engine, IntegerIsa};
use peregrine_engine::cpu::{CpuEngine, Isa};
use peregrine_engine::Engine;
use peregrine_reference::random_input;
use peregrine_reference::Reference;

use crate::networks::Network;

/// The time of one inference, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Time {
    pub wall: f64,
    /// CPU time of all threads of the process.
    pub cpu: f64,
}

/// An engine with a network loaded.
pub trait Contender {
    fn name(&self) -> &str;
    /// Whether its outputs must agree with ours to rounding; 8-bit integers need not.
    fn is_f32(&self) -> bool {
        !self.name().contains("int8")
    }
    /// Runs one frame.
    fn run(&mut self) -> Result<Time>;
    /// The process that it is in, if that is its own.
    fn process(&self) -> Option<u32> {
        None
    }
    /// All outputs, planar, one after the other.
    fn outputs(&mut self) -> Result<Vec<f32>>;
}

/// The engine of this crate, held to one instruction set.
pub struct Ours {
    name: String,
    engine: CpuEngine,
    outputs: usize,
}

impl Ours {
    pub fn new(network: &Network, input: &[f32], threads: usize, isa: Isa) -> Result<Self> {
        let mut engine = CpuEngine::with_isa(&network.graph, &network.weights, threads, isa)?;
        engine.input().copy_from_slice(input);
        let held = if isa == Isa::best() { "" } else { ", held to " };
        let isa_name = if isa == Isa::best() { format!(" ({isa:?})") } else { format!("{isa:?}") };
        Ok(Self { name: format!("ours{held}{isa_name}"), engine, outputs: network.graph.outputs.len() })
    }
}

impl Contender for Ours {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self) -> Result<Time> {
        timed(|| Ok(self.engine.run()?))
    }

    fn outputs(&mut self) -> Result<Vec<f32>> {
        self.engine.run()?;
        Ok((0..self.outputs).flat_map(|i| self.engine.output(i).to_vec()).collect())
    }
}

/// The integer engine of this crate.
pub struct OursInt8 {
    name: String,
    engine: Int8Engine,
}

impl OursInt8 {
    pub fn new(network: &Network, input: &[f32], threads: usize, isa: IntegerIsa) -> Result<Self> {
        let student = network.quantized.as_ref().context("the network has no 8-bit weights")?;
        let quantization = student.quantization.as_ref().context("a quantized student has its quantization")?;
        let mut engine = Int8Engine::with_isa(&network.graph, &student.weights, quantization, threads, isa)?;
        engine.input().copy_from_slice(input);
        let name = if isa == IntegerIsa::best() {
            format!("ours, int8 ({isa:?})")
        } else {
            format!("ours, int8, held to {isa:?}")
        };
        Ok(Self { name, engine })
    }
}

impl Contender for OursInt8 {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self) -> Result<Time> {
        timed(|| Ok(self.engine.run()?))
    }

    fn outputs(&mut self) -> Result<Vec<f32>> {
        bail!("outputs in 8 bits are not compared: each engine quantizes in its own way")
    }
}

/// Longer than any peer takes to load a model or run a frame on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A peer in a process of its own.
pub struct Peer {
    name: String,
    child: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
    outputs: PathBuf,
}

impl Peer {
    /// Starts `command` and waits until its model is loaded.
    ///
    /// # Errors
    /// If it cannot be started or exits; with the last line of its standard error.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let errors = std::fs::File::create(&log)?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn()?;
        let requests = child.stdin.take().expect("is piped");
        let stdout = child.stdout.take().expect("is piped");
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let outputs = folder.join(format!("{name}.f32"));
        let mut peer = Self { name: name.into(), child, requests, answers, outputs };
        match peer.answer() {
            Ok(line) => match line.strip_prefix("ready ") {
                Some(name) => peer.name = name.to_owned(),
                None => bail!("unexpected answer {line:?}"),
            },
            Err(_) => {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("not started: {}", log.lines().last().unwrap_or("no output"));
            }
        }
        Ok(peer)
    }

    fn answer(&mut self) -> Result<String> {
        self.answers.recv_timeout(TIMEOUT).with_context(|| format!("{} gave no answer", self.name))
    }

    fn ask(&mut self, request: &str) -> Result<String> {
        writeln!(self.requests, "{request}")?;
        self.requests.flush()?;
        self.answer()
    }
}

impl Contender for Peer {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self) -> Result<Time> {
        let line = self.ask("run")?;
        let mut numbers = line.split_whitespace().map(str::parse::<f64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(wall)), Some(Ok(cpu))) => Ok(Time { wall, cpu }),
            _ => bail!("{} answered {line:?}", self.name),
        }
    }

    fn process(&self) -> Option<u32> {
        Some(self.child.id())
    }

    fn outputs(&mut self) -> Result<Vec<f32>> {
        let line = self.ask("outputs")?;
        ensure!(line == "done", "{} answered {line:?}", self.name);
        let bytes = std::fs::read(&self.outputs)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// candle as a peer: eager, a layer at a time, as [`Reference`] uses it. `folder` is where its
/// outputs go.
///
/// # Errors
/// If there is no such network, or standard output is closed.
pub fn serve_candle(name: &str, folder: &Path) -> Result<()> {
    let networks = Network::all()?;
    let network = networks.iter().find(|n| n.name == name).with_context(|| format!("unknown network {name:?}"))?;
    let mut engine = Reference::new(&network.graph, &network.weights)?;
    engine.input().copy_from_slice(&random_input(&network.graph, 2));
    println!("ready candle 0.11.1");
    for line in std::io::stdin().lines() {
        match line?.as_str() {
            "run" => {
                let time = timed(|| Ok(engine.run()?))?;
                println!("{} {}", time.wall, time.cpu);
            }
            _ => {
                engine.run()?;
                let values = (0..network.graph.outputs.len()).flat_map(|i| engine.output(i));
                std::fs::write(folder.join("candle.f32"), values.flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
                println!("done");
            }
        }
    }
    Ok(())
}

/// Measures the time of `run`.
pub fn timed(run: impl FnOnce() -> Result<()>) -> Result<Time> {
    let (cpu, wall) = (process_cpu_milliseconds(), Instant::now());
    run()?;
    let wall = wall.elapsed().as_secs_f64() * 1e3;
    Ok(Time { wall, cpu: process_cpu_milliseconds() - cpu })
}

#[cfg(target_os = "linux")]
fn process_cpu_milliseconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to `time` only.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "every process has a CPU clock");
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

#[cfg(not(target_os = "linux"))]
fn process_cpu_milliseconds() -> f64 {
    f64::NAN
}
