//! Timestamps of a recorded camera, read from a file.

use std::path::{Path, PathBuf};

use peregrine_core::files::{read_text_at_most, MAX_RESULT};

/// Longest median distance between two frames, in seconds, that is believed of a camera.
const LONGEST_PERIOD_S: f64 = 10.0;

/// The unit of a trace's timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceUnit {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl TraceUnit {
    /// The coarsest first.
    pub const ALL: [Self; 4] = [Self::Seconds, Self::Milliseconds, Self::Microseconds, Self::Nanoseconds];

    /// By its symbol: `s`, `ms`, `us` or `ns`.
    pub fn named(symbol: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == symbol)
    }

    /// Its symbol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Nanoseconds => "ns",
        }
    }

    /// Units in a second.
    fn a_second(self) -> f64 {
        match self {
            Self::Seconds => 1.0,
            Self::Milliseconds => 1e3,
            Self::Microseconds => 1e6,
            Self::Nanoseconds => 1e9,
        }
    }
}

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: line {line}: invalid timestamp {text:?}; give a number a line, in seconds or as trace:FILE:UNIT")]
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

/// Number of timestamps in a trace.
///
/// # Errors
/// If it cannot be read.
pub fn length(path: &Path) -> Result<usize, TraceError> {
    Ok(stamps(path)?.0.len())
}

/// Nanoseconds from the first timestamp. A unit that was not given is the coarsest in which two
/// frames are at most ten seconds apart, in the median; a warning names any other than seconds, and
/// seconds where the frames may as well be milliseconds apart.
///
/// # Errors
/// If the file cannot be read, or is no list of ascending times within a day.
pub fn read(path: &Path, unit: Option<TraceUnit>) -> Result<Vec<u64>, TraceError> {
    let (stamps, own) = stamps(path)?;
    if let Some(i) = (1..stamps.len()).find(|&i| stamps[i] < stamps[i - 1]) {
        return Err(TraceError::Order { path: path.into(), before: i - 1, after: i });
    }
    let unit = unit.or(own).unwrap_or_else(|| {
        let (unit, median) = by_distance(&stamps);
        if unit != TraceUnit::Seconds || median > 1.0 {
            let (path, name) = (path.display(), unit.name());
            tracing::warn!(
                "{path}: by their distances (median {median:.3} {name}) its timestamps are in {name}; write \
                 trace:{path}:{name}, or another unit, to be sure"
            );
        }
        unit
    });
    let seconds = |stamp: f64| stamp / unit.a_second();
    match stamps[..] {
        [first, .., last] if seconds(last - first) < 86_400.0 => {
            Ok(stamps.iter().map(|stamp| (seconds(stamp - first) * 1e9).round() as u64).collect())
        }
        _ => Err(TraceError::Length { path: path.into(), found: stamps.len() }),
    }
}

/// The unit, and the median distance of two frames in it.
fn by_distance(stamps: &[f64]) -> (TraceUnit, f64) {
    let mut distances: Vec<f64> = stamps.windows(2).map(|pair| pair[1] - pair[0]).collect();
    distances.sort_unstable_by(f64::total_cmp);
    let median = distances.get(distances.len() / 2).copied().unwrap_or(0.0);
    let plausible = |unit: &TraceUnit| median / unit.a_second() <= LONGEST_PERIOD_S;
    (TraceUnit::ALL.into_iter().find(plausible).unwrap_or(TraceUnit::Seconds), median)
}

/// The timestamps as they stand, and their unit where the file has one.
fn stamps(path: &Path) -> Result<(Vec<f64>, Option<TraceUnit>), TraceError> {
    let text = read_text_at_most(path, MAX_RESULT).map_err(|e| TraceError::Io { path: e.path, source: e.source })?;
    if text.trim_start().starts_with('{') {
        return Ok((from_json(&text, path)?, Some(TraceUnit::Microseconds)));
    }
    Ok((from_lines(&text, path)?, None))
}

fn from_lines(text: &str, path: &Path) -> Result<Vec<f64>, TraceError> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, text)| match text.parse::<f64>() {
            Ok(stamp) if stamp.is_finite() => Ok(stamp),
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
    stamps.map(|(_, stamp)| stamp.as_f64().ok_or_else(fault)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn in_unit(text: &str, unit: Option<TraceUnit>) -> Result<Vec<u64>, TraceError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        fs::write(&path, text).unwrap();
        read(&path, unit)
    }

    fn trace(text: &str) -> Result<Vec<u64>, TraceError> {
        in_unit(text, None)
    }

    #[test]
    fn a_result_of_two_cameras_is_the_trace_of_the_first() {
        let result = r#"{"frames": {"camera": [0, 0, 0, 1, 1, 1], "scheduled_us": [0, 5, 9, 0, 5, 9]}}"#;
        assert_eq!(trace(result).unwrap(), [0, 5_000, 9_000]);
    }

    #[test]
    fn a_trace_keeps_its_distances() {
        let expected = vec![0, 10_000_000, 40_000_000];
        assert_eq!(trace("# seconds\n7.00\n7.01\n\n7.04\n").unwrap(), expected);
        assert_eq!(trace(r#"{"frames": {"scheduled_us": [500, 10500, 40500]}}"#).unwrap(), expected);
    }

    #[test]
    fn the_unit_is_told_from_the_distances_or_given() {
        let expected = vec![0, 33_000_000, 66_000_000];
        for text in ["5.0\n5.033\n5.066", "5000\n5033\n5066", "5000000\n5033000\n5066000"] {
            assert_eq!(trace(text).unwrap(), expected, "{text}");
        }
        // Nanoseconds of today, as ROS stamps are: f64 resolves 256 of them.
        let found = trace("1764325000000000000\n1764325000033000000\n1764325000066000000").unwrap();
        assert!(found.iter().zip(&expected).all(|(a, b)| a.abs_diff(*b) <= 256), "{found:?}");
        // A fast camera in milliseconds looks like a slow one in seconds.
        assert_eq!(trace("1\n5\n9").unwrap()[1], 4_000_000_000);
        assert_eq!(in_unit("1\n5\n9", Some(TraceUnit::Milliseconds)).unwrap()[1], 4_000_000);
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
}
