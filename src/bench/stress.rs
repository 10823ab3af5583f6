//! `--stress`: background load on CPU, memory bandwidth or disk, to measure latency under it.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::realtime;

/// A background load: `cpu`, `memory` or `disk`, optionally with `:THREADS` (1 to 256).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stress {
    pub kind: StressKind,
    pub threads: usize,
}

/// The resource that is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StressKind {
    Cpu,
    Memory,
    Disk,
}

impl FromStr for Stress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, threads) = text.split_once(':').unwrap_or((text, "1"));
        let kind = match kind {
            "cpu" => StressKind::Cpu,
            "memory" => StressKind::Memory,
            "disk" => StressKind::Disk,
            _ => {
                return Err(format!(
                    "invalid load {text:?}: use cpu, memory or disk, with :THREADS for several threads"
                ))
            }
        };
        match threads.parse() {
            Ok(threads) if (1..=256).contains(&threads) => Ok(Self { kind, threads }),
            _ => Err(format!("{threads:?} threads: give a number from 1 to 256")),
        }
    }
}

impl fmt::Display for Stress {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = match self.kind {
            StressKind::Cpu => "cpu",
            StressKind::Memory => "memory",
            StressKind::Disk => "disk",
        };
        write!(f, "{kind}:{}", self.threads)
    }
}

/// Threads that load the machine until it is dropped.
pub struct StressLoad {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Bytes that a memory thread copies: more than any cache holds.
const MEMORY_BYTES: usize = 256 << 20;

/// Size of the file that a disk thread rewrites.
const FILE_BYTES: usize = 64 << 20;

impl StressLoad {
    /// Starts all loads.
    ///
    /// # Errors
    /// If the file of a disk load cannot be created in the temporary folder.
    pub fn start(loads: &[Stress]) -> io::Result<Self> {
        let mut running = Self { stop: Arc::default(), threads: vec![] };
        for load in loads {
            for _ in 0..load.threads {
                let stop = Arc::clone(&running.stop);
                running.threads.push(match load.kind {
                    StressKind::Cpu => spawn_load(move || burn(&stop)),
                    StressKind::Memory => spawn_load(move || copy(&stop)),
                    StressKind::Disk => {
                        let file = tempfile::tempfile()?;
                        spawn_load(move || write(file, &stop))
                    }
                });
            }
        }
        Ok(running)
    }
}

impl Drop for StressLoad {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// With default scheduling: at the real-time priority that it would inherit, a load starves the
/// measured threads.
fn spawn_load(load: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        realtime::use_default_scheduling();
        load();
    })
}

fn burn(stop: &AtomicBool) {
    let mut x = 1.0f64;
    while !stop.load(Relaxed) {
        for _ in 0..10_000 {
            x = std::hint::black_box(x * 1.000_000_1 + 1e-9);
        }
    }
}

fn copy(stop: &AtomicBool) {
    let mut memory = vec![1u8; MEMORY_BYTES];
    let (from, to) = memory.split_at_mut(MEMORY_BYTES / 2);
    while !stop.load(Relaxed) {
        for (from, to) in from.chunks(1 << 20).zip(to.chunks_mut(1 << 20)) {
            to.copy_from_slice(std::hint::black_box(from));
            if stop.load(Relaxed) {
                return;
            }
        }
    }
}

fn write(mut file: File, stop: &AtomicBool) {
    let block = vec![7u8; 1 << 20];
    while !stop.load(Relaxed) {
        for _ in 0..FILE_BYTES / block.len() {
            if stop.load(Relaxed) || file.write_all(&block).is_err() {
                return;
            }
        }
        if file.sync_data().and_then(|()| file.rewind()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_parsed_and_anything_else_is_refused() {
        for text in ["cpu:1", "memory:3", "disk:2"] {
            assert_eq!(text.parse::<Stress>().unwrap().to_string(), text);
        }
        assert_eq!("cpu".parse(), Ok(Stress { kind: StressKind::Cpu, threads: 1 }));
        for text in ["", "gpu", "cpu:0", "cpu:x", "memory:257"] {
            assert!(text.parse::<Stress>().is_err(), "{text}");
        }
    }

    #[test]
    fn loads_end_when_they_are_dropped() {
        let loads = ["cpu", "memory", "disk"].map(|text| text.parse().unwrap());
        drop(StressLoad::start(&loads).unwrap());
    }
}
