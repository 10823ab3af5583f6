//! The arguments of a training, which `distill student` and `distill teacher` share.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::device::TrainDevice;
use super::images::Loading;

/// The arguments of a training.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Configuration, TOML (see models/peregrine-lite/train.toml).
    pub(super) config: PathBuf,
    /// Folder of the run; created if missing [default: target/runs/student, target/runs/teacher].
    #[arg(long, short)]
    pub(super) run: Option<PathBuf>,
    /// Start over, even if the folder holds a checkpoint.
    #[arg(long)]
    pub(super) fresh: bool,
    /// Resume from the checkpoint although the configuration or the data has changed; log.jsonl and
    /// origin.json record it.
    #[arg(long, conflicts_with = "fresh")]
    pub(super) reconfigure: bool,
    /// End with a checkpoint and the package after the step in which so many minutes have passed since the start, such
    /// as 8 or 0.5; started again, the training goes on.
    #[arg(long, value_name = "MINUTES", value_parser = parse_minutes)]
    pub(super) minutes: Option<Duration>,
    /// Print the files and folders that the training reads, one a line, and end; what is missing is refused.
    #[arg(long)]
    pub(super) list_inputs: bool,
    /// Threads of the training itself [default: all cores].
    #[arg(long)]
    pub(super) threads: Option<usize>,
    /// Threads that read, decode and augment images ahead of the training [default: all cores, up to
    /// 8].
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) loader_threads: Option<u16>,
    /// Memory for decoded images, in MiB; images beyond it are decoded again when they are drawn.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub(super) image_cache: usize,
    /// Device that computes the network; a run may be resumed on another device. Where the one that is asked for cannot
    /// be used, the exit status is 3.
    #[arg(long, value_enum, default_value_t)]
    pub(super) device: TrainDevice,
}

impl TrainArgs {
    pub(super) fn loading(&self) -> Loading {
        let default = Loading::default();
        Loading {
            cache: self.image_cache.saturating_mul(1 << 20),
            threads: self.loader_threads.map_or(default.threads, usize::from),
        }
    }
}

/// The longest time that a training may be given: a year, in minutes.
const MOST_MINUTES: f64 = 525_600.0;

/// Parses a number of minutes above 0, which need not be whole.
fn parse_minutes(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= MOST_MINUTES => Ok(Duration::from_secs_f64(minutes * 60.0)),
        _ => Err(format!("write a number of minutes above 0, up to {MOST_MINUTES}, such as 8 or 0.5")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_a_number_above_zero() {
        assert_eq!(parse_minutes("0.5"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_minutes("8"), Ok(Duration::from_secs(480)));
        for text in ["0", "-1", "nan", "inf", "1e300", "8m", ""] {
            assert!(parse_minutes(text).unwrap_err().contains("such as 8"), "{text}");
        }
    }
}
