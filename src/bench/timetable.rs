//! The scheduled instants of a camera's frames.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The arrival pattern of a camera's frames.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum FrameSchedule {
    /// One per period.
    #[default]
    Fixed,
    /// Uniform jitter of ± `milliseconds` around the fixed schedule, reproducible by its seed.
    Jittered { milliseconds: f64, seed: u64 },
    /// Bursts of `frames` frames at once, at the same mean rate.
    Bursts { frames: usize },
    /// As recorded: a file of timestamps in seconds, one a line, or a JSON result of this program.
    Trace { path: PathBuf },
    /// At the distances at which the bag's images were recorded.
    Recorded,
}

const FORM: &str = "use fixed, jitter:MS, jitter:MS:SEED, burst:FRAMES, trace:FILE or recorded";

impl FromStr for FrameSchedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || format!("invalid schedule {text:?}: {FORM}");
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "fixed" if rest.is_empty() => Ok(Self::Fixed),
            "recorded" if rest.is_empty() => Ok(Self::Recorded),
            "jitter" => {
                let (milliseconds, seed) = rest.split_once(':').unwrap_or((rest, "1"));
                let milliseconds: f64 = milliseconds.parse().map_err(|_| form())?;
                if !(0.0..=10_000.0).contains(&milliseconds) {
                    return Err(format!("a jitter of {milliseconds} ms is out of range: give 0 to 10000 ms"));
                }
                Ok(Self::Jittered { milliseconds, seed: seed.parse().map_err(|_| form())? })
            }
            "burst" => match rest.parse() {
                Ok(frames) if (1..=1000).contains(&frames) => Ok(Self::Bursts { frames }),
                Ok(frames) => Err(format!("a burst of {frames} frames is out of range: give 1 to 1000")),
                Err(_) => Err(form()),
            },
            "trace" if !rest.is_empty() => Ok(Self::Trace { path: rest.into() }),
            _ => Err(form()),
        }
    }
}

impl std::fmt::Display for FrameSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Fixed => write!(f, "fixed"),
            Self::Jittered { milliseconds, seed } => write!(f, "jitter:{milliseconds}:{seed}"),
            Self::Bursts { frames } => write!(f, "burst:{frames}"),
            Self::Trace { path } => write!(f, "trace:{}", path.display()),
            Self::Recorded => write!(f, "recorded"),
        }
    }
}

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: line {line}: invalid timestamp {text:?}; give seconds")]
    Timestamp { path: PathBuf, line: usize, text: String },
    #[error("{path}: the timestamps of frames {before} and {after} run backwards; sort the trace by time")]
    Order { path: PathBuf, before: usize, after: usize },
    #[error("{path}: this JSON has no list `frames.scheduled_us`; give a result that latency_bench --json wrote")]
    Json { path: PathBuf },
    #[error("{path}: {found} timestamps; a trace takes two or more, within a day")]
    Length { path: PathBuf, found: usize },
    #[error("--schedule recorded: takes its times from a bag or video; name one with --images")]
    NoRecording,
    #[error("--schedule recorded: the recording has {found} images; it takes two or more, within a day")]
    RecordedLength { found: usize },
}

/// Scheduled instants of all frames: nanoseconds from the start, in ascending order.
#[derive(Debug, Clone, PartialEq)]
pub struct Timetable {
    offsets: Arc<[u64]>,
}

impl Timetable {
    /// `frames` frames with a mean period of `period` nanoseconds. A trace keeps its own distances,
    /// and repeats if it is too short.
    ///
    /// # Errors
    /// If a trace cannot be read.
    pub fn new(schedule: &FrameSchedule, frames: usize, period: f64) -> Result<Self, TraceError> {
        let regular = |index: usize| index as f64 * period;
        let offsets = match schedule {
            FrameSchedule::Fixed => (0..frames).map(|i| regular(i) as u64).collect(),
            FrameSchedule::Jittered { milliseconds, seed } => {
                let mut random = ChaCha8Rng::seed_from_u64(*seed);
                let (most, mut last) = (milliseconds * 1e6, 0);
                // The start is delayed by the jitter, so that the first frame can be early.
                let mut offset = |i: usize| {
                    last = ((regular(i) + most + random.random_range(-1.0..=1.0) * most) as u64).max(last);
                    last
                };
                (0..frames).map(&mut offset).collect()
            }
            FrameSchedule::Bursts { frames: size } => (0..frames).map(|i| regular(i / size * size) as u64).collect(),
            FrameSchedule::Trace { path } => repeat(&read_trace(path)?, frames),
            FrameSchedule::Recorded => return Err(TraceError::NoRecording),
        };
        Ok(Self { offsets })
    }

