//! The instants at which a camera's frames are due.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How a camera's frames follow each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Schedule {
    /// One each period.
    #[default]
    Fixed,
    /// Each up to so many milliseconds before or after its turn, evenly distributed; the same for the same seed.
    Jittered { milliseconds: f64, seed: u64 },
    /// So many at once, and then none until the rate is made up for.
    Bursts { frames: usize },
    /// As recorded: a file of stamps, one a line in seconds, or a JSON result of this program.
    Trace { path: PathBuf },
}

const FORM: &str = "use fixed, jitter:MS, jitter:MS:SEED, burst:FRAMES or trace:FILE";

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || format!("{text:?} is no schedule: {FORM}");
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "fixed" if rest.is_empty() => Ok(Self::Fixed),
            "jitter" => {
                let (milliseconds, seed) = rest.split_once(':').unwrap_or((rest, "1"));
                let milliseconds: f64 = milliseconds.parse().map_err(|_| form())?;
                if !(0.0..=10_000.0).contains(&milliseconds) {
                    return Err(format!("a jitter of {milliseconds} ms is not within 0 to 10000 ms"));
                }
                Ok(Self::Jittered { milliseconds, seed: seed.parse().map_err(|_| form())? })
            }
            "burst" => match rest.parse() {
                Ok(frames) if (1..=1000).contains(&frames) => Ok(Self::Bursts { frames }),
                Ok(frames) => Err(format!("a burst of {frames} frames is not within 1 to 1000")),
                Err(_) => Err(form()),
            },
            "trace" if !rest.is_empty() => Ok(Self::Trace { path: rest.into() }),
            _ => Err(form()),
        }
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Fixed => write!(f, "fixed"),
            Self::Jittered { milliseconds, seed } => write!(f, "jitter:{milliseconds}:{seed}"),
            Self::Bursts { frames } => write!(f, "burst:{frames}"),
            Self::Trace { path } => write!(f, "trace:{}", path.display()),
        }
    }
}

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: line {line}: {text:?} is not a stamp in seconds")]
    Stamp { path: PathBuf, line: usize, text: String },
    #[error("{path}: the stamps of frames {before} and {after} run backwards; a trace is in the order of its stamps")]
    Order { path: PathBuf, before: usize, after: usize },
    #[error("{path}: this JSON has no list `frames.scheduled_us`; give a result that latency_bench --json wrote")]
    Json { path: PathBuf },
    #[error("{path}: {found} stamps; a schedule takes two or more, less than a day apart in all")]
    Few { path: PathBuf, found: usize },
}

/// Offsets of all frames from the start, in nanoseconds, never falling.
#[derive(Debug, Clone, PartialEq)]
pub struct Timetable {
    offsets: Arc<[u64]>,
}

impl Timetable {
    /// `frames` frames, a period of `period` nanoseconds apart in the mean; a trace keeps its own distances, and begins
    /// anew where it is too short.
    ///
    /// # Errors
    /// When a trace cannot be read.
    pub fn new(schedule: &Schedule, frames: usize, period: f64) -> Result<Self, TraceError> {
        let turn = |index: usize| index as f64 * period;
        let offsets = match schedule {
            Schedule::Fixed => (0..frames).map(|i| turn(i) as u64).collect(),
            Schedule::Jittered { milliseconds, seed } => {
                let mut random = ChaCha8Rng::seed_from_u64(*seed);
                let (most, mut last) = (milliseconds * 1e6, 0);
                // The whole run begins later by the jitter, so that the first frame may come early.
                let mut offset = |i: usize| {
                    last = ((turn(i) + most + random.random_range(-1.0..=1.0) * most) as u64).max(last);
                    last
                };
                (0..frames).map(&mut offset).collect()
            }
            Schedule::Bursts { frames: size } => (0..frames).map(|i| turn(i / size * size) as u64).collect(),
            Schedule::Trace { path } => repeat(&read_trace(path)?, frames),
        };
        Ok(Self { offsets })
    }

    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Nanoseconds from the start to frame `index`; none after the last.
    pub fn offset(&self, index: usize) -> Option<u64> {
        self.offsets.get(index).copied()
    }
}

