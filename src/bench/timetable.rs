//! The scheduled instants of a camera's frames.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::trace::{self, TraceError, TraceUnit};

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
    /// As recorded: a file of timestamps, one a line, or a JSON result of this program. Without a
    /// unit it is told from the distances.
    Trace { path: PathBuf, unit: Option<TraceUnit> },
    /// At the distances at which the bag's images were recorded.
    Recorded,
}

const FORM: &str =
    "use fixed, jitter:MS, jitter:MS:SEED, burst:FRAMES, trace:FILE, trace:FILE:UNIT (s, ms, us, ns) or recorded";

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
            "trace" if !rest.is_empty() => Ok(match rest.rsplit_once(':') {
                Some((path, unit)) if TraceUnit::named(unit).is_some() => {
                    Self::Trace { path: path.into(), unit: TraceUnit::named(unit) }
                }
                _ => Self::Trace { path: rest.into(), unit: None },
            }),
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
            Self::Trace { path, unit: None } => write!(f, "trace:{}", path.display()),
            Self::Trace { path, unit: Some(unit) } => write!(f, "trace:{}:{}", path.display(), unit.name()),
            Self::Recorded => write!(f, "recorded"),
        }
    }
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
            FrameSchedule::Trace { path, unit } => repeat(&trace::read(path, *unit)?, frames),
            FrameSchedule::Recorded => return Err(TraceError::NoRecording),
        };
        Ok(Self { offsets })
    }

    /// `frames` frames at the distances of `times`, nanoseconds in ascending order, which repeat if
    /// they are too few. `origin`, at most the first of them, is the start: that of all cameras of a recording.
    ///
    /// # Errors
    /// If there are fewer than two times, or more than a day lies between them.
    pub fn recorded(times: &[u64], origin: u64, frames: usize) -> Result<Self, TraceError> {
        match *times {
            [first, .., last] if origin <= first && last - origin < 86_400_000_000_000 => {
                let trace: Vec<u64> = times.iter().map(|time| time - origin).collect();
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

    /// Seconds from the first frame to the last.
    pub fn duration_s(&self) -> f64 {
        let (first, last) = (self.offsets.first(), self.offsets.last());
        first.zip(last).map_or(0.0, |(first, last)| (last - first) as f64 / 1e9)
    }

    /// The longest time between two frames, in seconds, and the index of the later one.
    pub fn longest_gap(&self) -> Option<(f64, usize)> {
        let gaps = self.offsets.windows(2).zip(1..).map(|(pair, index)| (pair[1] - pair[0], index));
        gaps.max_by_key(|(gap, _)| *gap).map(|(gap, index)| (gap as f64 / 1e9, index))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: f64 = 10e6;

    fn offsets(schedule: &str, frames: usize) -> Vec<u64> {
        Timetable::new(&schedule.parse().unwrap(), frames, PERIOD).unwrap().offsets.to_vec()
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
    fn recorded_times_keep_their_distances_and_repeat() {
        let found = Timetable::recorded(&[700, 710, 740], 700, 5).unwrap();
        assert_eq!(found.offsets[..], [0, 10, 40, 70, 80]);
        let second_camera = Timetable::recorded(&[700, 710, 740], 695, 4).unwrap();
        assert_eq!(second_camera.offsets[..], [5, 15, 45, 80]);
        assert!(Timetable::recorded(&[700], 700, 5).is_err());
        let without = Timetable::new(&FrameSchedule::Recorded, 5, PERIOD).unwrap_err().to_string();
        assert!(without.contains("name one with --images"), "{without}");
    }

    #[test]
    fn schedules_are_parsed_and_invalid_ones_name_the_form() {
        for text in ["fixed", "jitter:2.5:9", "burst:4", "trace:a/b.txt", "trace:a:b.txt:ms", "recorded"] {
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
