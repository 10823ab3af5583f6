//! Deadline profiles: frame rate, deadline and allowed misses.

use std::path::{Path, PathBuf};

use peregrine_core::files::{read_text_at_most, MAX_DESCRIPTION};
use serde::{Deserialize, Serialize};

/// The built-in profiles by name.
const BUILT_IN: [(&str, &str); 5] = [
    ("car_30hz", include_str!("../../bench/profiles/car_30hz.toml")),
    ("drone_60hz", include_str!("../../bench/profiles/drone_60hz.toml")),
    ("low_power_10hz", include_str!("../../bench/profiles/low_power_10hz.toml")),
    ("node_30hz", include_str!("../../bench/profiles/node_30hz.toml")),
    ("ci", include_str!("../../bench/profiles/ci.toml")),
];

/// A deadline profile, as its TOML file holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadlineProfile {
    pub name: String,
    /// What it is for, in a sentence.
    pub description: String,
    /// Frames a second, 0.1 to 1000.
    pub rate_hz: f64,
    /// Milliseconds from a frame's scheduled instant to its result, 0.1 to 10000.
    pub deadline_ms: f64,
    /// Measured frames, 1 to 1000000.
    pub frames: usize,
    /// Frames in a warm-up block, 0 to 10000. Warm-up ends when the medians of two blocks agree
    /// within 5 % (in layer node after one block).
    pub warmup_frames: usize,
    /// Allowed long-run miss ratio, 0.000001 to below 1.
    pub max_miss_ratio: f64,
    /// Confidence of the verdict on the miss ratio, 0.5 to 0.9999.
    pub confidence: f64,
    /// Allowed consecutive misses: as many as the tracker can coast over.
    pub max_miss_run: usize,
    /// What happens to the result of a late frame.
    pub late: LatePolicy,
    /// CPU time of other programs and the hypervisor, in percent, above which misses are not
    /// attributed to the student, 0 to 100.
    pub max_foreign_load_percent: f64,
    /// Fall of the CPU clock, in percent of its maximum, above which misses are not attributed to
    /// the student, 0 to 100.
    #[serde(default = "default_clock_change")]
    pub max_clock_change_percent: f64,
    /// Allowed rise of the median latency over the run, in percent of the deadline, 0 to 1000.
    #[serde(default = "default_drift")]
    pub max_drift_percent: f64,
    /// Allowed growth of the resident memory over the run, MiB, 0 to 100000.
    #[serde(default = "default_memory_growth")]
    pub max_memory_growth_mib: f64,
    /// Time after which a frame in work counts as stuck, milliseconds, 100 to 600000; above
    /// `deadline_ms`.
    #[serde(default = "default_stuck_after")]
    pub stuck_after_ms: f64,
}

// Defaults of fields that older profiles do not have.
fn default_clock_change() -> f64 {
    10.0
}

fn default_drift() -> f64 {
    10.0
}

fn default_memory_growth() -> f64 {
    16.0
}

fn default_stuck_after() -> f64 {
    15_000.0
}