/// A trace again and again, its median distance apart.
fn repeat(trace: &[u64], frames: usize) -> Arc<[u64]> {
    let mut gaps: Vec<_> = trace.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    let round = trace[trace.len() - 1] + gaps[gaps.len() / 2];
    (0..frames).map(|i| (i / trace.len()) as u64 * round + trace[i % trace.len()]).collect()
}

/// The number of stamps in a trace.
///
/// # Errors
/// When it cannot be read.
pub fn trace_length(path: &Path) -> Result<usize, TraceError> {
    read_trace(path).map(|trace| trace.len())
}

/// Nanoseconds from the first stamp.
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
        _ => Err(TraceError::Few { path: path.into(), found: seconds.len() }),
    }
}

fn from_lines(text: &str, path: &Path) -> Result<Vec<f64>, TraceError> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, text)| match text.parse::<f64>() {
            Ok(seconds) if seconds.is_finite() => Ok(seconds),
            _ => Err(TraceError::Stamp { path: path.into(), line, text: text.into() }),
        })
        .collect()
}

fn from_json(text: &str, path: &Path) -> Result<Vec<f64>, TraceError> {
    let fault = || TraceError::Json { path: path.into() };
    let result: serde_json::Value = serde_json::from_str(text).map_err(|_| fault())?;
    let stamps = result["frames"]["scheduled_us"].as_array().ok_or_else(fault)?;
    // Of several cameras, which follow each other in it, the first: all had the same instants.
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
        Timetable::new(&Schedule::Trace { path }, 5, PERIOD).map(|t| t.offsets.to_vec())
    }

    #[test]
    fn a_result_of_two_cameras_is_the_trace_of_the_first() {
        let result = r#"{"frames": {"camera": [0, 0, 0, 1, 1, 1], "scheduled_us": [0, 5, 9, 0, 5, 9]}}"#;
        // Five frames are asked for: it begins again.
        assert_eq!(trace(result).unwrap(), [0, 5_000, 9_000, 14_000, 19_000]);
    }

    #[test]
    fn fixed_frames_are_a_period_apart_and_bursts_make_up_for_their_gaps() {
        assert_eq!(offsets("fixed", 3), [0, 10_000_000, 20_000_000]);
        assert_eq!(offsets("burst:2", 5), [0, 0, 20_000_000, 20_000_000, 40_000_000]);
    }

    #[test]
    fn jitter_is_the_same_for_a_seed_and_another_for_another() {
        assert_eq!(offsets("jitter:4:7", 50), offsets("jitter:4:7", 50));
        assert_ne!(offsets("jitter:4:7", 50), offsets("jitter:4:8", 50));
    }

    #[test]
    fn a_trace_keeps_its_distances_and_begins_anew_a_median_distance_later() {
        let expected = vec![0, 10_000_000, 40_000_000, 70_000_000, 80_000_000];
        assert_eq!(trace("# seconds\n7.00\n7.01\n\n7.04\n").unwrap(), expected);
        assert_eq!(trace(r#"{"frames": {"scheduled_us": [500, 10500, 40500]}}"#).unwrap(), expected);
    }

    #[test]
    fn a_trace_that_cannot_be_used_is_named_with_its_line() {
        for (text, expected) in [
            ("1.0\nnever\n", "line 2: \"never\""),
            ("1.0\nnan\n", "line 2"),
            ("2.0\n1.0\n", "frames 0 and 1 run backwards"),
            ("1.0\n", "1 stamps"),
            ("{}", "frames.scheduled_us"),
        ] {
            let error = trace(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn schedules_are_read_as_they_are_written_and_all_else_is_refused_with_the_form() {
        for text in ["fixed", "jitter:2.5:9", "burst:4", "trace:a/b.txt"] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
        }
        for text in ["", "fixed:1", "jitter", "jitter:x", "burst:0", "burst:-1", "trace:", "poisson"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
        assert!("poisson".parse::<Schedule>().unwrap_err().contains("jitter:MS"));
    }

    proptest! {
        #[test]
        fn jitter_keeps_the_order_and_stays_within_its_bound(ms in 0.0f64..50.0, seed: u64) {
            let schedule = Schedule::Jittered { milliseconds: ms, seed };
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
