//! `--doctor`: checks whether the machine is fit for latency measurements, and for a vehicle; with a remedy for each
//! finding.
//!
//! - [`check`]: what a check is. `program`: this program and its permissions. `load`: measured load and wake-ups.
//! - What the system's files tell, each from a [`Root`]: `processor`, `heat`, `memory`, `kernel`,
//!   `interrupts`, `clock`, `network`, `jetson`.
//! - [`camera_clock`]: the stamps of a recorded camera.

use std::collections::BTreeMap;

use serde::Serialize;

use super::machine::Fingerprint;
use super::report::SCHEMA_VERSION;
use super::sysfs::Root;
use super::system;

pub mod camera_clock;
pub mod check;
mod clock;
mod heat;
mod interrupts;
mod jetson;
mod kernel;
mod load;
mod memory;
mod network;
mod processor;
mod program;

pub use check::{Check, Health};

/// All checks of a machine. Serialises to the JSON of `--doctor --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Examination {
    pub schema_version: u32,
    /// Whether no check is bad.
    pub fit: bool,
    pub machine: Fingerprint,
    pub checks: Vec<Check>,
    /// The system's files that the checks have read, by path.
    pub files: BTreeMap<String, String>,
}

impl Examination {
    /// Examines this machine, in about 1.5 s. Other programs that run meanwhile are reported.
    pub fn of_this_machine() -> Self {
        let machine = Fingerprint::read();
        let mut checks = program::checks(&machine);
        checks.extend(load::checks());
        let root = Root::system().keeping();
        checks.extend(of_files(&root, system::kernel_clock()));
        Self { schema_version: SCHEMA_VERSION, fit: true, machine, checks, files: root.into_files() }.with(None)
    }

    /// With another check, if there is one.
    pub fn with(mut self, check: Option<Check>) -> Self {
        self.checks.extend(check);
        self.fit = self.checks.iter().all(|check| check.health != Health::Bad);
        self
    }

    /// A line for each check, followed for those that are not good by why it matters and what to do.
    pub fn text(&self) -> String {
        let line = |check: &Check| {
            let mark = match check.health {
                Health::Good => "good    ",
                Health::Doubtful => "doubtful",
                Health::Bad => "BAD     ",
            };
            let first = format!("{mark}  {:13} {}\n", check.name, check.finding);
            if check.health == Health::Good {
                return first;
            }
            format!("{first}{:24}why: {}\n{:24}-> {}\n", "", check.why, "", check.remedy)
        };
        self.checks.iter().map(line).collect()
    }

    /// As JSON; ends with a line break.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).map(|json| json + "\n").expect("names and texts alone")
    }
}

/// The checks of what a system's files tell; `clock` is the state of the kernel's clock.
fn of_files(root: &Root, clock: Option<system::KernelClock>) -> Vec<Check> {
    let mut checks = jetson::checks(root);
    checks.extend(processor::checks(root));
    checks.push(heat::check(root));
    checks.extend(memory::checks(root));
    checks.extend(kernel::checks(root));
    checks.extend(interrupts::checks(root));
    checks.extend(clock::checks(root, clock));
    checks.extend(network::checks(root));
    checks
}

#[cfg(test)]
mod tests;