/// What happens to the result of a late frame, as with the node's parameter `deadline_policy`. It
/// is a miss either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatePolicy {
    /// It is published late.
    Publish,
    /// It is dropped; the frame is not processed at all if its deadline passed before work on it
    /// began.
    Drop,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeadlineProfileError {
    #[error("unknown profile {name:?}: give a path to a .toml file or one of {}", DeadlineProfile::built_in_names().join(", "))]
    Unknown { name: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {why}")]
    Syntax { origin: String, why: String },
    #[error("{origin}: {field} is {value}; it must be {range}")]
    Range { origin: String, field: &'static str, value: String, range: &'static str },
}

impl DeadlineProfile {
    /// The built-in profile of that name, or the profile in the file at that path.
    ///
    /// # Errors
    /// If there is none, or a field is unknown, missing or out of range.
    pub fn load(name_or_path: &str) -> Result<Self, DeadlineProfileError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(text, &format!("the built-in profile {name}"));
        }
        let path = Path::new(name_or_path);
        if !name_or_path.ends_with(".toml") && !path.exists() {
            return Err(DeadlineProfileError::Unknown { name: name_or_path.into() });
        }
        let text = read_text_at_most(path, MAX_DESCRIPTION)
            .map_err(|e| DeadlineProfileError::Io { path: e.path, source: e.source })?;
        Self::parse(&text, name_or_path)
    }

    /// Names of the built-in profiles.
    pub fn built_in_names() -> [&'static str; BUILT_IN.len()] {
        BUILT_IN.map(|(name, _)| name)
    }

    /// Parses and checks a profile; errors name `origin`.
    ///
    /// # Errors
    /// If a field is unknown, missing or out of range.
    pub fn parse(text: &str, origin: &str) -> Result<Self, DeadlineProfileError> {
        let profile: Self = toml::from_str(text).map_err(|e| DeadlineProfileError::Syntax {
            origin: origin.into(),
            why: e.to_string().trim_end().into(),
        })?;
        profile.check(origin)?;
        Ok(profile)
    }

    /// Checks the range of every field.
    ///
    /// # Errors
    /// Names the first field out of range, with its value and range.
    pub fn check(&self, origin: &str) -> Result<(), DeadlineProfileError> {
        let require = |ok: bool, field, value: &dyn ToString, range| {
            let fault =
                || DeadlineProfileError::Range { origin: origin.into(), field, value: value.to_string(), range };
            ok.then_some(()).ok_or_else(fault)
        };
        require((0.1..=1000.0).contains(&self.rate_hz), "rate_hz", &self.rate_hz, "0.1 to 1000")?;
        require((0.1..=10_000.0).contains(&self.deadline_ms), "deadline_ms", &self.deadline_ms, "0.1 to 10000")?;
        require((1..=1_000_000).contains(&self.frames), "frames", &self.frames, "1 to 1000000")?;
        require(self.warmup_frames <= 10_000, "warmup_frames", &self.warmup_frames, "0 to 10000")?;
        let ratio = self.max_miss_ratio;
        // A lower ratio takes more frames than can be measured.
        require((1e-6..1.0).contains(&ratio), "max_miss_ratio", &ratio, "0.000001 to below 1")?;
        require((0.5..=0.9999).contains(&self.confidence), "confidence", &self.confidence, "0.5 to 0.9999")?;
        let load = self.max_foreign_load_percent;
        require((0.0..=100.0).contains(&load), "max_foreign_load_percent", &load, "0 to 100")?;
        let change = self.max_clock_change_percent;
        require((0.0..=100.0).contains(&change), "max_clock_change_percent", &change, "0 to 100")?;
        let drift = self.max_drift_percent;
        require((0.0..=1000.0).contains(&drift), "max_drift_percent", &drift, "0 to 1000")?;
        let growth = self.max_memory_growth_mib;
        require((0.0..=100_000.0).contains(&growth), "max_memory_growth_mib", &growth, "0 to 100000")?;
        let stuck = self.stuck_after_ms;
        require((100.0..=600_000.0).contains(&stuck), "stuck_after_ms", &stuck, "100 to 600000")?;
        require(stuck > self.deadline_ms, "stuck_after_ms", &stuck, "above deadline_ms")
    }

    /// Period of the frames in nanoseconds.
    pub fn period_ns(&self) -> f64 {
        1e9 / self.rate_hz
    }

    /// The deadline in nanoseconds.
    pub fn deadline_ns(&self) -> u64 {
        (self.deadline_ms * 1e6) as u64
    }

    /// `stuck_after_ms` in nanoseconds.
    pub fn stuck_ns(&self) -> u64 {
        (self.stuck_after_ms * 1e6) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::frames_needed;

    #[test]
    fn built_in_profiles_are_valid_and_provable() {
        for name in DeadlineProfile::built_in_names() {
            let profile = DeadlineProfile::load(name).unwrap();
            assert_eq!(profile.name, name);
            assert!(profile.frames >= frames_needed(0, profile.max_miss_ratio, profile.confidence), "{name}");
        }
    }

    #[test]
    fn an_invalid_field_is_named_with_file_and_range() {
        let good = BUILT_IN[0].1;
        for (from, to, expected) in [
            ("rate_hz = 30.0", "rate_hz = 0.0", "rate_hz is 0; it must be 0.1 to 1000"),
            ("rate_hz = 30.0", "rate_hz = nan", "rate_hz is NaN"),
            (
                "max_miss_ratio = 0.001",
                "max_miss_ratio = 1e-20",
                "max_miss_ratio is 0.00000000000000000001; it must be",
            ),
            ("max_miss_run = 2", "max_miss_run = -1", "max_miss_run"),
            ("max_miss_run = 2", "max_miss_runs = 2", "unknown field `max_miss_runs`"),
            ("rate_hz = 30.0", "", "missing field `rate_hz`"),
            ("stuck_after_ms = 5000.0", "stuck_after_ms = 20", "stuck_after_ms is 20; it must be 100 to 600000"),
            ("late = \"publish\"", "late = \"maybe\"", "unknown variant `maybe`"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = DeadlineProfile::parse(&good.replace(from, to), "my.toml").unwrap_err().to_string();
            assert!(error.starts_with("my.toml: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = DeadlineProfile::load("car_31hz").unwrap_err().to_string();
        assert!(error.contains("car_30hz") && error.contains("low_power_10hz"), "{error}");
    }
}
