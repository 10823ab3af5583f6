//! What a run tells of its steps: a line in `log.jsonl` for every tenth, and a progress bar.

use std::mem;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::step::Losses;
use super::step_log::StepLog;
use crate::log;

/// Steps between two lines of the log.
const LOG_EVERY: u64 = 10;

pub struct TrainProgress {
    log: StepLog,
    bar: ProgressBar,
    /// The run's last step.
    steps: u64,
    /// Since the last line of the log.
    since: Instant,
    /// Of that time, what the training waited for batches.
    waited: Duration,
}

#[derive(Serialize)]
struct LogLine<'a> {
    step: u64,
    rate: f64,
    gradient_norm: f32,
    loss: f32,
    /// The share of the time since the last line in which the training waited for images.
    waited: f64,
    #[serde(flatten)]
    terms: &'a Losses,
}

impl TrainProgress {
    /// For a run of `steps`, of which `done` are done.
    pub fn new(log: StepLog, steps: u64, done: u64) -> Self {
        let style = "{bar:30} {pos}/{len} {per_sec:.1} ETA {eta} {msg}";
        let style = ProgressStyle::with_template(style).expect("the template is well-formed");
        let bar = log::show(ProgressBar::new(steps).with_position(done).with_style(style));
        bar.reset_eta();
        Self { log, bar, steps, since: Instant::now(), waited: Duration::ZERO }
    }

    /// Adds a time for which the training waited for its next batch.
    pub fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// Reports that `step` is done.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn report(&mut self, step: u64, rate: f64, gradient_norm: f32, losses: &Losses) -> anyhow::Result<()> {
        if step.is_multiple_of(LOG_EVERY) || step == self.steps {
            let all = mem::replace(&mut self.since, Instant::now()).elapsed().as_secs_f64();
            let waited = mem::take(&mut self.waited).as_secs_f64() / all.max(f64::MIN_POSITIVE);
            let waited = (waited * 1e3).round() / 1e3;
            self.log.add(&LogLine { step, rate, gradient_norm, loss: losses.total(), waited, terms: losses })?;
        }
        self.bar.set_position(step);
        self.bar.set_message(losses.to_string());
        Ok(())
    }

    pub fn finish(&self) {
        self.bar.finish();
    }
}