    /// `frames` frames at the distances of `times`, nanoseconds in ascending order, which repeat if
    /// they are too few.
    ///
    /// # Errors
    /// If there are fewer than two times, or more than a day lies between them.
    pub fn recorded(times: &[u64], frames: usize) -> Result<Self, TraceError> {
        match *times {
            [first, .., last] if last - first < 86_400_000_000_000 => {
                let trace: Vec<u64> = times.iter().map(|time| time - first).collect();
                Ok(Self { offsets: repeat(&trace, frames) })
            }
            _ => Err(TraceError::RecordedLength { found: times.len() }),
        }
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Nanoseconds from the start to frame `index`. `None` after the last frame.
    pub fn offset(&self, index: usize) -> Option<u64> {
        self.offsets.get(index).copied()
    }
}

/// Repeats a trace, with its median period between repetitions.
fn repeat(trace: &[u64], frames: usize) -> Arc<[u64]> {
    let mut gaps: Vec<_> = trace.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    let round = trace[trace.len() - 1] + gaps[gaps.len() / 2];
    (0..frames).map(|i| (i / trace.len()) as u64 * round + trace[i % trace.len()]).collect()
}

/// Number of timestamps in a trace.
///
/// # Errors
/// If it cannot be read.
pub fn trace_length(path: &Path) -> Result<usize, TraceError> {
    read_trace(path).map(|trace| trace.len())
}

/// Nanoseconds from the first timestamp.
fn read_trace(path: &Path) -> Result<Vec<u64>, TraceError> {
    let text = fs::read_to_string(path).map_err(|source| TraceError::Io { path: path.into(), source })?;
    let seconds = if text.trim_start().starts_with('{') { from_json(&text, path)? } else { from_lines(&text, path)? };
    if let Some(i) = (1..seconds.len()).find(|&i| seconds[i] < seconds[i - 1]) {
        return Err(TraceError::Order { path: path.into(), before: i - 1, after: i });
    }
    match seconds[..] {
        [first, .., last] if last - first < 86_400.0 => {
            Ok(seconds.iter().map(|s| ((s - first) * 1e9).round() as u64).collect())
        }
        _ => Err(TraceError::Length { path: path.into(), found: seconds.len() }),
    }
}

fn from_lines(text: &str, path: &Path) -> Result<Vec<f64>, TraceError> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, text)| match text.parse::<f64>() {
            Ok(seconds) if seconds.is_finite() => Ok(seconds),
            _ => Err(TraceError::Timestamp { path: path.into(), line, text: text.into() }),
        })
        .collect()
}

