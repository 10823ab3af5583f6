//! Load on purpose, to show the latency under it: on the processors, on the memory's bandwidth, or on the disk.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::realtime;

/// What is put under load, and by how many threads: `cpu`, `memory` or `disk`, with `:THREADS` if wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stress {
    pub kind: Kind,
    pub threads: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Cpu,
    Memory,
    Disk,
}

impl FromStr for Stress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, threads) = text.split_once(':').unwrap_or((text, "1"));
        let kind = match kind {
            "cpu" => Kind::Cpu,
            "memory" => Kind::Memory,
            "disk" => Kind::Disk,
            _ => return Err(format!("{text:?} is no load: use cpu, memory or disk, with :THREADS for more than one")),
        };
        match threads.parse() {
            Ok(threads) if (1..=256).contains(&threads) => Ok(Self { kind, threads }),
            _ => Err(format!("{threads:?} is not a number of threads from 1 to 256")),
        }
    }
}

impl fmt::Display for Stress {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = match self.kind {
            Kind::Cpu => "cpu",
            Kind::Memory => "memory",
            Kind::Disk => "disk",
        };
        write!(f, "{kind}:{}", self.threads)
    }
}

/// Threads that load the machine until this is dropped.
pub struct Running {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Bytes that a memory thread goes through: more than any cache holds.
const MEMORY: usize = 256 << 20;

/// Bytes that a disk thread writes, again and again.
const FILE: usize = 64 << 20;

impl Running {
    /// Starts all loads.
    ///
    /// # Errors
    /// When the file of a disk load cannot be made in the folder for temporary files.
    pub fn start(loads: &[Stress]) -> io::Result<Self> {
        let mut running = Self { stop: Arc::default(), threads: vec![] };
        for load in loads {
            for number in 0..load.threads {
                let stop = Arc::clone(&running.stop);
                running.threads.push(match load.kind {
                    Kind::Cpu => at_ordinary_priority(move || burn(&stop)),
                    Kind::Memory => at_ordinary_priority(move || copy(&stop)),
                    Kind::Disk => {
                        let name = format!("peregrine-load-{}-{number}", std::process::id());
                        let path = std::env::temp_dir().join(name);
                        let file = File::create(&path)?;
                        // Gone from the folder at once, and from the disk with the thread.
                        std::fs::remove_file(&path)?;
                        at_ordinary_priority(move || write(file, &stop))
                    }
                });
            }
        }
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A thread inherits the priority of the measured ones, at which a load would leave them no core.
fn at_ordinary_priority(load: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        realtime::leave();
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
    let mut memory = vec![1u8; MEMORY];
    let (from, to) = memory.split_at_mut(MEMORY / 2);
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
        for _ in 0..FILE / block.len() {
            if stop.load(Relaxed) || file.write_all(&block).is_err() {
                return;
            }
        }
        if file.sync_data().and_then(|()| file.seek(SeekFrom::Start(0)).map(|_| ())).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_read_as_written_and_all_else_is_refused() {
        for text in ["cpu:1", "memory:3", "disk:2"] {
            assert_eq!(text.parse::<Stress>().unwrap().to_string(), text);
        }
        assert_eq!("cpu".parse(), Ok(Stress { kind: Kind::Cpu, threads: 1 }));
        for text in ["", "gpu", "cpu:0", "cpu:x", "memory:257"] {
            assert!(text.parse::<Stress>().is_err(), "{text}");
        }
    }

    #[test]
    fn loads_end_when_they_are_dropped_and_leave_no_file() {
        let loads = ["cpu", "memory", "disk"].map(|text| text.parse().unwrap());
        drop(Running::start(&loads).unwrap());
        let name = format!("peregrine-load-{}", std::process::id());
        let left = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
        assert_eq!(left.filter(|f| f.file_name().to_string_lossy().starts_with(&name)).count(), 0);
    }
}
