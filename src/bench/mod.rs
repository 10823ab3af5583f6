//! The latency bench: does a student keep a deadline on this machine, and how sure is that?
//!
//! - [`profile`]: what is asked: rate, deadline, and how many misses are allowed, from a TOML file.
//! - [`frames`]: the images that are sent.
//! - [`schedule`]: frames sent at fixed instants (open loop) or back to back (closed loop), and a record of each.
//! - [`worker`]: the pipeline under test, with [`stall`]s injected on request to see the gate turn red.
//! - [`stats`]: percentiles and runs of misses, and what so many frames can prove about the rate of misses.
//! - [`culprit`]: the stage to which misses are due.
//! - [`machine`]: what the figures were measured on, and whether it was fit; [`doctor`]: how to make it fit.
//! - [`verdict`]: met, missed, or not provable.
//! - [`report`]: all of it as text and JSON; [`html`]: as a page.

pub mod culprit;
pub mod doctor;
pub mod frames;
pub mod html;
pub mod machine;
pub mod profile;
pub mod report;
pub mod schedule;
#[cfg(test)]
mod simulation;
pub mod stall;
pub mod stats;
pub mod verdict;
pub mod worker;

pub use profile::{LatePolicy, Profile};
pub use report::Report;
pub use schedule::{FrameRecord, Passage, Run};
pub use verdict::Verdict;
