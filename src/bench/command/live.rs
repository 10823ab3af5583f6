//! The progress bar on a terminal: frames, percentiles and misses so far. Drawn four times a second
//! by the thread that collects records, never by a measured thread.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use crate::record::FrameRecord;
use crate::schedule::Observer;

const PERIOD: Duration = Duration::from_millis(250);

/// Hidden if standard error is not a terminal.
pub struct ProgressView {
    bar: Option<ProgressBar>,
    latencies: Histogram<u32>,
    /// For each camera, the number of frames up to the last one with a record.
    frames: Vec<usize>,
    misses: u64,
    largest: u64,
    drawn: Instant,
}

impl ProgressView {
    /// For a run of `frames` frames of all cameras together.
    pub fn new(frames: usize) -> Self {
        let style = "{elapsed_precise} {wide_bar} {pos} of {len} frames, {eta} left; {msg}";
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(frames as u64);
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let mut latencies = Histogram::new_with_bounds(1_000, 2_000, 3).expect("constant bounds are sound");
        latencies.auto(true);
        Self { bar, latencies, frames: vec![], misses: 0, largest: 0, drawn: Instant::now() }
    }

    fn line(&self) -> String {
        let ms = |q| self.latencies.value_at_quantile(q) as f64 / 1e6;
        let (p50, p99, max) = (ms(0.5), ms(0.99), self.largest as f64 / 1e6);
        format!("p50 {p50:.1} p99 {p99:.1} max {max:.1} ms, {} misses", self.misses)
    }
}

impl Observer for ProgressView {
    fn frame(&mut self, record: &FrameRecord) {
        if self.bar.is_none() {
            return;
        }
        self.frames.resize(self.frames.len().max(record.camera + 1), 0);
        let passed = &mut self.frames[record.camera];
        // A superseded frame has no record yet: it shows as a gap before the next one.
        self.misses += record.index.saturating_sub(*passed) as u64 + u64::from(record.missed());
        *passed = (*passed).max(record.index + 1);
        if let Some(latency) = record.latency() {
            let _ = self.latencies.record(latency.min(3_600_000_000_000));
            self.largest = self.largest.max(latency);
        }
    }

    fn tick(&mut self) {
        if let Some(bar) = self.bar.as_ref().filter(|_| self.drawn.elapsed() >= PERIOD) {
            bar.set_position(self.frames.iter().sum::<usize>() as u64);
            bar.set_message(self.line());
            self.drawn = Instant::now();
        }
    }
}

impl Drop for ProgressView {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
