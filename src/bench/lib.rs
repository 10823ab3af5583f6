//! Latency benchmark with a statistical pass/fail verdict: does a student meet a deadline on this
//! machine?
//!
//! - [`command`]: the program `latency_bench`: options, runs, output.
//! - Requirements: [`profile`] (rate, deadline and allowed misses, from a TOML file), [`timetable`]
//!   (when frames are due), [`frames`] and [`recorded`] (the images).
//! - Runs: [`schedule`] (open and closed loop), [`worker`] (the workload: pipeline or network;
//!   [`warm_up`], [`progress`]), [`node`] (the whole ROS 2 node; feature `ros`), [`peers`]
//!   (other engines beside ours), [`rate`] (the
//!   highest rate that is met), [`stall`] (fault injection), [`stress`] (background load),
//!   [`realtime`] (SCHED_FIFO).
//! - Measurements: [`record`] (of each frame), [`usage`] (its cost), [`monitor`], [`board`], [`gpu`] and
//!   [`system`] (the machine meanwhile), [`sysfs`] (what its files tell), [`machine`] (its
//!   fingerprint), [`doctor`] (is it fit?).
//! - Evaluation: [`stats`], [`trend`], [`attribution`] (the stage that misses are attributed to),
//!   [`verdict`] (met, missed or not provable), [`compare`] (two results).
//! - Output: [`report`] as text and JSON, [`html`] as a page, [`histogram_files`] for other tools,
//!   [`results_file`] for `bench/RESULTS.md`.

pub mod attribution;
pub mod board;
pub mod bursts;
pub mod command;
pub mod compare;
pub mod doctor;
pub mod frames;
#[cfg(test)]
mod gate;
pub mod gpu;
pub mod histogram_files;
pub mod html;
pub mod machine;
pub mod monitor;
pub mod node;
pub mod peers;
pub mod pool;
pub mod profile;
pub mod progress;
pub mod rate;
pub mod realtime;
pub mod record;
pub mod recorded;
pub mod report;
pub mod results_file;
pub mod schedule;
#[cfg(test)]
mod simulation;
pub mod stall;
pub mod stats;
pub mod stored;
pub mod stress;
pub mod sysfs;
pub mod system;
pub mod timetable;
pub mod trace;
pub mod trend;
pub mod usage;
pub mod verdict;
pub mod warm_up;
pub mod worker;

pub use profile::{DeadlineProfile, LatePolicy};
pub use record::{BenchLayer, BenchRun, FrameRecord, LatencyStage, StageTimestamps};
pub use report::BenchReport;
pub use verdict::Verdict;