fn from_json(text: &str, path: &Path) -> Result<Vec<f64>, TraceError> {
    let fault = || TraceError::Json { path: path.into() };
    let result: serde_json::Value = serde_json::from_str(text).map_err(|_| fault())?;
    let stamps = result["frames"]["scheduled_us"].as_array().ok_or_else(fault)?;
    // Only the first camera: all have the same instants.
    let cameras = result["frames"]["camera"].as_array();
    let of_the_first = |i: usize| cameras.is_none_or(|cameras| cameras.get(i) == cameras.first());
    let stamps = stamps.iter().enumerate().filter(|&(i, _)| of_the_first(i));
    stamps.map(|(_, stamp)| stamp.as_f64().map(|us| us / 1e6).ok_or_else(fault)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: f64 = 10e6;

    fn offsets(schedule: &str, frames: usize) -> Vec<u64> {
        Timetable::new(&schedule.parse().unwrap(), frames, PERIOD).unwrap().offsets.to_vec()
    }

    fn trace(text: &str) -> Result<Vec<u64>, TraceError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        fs::write(&path, text).unwrap();
        Timetable::new(&FrameSchedule::Trace { path }, 5, PERIOD).map(|t| t.offsets.to_vec())
    }

    #[test]
    fn a_result_of_two_cameras_is_the_trace_of_the_first() {
        let result = r#"{"frames": {"camera": [0, 0, 0, 1, 1, 1], "scheduled_us": [0, 5, 9, 0, 5, 9]}}"#;
        // Five frames are asked for: it repeats.
        assert_eq!(trace(result).unwrap(), [0, 5_000, 9_000, 14_000, 19_000]);
    }

    #[test]
    fn fixed_and_burst_schedules_have_the_same_mean_rate() {
        assert_eq!(offsets("fixed", 3), [0, 10_000_000, 20_000_000]);
        assert_eq!(offsets("burst:2", 5), [0, 0, 20_000_000, 20_000_000, 40_000_000]);
    }

    #[test]
    fn jitter_is_reproducible_by_its_seed() {
        assert_eq!(offsets("jitter:4:7", 50), offsets("jitter:4:7", 50));
        assert_ne!(offsets("jitter:4:7", 50), offsets("jitter:4:8", 50));
    }

    #[test]
    fn a_trace_keeps_its_distances_and_repeats() {
        let expected = vec![0, 10_000_000, 40_000_000, 70_000_000, 80_000_000];
        assert_eq!(trace("# seconds\n7.00\n7.01\n\n7.04\n").unwrap(), expected);
        assert_eq!(trace(r#"{"frames": {"scheduled_us": [500, 10500, 40500]}}"#).unwrap(), expected);
    }

    #[test]
    fn recorded_times_keep_their_distances_and_repeat() {
        let found = Timetable::recorded(&[700, 710, 740], 5).unwrap();
        assert_eq!(found.offsets[..], [0, 10, 40, 70, 80]);
        assert!(Timetable::recorded(&[700], 5).is_err());
        let without = Timetable::new(&FrameSchedule::Recorded, 5, PERIOD).unwrap_err().to_string();
        assert!(without.contains("name one with --images"), "{without}");
    }

    #[test]
    fn an_invalid_trace_is_named_with_its_line() {
        for (text, expected) in [
            ("1.0\nnever\n", "line 2: invalid timestamp \"never\""),
            ("1.0\nnan\n", "line 2"),
            ("2.0\n1.0\n", "frames 0 and 1 run backwards"),
            ("1.0\n", "1 timestamps"),
            ("{}", "frames.scheduled_us"),
        ] {
            let error = trace(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn schedules_are_parsed_and_invalid_ones_name_the_form() {
        for text in ["fixed", "jitter:2.5:9", "burst:4", "trace:a/b.txt", "recorded"] {
            assert_eq!(text.parse::<FrameSchedule>().unwrap().to_string(), text);
        }
        for text in ["", "fixed:1", "jitter", "jitter:x", "burst:0", "burst:-1", "trace:", "poisson"] {
            assert!(text.parse::<FrameSchedule>().is_err(), "{text}");
        }
        assert!("poisson".parse::<FrameSchedule>().unwrap_err().contains("jitter:MS"));
    }

    proptest! {
        #[test]
        fn jitter_keeps_the_order_and_stays_within_its_bound(ms in 0.0f64..50.0, seed: u64) {
            let schedule = FrameSchedule::Jittered { milliseconds: ms, seed };
            let found = Timetable::new(&schedule, 200, PERIOD).unwrap();
            prop_assert!(found.offsets.is_sorted());
            for (i, &offset) in found.offsets.iter().enumerate() {
                let early = offset as f64 - i as f64 * PERIOD;
                // Order may hold a frame back until the one before it, itself within its bound.
                prop_assert!(early >= -1.0 && early <= 2e6 * ms + 1.0, "{early}");
            }
        }
    }
}
