//! What a run tells of its steps: a line in `log.jsonl` for every tenth, a progress bar, and their speed.

use std::fmt;
use std::mem;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::step::Losses;
use super::step_log::StepLog;
use crate::log;

/// Steps between two lines of the log.
const LOG_EVERY: u64 = 10;

/// The first steps of a start, which its speed leaves out if there are others: kernels and caches are made ready in them.
const WARM_UP: u64 = 10;

pub struct TrainProgress {
    log: StepLog,
    bar: ProgressBar,
    /// The run's last step.
    steps: u64,
    /// Since the last line of the log.
    since: Instant,
    /// Of that time, what the training waited for batches.
    waited: Duration,
    /// Since the start, and since the end of the warm-up.
    whole: Stretch,
    warm: Option<Stretch>,
}

/// Steps, and what they took.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    begun: Instant,
    /// When the last of them was done.
    done: Instant,
    steps: u64,
    waited: Duration,
}

impl Stretch {
    fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, done: now, steps: 0, waited: Duration::ZERO }
    }
}

/// How fast the steps of one start were, for `speed.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// In words.
    pub device: String,
    /// Images in a step.
    pub batch: usize,
    /// Steps that were timed.
    pub steps: u64,
    /// The steps before them, in which a start warms up.
    pub left_out: u64,
    /// Wall clock, with checkpoints that were written between the steps.
    pub seconds: f64,
    /// Of these, what the training waited for images to be decoded and augmented.
    pub seconds_waited: f64,
    pub images_per_second: f64,
    /// As if images were always ready.
    pub images_per_second_unwaited: f64,
}

impl Speed {
    /// `None` where no step was done.
    fn new(stretch: &Stretch, left_out: u64, device: &str, batch: usize) -> Option<Self> {
        let (seconds, waited) = ((stretch.done - stretch.begun).as_secs_f64(), stretch.waited.as_secs_f64());
        let images = stretch.steps as f64 * batch as f64;
        let rate = |seconds: f64| images / seconds.max(f64::MIN_POSITIVE);
        (stretch.steps > 0).then(|| Self {
            device: device.into(),
            batch,
            steps: stretch.steps,
            left_out,
            seconds,
            seconds_waited: waited,
            images_per_second: rate(seconds),
            images_per_second_unwaited: rate(seconds - waited),
        })
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{:.1} images/s over {} steps of {} images, {:.0} % of the time waiting for images ({:.1} images/s without)",
            self.images_per_second,
            self.steps,
            self.batch,
            100.0 * self.seconds_waited / self.seconds.max(f64::MIN_POSITIVE),
            self.images_per_second_unwaited
        )
    }
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
        let (since, waited, whole) = (Instant::now(), Duration::ZERO, Stretch::begin());
        Self { log, bar, steps, since, waited, whole, warm: None }
    }

    /// Adds a time for which the training waited for its next batch.
    pub fn waited(&mut self, time: Duration) {
        self.waited += time;
        self.stretches().for_each(|stretch| stretch.waited += time);
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
        let now = Instant::now();
        self.stretches().for_each(|stretch| (stretch.done, stretch.steps) = (now, stretch.steps + 1));
        if self.whole.steps == WARM_UP {
            self.warm = Some(Stretch::begin());
        }
        Ok(())
    }

    fn stretches(&mut self) -> impl Iterator<Item = &mut Stretch> {
        [&mut self.whole].into_iter().chain(&mut self.warm)
    }

    pub fn finish(&self) {
        self.bar.finish();
    }

    /// How fast the steps since the start were, of `batch` images on `device`; `None` if there was none.
    pub fn speed(&self, device: &str, batch: usize) -> Option<Speed> {
        let warm = self.warm.as_ref().and_then(|warm| Speed::new(warm, WARM_UP, device, batch));
        warm.or_else(|| Speed::new(&self.whole, 0, device, batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_of_all_images_with_and_without_waiting() {
        let begun = Instant::now();
        let (done, waited) = (begun + Duration::from_secs(8), Duration::from_secs(3));
        let stretch = Stretch { begun, done, steps: 20, waited };
        let speed = Speed::new(&stretch, 10, "the CPU", 16).unwrap();
        assert_eq!((speed.images_per_second, speed.images_per_second_unwaited), (40.0, 64.0));
        assert_eq!((speed.steps, speed.left_out, speed.seconds, speed.seconds_waited), (20, 10, 8.0, 3.0));
        assert!(speed.to_string().starts_with("40.0 images/s over 20 steps of 16 images, 38 % of the time"), "{speed}");
        assert_eq!(Speed::new(&Stretch { steps: 0, ..stretch }, 0, "the CPU", 16), None);
    }

    #[test]
    fn the_warm_up_is_left_out_of_what_is_longer() {
        let folder = tempfile::tempdir().unwrap();
        let log = StepLog::open(&folder.path().join("log.jsonl"), 0).unwrap();
        let mut progress = TrainProgress::new(log, 100, 0);
        assert_eq!(progress.speed("the CPU", 2), None);
        for (step, expected) in (1..=12).zip([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2]) {
            progress.report(step, 0.1, 1.0, &Losses::default()).unwrap();
            let speed = progress.speed("the CPU", 2).unwrap();
            assert_eq!((speed.steps, speed.left_out), (expected, if step > 10 { 10 } else { 0 }));
        }
    }
}
