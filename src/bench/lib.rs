//! The latency bench: does a student keep a deadline on this machine, and how sure is that?
//!
//! - [`command`]: the program: options, what is run, what is written.
//! - What is asked: [`profile`] (rate, deadline, how many misses, from a TOML file), [`timetable`] (when frames are
//!   due), [`frames`] (the images that are sent).
//! - What is run: [`schedule`] (open or closed loop), [`worker`] (pipeline or network under test, [`warm`], which
//!   tells its [`progress`]), [`node`] (the whole node over the middleware; feature `ros`), [`rate`] (the highest rate that holds),
//!   [`stall`] (faults on purpose, to see the gate turn red), [`stress`] (load on purpose), [`realtime`] (priority).
//! - What is seen: [`record`] (of each frame), [`usage`] (what it cost), [`monitor`] and [`gpu`] (the machine
//!   meanwhile), [`machine`] (its fingerprint), [`doctor`] (how to make it fit).
//! - What follows: [`stats`], [`trend`], [`culprit`] (the stage to which misses are due), [`verdict`] (met, missed, or
//!   not provable), [`compare`] (two results).
//! - What is written: [`report`] as text and JSON, [`html`] as a page, [`histogram_files`] for other tools,
//!   [`results_file`] for `bench/RESULTS.md`.

pub mod command;
pub mod compare;
pub mod culprit;
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
pub mod profile;
pub mod progress;
pub mod rate;
pub mod realtime;
pub mod record;
pub mod report;
pub mod results_file;
pub mod schedule;
#[cfg(test)]
mod simulation;
pub mod stall;
pub mod stats;
pub mod stress;
pub mod timetable;
pub mod trend;
pub mod usage;
pub mod verdict;
pub mod warm;
pub mod worker;

pub use profile::{LatePolicy, Profile};
pub use record::{FrameRecord, Layer, Passage, Run, Stage};
pub use report::Report;
pub use verdict::Verdict;
