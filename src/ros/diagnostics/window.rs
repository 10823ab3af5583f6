//! The last seconds of frames, and the distributions over them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use peregrine_core::FrameCounts;

use crate::record::FrameRecord;

/// Maximum number of frames, whatever their rate: beyond it the oldest are dropped.
const CAPACITY: usize = 20_000;

/// The frames of the last [`SPAN`](Self::SPAN), with the counts of the frame accounting at its
/// beginning and its end.
#[derive(Debug, Default)]
pub struct Window {
    frames: VecDeque<(Instant, FrameRecord)>,
    counts: VecDeque<(Instant, FrameCounts)>,
}

/// Percentiles of one duration, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Window {
    /// Long enough for a p99 at camera rates, short enough to show what is now.
    pub const SPAN: Duration = Duration::from_secs(10);

    pub fn add(&mut self, at: Instant, frame: FrameRecord) {
        if self.frames.len() == CAPACITY {
            self.frames.pop_front();
        }
        self.frames.push_back((at, frame));
    }

    /// Moves the window's end to `at`, with the counts of the frame accounting at that time.
    pub fn advance(&mut self, at: Instant, counts: FrameCounts) {
        self.counts.push_back((at, counts));
        while self.counts.len() > 2 && at.duration_since(self.counts[0].0) > Self::SPAN {
            self.counts.pop_front();
        }
        while self.frames.front().is_some_and(|(t, _)| at.duration_since(*t) > Self::SPAN) {
            self.frames.pop_front();
        }
    }

    pub fn frames(&self) -> impl Iterator<Item = &FrameRecord> {
        self.frames.iter().map(|(_, frame)| frame)
    }

    /// The increase of the counts within the window.
    pub fn gained(&self) -> FrameCounts {
        let (Some((_, first)), Some((_, last))) = (self.counts.front(), self.counts.back()) else {
            return FrameCounts::default();
        };
        FrameCounts {
            arrived: last.arrived - first.arrived,
            on_time: last.on_time - first.on_time,
            late: last.late - first.late,
            superseded: last.superseded - first.superseded,
            dropped_late: last.dropped_late - first.dropped_late,
            rejected: last.rejected - first.rejected,
            in_flight: last.in_flight,
        }
    }

    /// Seconds that [`gained`](Self::gained) covers.
    pub fn seconds(&self) -> f64 {
        match (self.counts.front(), self.counts.back()) {
            (Some((first, _)), Some((last, _))) => last.duration_since(*first).as_secs_f64(),
            _ => 0.0,
        }
    }

    /// A count of the window as a rate in Hz; 0 for a window without extent.
    pub fn rate(&self, count: u64) -> f64 {
        let seconds = self.seconds();
        if seconds > 0.0 {
            count as f64 / seconds
        } else {
            0.0
        }
    }

    /// Percentiles of `duration` over the frames that have one. Negative ones, of a camera whose
    /// clock is ahead, count as zero. `None` without frames.
    pub fn percentiles(&self, duration: impl Fn(&FrameRecord) -> Option<i64>) -> Option<Percentiles> {
        // From 1 µs to 10 min, to three digits.
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).expect("constant bounds are sound");
        for microseconds in self.frames().filter_map(duration).map(|ns| ns.max(0) as u64 / 1_000) {
            histogram.saturating_record(microseconds);
        }
        let ms = |microseconds: u64| microseconds as f64 / 1_000.0;
        (!histogram.is_empty()).then(|| Percentiles {
            p50: ms(histogram.value_at_quantile(0.5)),
            p99: ms(histogram.value_at_quantile(0.99)),
            p999: ms(histogram.value_at_quantile(0.999)),
            max: ms(histogram.max()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(latency_ms: i64) -> FrameRecord {
        FrameRecord { latency: latency_ms * 1_000_000, processed: true, ..FrameRecord::default() }
    }

    #[test]
    fn percentiles_are_those_of_the_frames_within_the_span() {
        let (start, mut window) = (Instant::now(), Window::default());
        window.add(start, frame(9_000));
        let later = start + Window::SPAN + Duration::from_secs(1);
        (1..=1000).for_each(|ms| window.add(later, frame(ms)));
        window.advance(later, FrameCounts::default());
        let p = window.percentiles(|f| Some(f.latency)).unwrap();
        // Three significant digits: within a thousandth.
        for (found, expected) in [(p.p50, 500.0), (p.p99, 990.0), (p.p999, 999.0), (p.max, 1000.0)] {
            assert!((found - expected).abs() <= expected / 1_000.0 + 1e-9, "{found} for {expected}");
        }
    }

    #[test]
    fn gains_are_counted_from_the_windows_beginning() {
        let (start, mut window) = (Instant::now(), Window::default());
        for second in 0..30 {
            let counts = FrameCounts { arrived: 30 * second, on_time: 30 * second, ..FrameCounts::default() };
            window.advance(start + Duration::from_secs(second), counts);
        }
        assert_eq!(window.seconds(), 10.0);
        assert_eq!(window.gained().arrived, 300);
    }

    #[test]
    fn without_frames_there_are_no_percentiles() {
        assert_eq!(Window::default().percentiles(|f| Some(f.latency)), None);
    }
}
