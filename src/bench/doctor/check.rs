//! A check of the machine: what was found, why it matters, what to do about it.

use serde::Serialize;

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Good,
    /// Latency may be higher than necessary.
    Doubtful,
    /// The machine is unfit: figures would mean little.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub health: Health,
    pub finding: String,
    /// Why it matters for the deadline.
    pub why: &'static str,
    /// What to do about it; empty if the check is good.
    pub remedy: String,
}

/// What a check looks at.
#[derive(Debug, Clone, Copy)]
pub struct Topic {
    pub name: &'static str,
    /// Why it matters for the deadline: a sentence without its full stop.
    pub why: &'static str,
}

impl Topic {
    /// Nothing to mend.
    pub fn good(self, finding: impl Into<String>) -> Check {
        self.check(Health::Good, finding, "")
    }

    /// Latency may be higher than necessary.
    pub fn doubtful(self, finding: impl Into<String>, remedy: impl Into<String>) -> Check {
        self.check(Health::Doubtful, finding, remedy)
    }

    /// Figures would mean little.
    pub fn bad(self, finding: impl Into<String>, remedy: impl Into<String>) -> Check {
        self.check(Health::Bad, finding, remedy)
    }

    fn check(self, health: Health, finding: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { name: self.name, health, finding: finding.into(), why: self.why, remedy: remedy.into() }
    }
}
