//! Fault injection: a self-test of the verdict, which must fail when a deadline is missed.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use peregrine_core::{now_ns, PixelInput};
use peregrine_engine::{Engine, EngineError};

use super::progress::WorkerProgress;
use super::record::LatencyStage;

/// The stages that a fault can stall.
pub const STALLABLE: [LatencyStage; 3] = [LatencyStage::Preprocess, LatencyStage::Inference, LatencyStage::Decode];

/// A fault to inject. Frames count from 0; a fault hits the first frame at or after its own that
/// reaches the worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// `MS@FRAME[:STAGE]`: a pause in one frame.
    Stall { milliseconds: f64, frame: usize, stage: LatencyStage },
    /// `MS/FRAMES[:STAGE]`: a pause every FRAMES frames.
    Repeated { milliseconds: f64, frames: usize, stage: LatencyStage },
    /// `drift:MS/FRAMES[:STAGE]`: a pause that grows by MS every FRAMES frames.
    Drift { milliseconds: f64, frames: usize, stage: LatencyStage },
    /// `stuck@FRAME[:STAGE]`: work on a frame never ends.
    Stuck { frame: usize, stage: LatencyStage },
    /// `dropped@FRAME`: the camera sends no frames from FRAME on.
    Dropped { frame: usize },
}

const FORM: &str = "MS@FRAME, MS/FRAMES, drift:MS/FRAMES, stuck@FRAME (each with an optional :STAGE) or dropped@FRAME";

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self::Stall { milliseconds, frame, stage } => write!(f, "{milliseconds}@{frame}:{}", stage.name()),
            Self::Repeated { milliseconds, frames, stage } => write!(f, "{milliseconds}/{frames}:{}", stage.name()),
            Self::Drift { milliseconds, frames, stage } => write!(f, "drift:{milliseconds}/{frames}:{}", stage.name()),
            Self::Stuck { frame, stage } => write!(f, "stuck@{frame}:{}", stage.name()),
            Self::Dropped { frame } => write!(f, "dropped@{frame}"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || format!("invalid fault {text:?}: give {FORM}, such as 80@100 or 80@100:decode");
        if let Some(frame) = text.strip_prefix("dropped@") {
            return Ok(Self::Dropped { frame: frame.parse().map_err(|_| form())? });
        }
        let (drift, rest) = text.strip_prefix("drift:").map_or((false, text), |rest| (true, rest));
        let (fault, stage) = rest.split_once(':').unwrap_or((rest, LatencyStage::Inference.name()));
        let stage = STALLABLE
            .into_iter()
            .find(|s| s.name() == stage)
            .ok_or_else(|| format!("invalid stage {stage:?}: use preprocess, inference or decode"));
        if let (Some(frame), false) = (fault.strip_prefix("stuck@"), drift) {
            return Ok(Self::Stuck { frame: frame.parse().map_err(|_| form())?, stage: stage? });
        }
        let (milliseconds, count, once) = match (fault.split_once('@'), fault.split_once('/')) {
            (Some((milliseconds, frame)), None) if !drift => (milliseconds, frame, true),
            (None, Some((milliseconds, frames))) => (milliseconds, frames, false),
            _ => return Err(form()),
        };
        let milliseconds: f64 = milliseconds.parse().map_err(|_| form())?;
        let count: usize = count.parse().map_err(|_| form())?;
        if !(0.1..=10_000.0).contains(&milliseconds) {
            return Err(format!("a stall of {milliseconds} ms is out of range: give 0.1 to 10000 ms"));
        }
        if !once && count == 0 {
            return Err(format!("{text:?}: an interval of 0 frames is invalid"));
        }
        let stage = stage?;
        Ok(match (drift, once) {
            (true, _) => Self::Drift { milliseconds, frames: count, stage },
            (_, true) => Self::Stall { milliseconds, frame: count, stage },
            _ => Self::Repeated { milliseconds, frames: count, stage },
        })
    }
}

/// A pause without end, in nanoseconds.
pub const FOREVER: u64 = u64::MAX;

/// The faults of a run.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    faults: Vec<Fault>,
    /// The first frame that has not reached the worker yet.
    unseen: usize,
}

impl Faults {
    /// Faults to inject into one run.
    pub fn new(faults: Vec<Fault>) -> Self {
        Self { faults, unseen: 0 }
    }

    /// Whether there is no fault.
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// The first frame that the camera does not send. `None` if it sends all.
    pub fn dropped_from(&self) -> Option<usize> {
        let dropped = |fault: &Fault| match *fault {
            Fault::Dropped { frame } => Some(frame),
            _ => None,
        };
        self.faults.iter().filter_map(dropped).min()
    }

    /// Pause in nanoseconds in each of [`STALLABLE`] for frame `index`; called once per frame, in
    /// rising order.
    pub fn pauses(&mut self, index: usize) -> [u64; STALLABLE.len()] {
        let unseen = std::mem::replace(&mut self.unseen, index + 1);
        let seen_first = |frame: usize| (unseen..=index).contains(&frame);
        let mut pauses = [0u64; STALLABLE.len()];
        for fault in &self.faults {
            let (stage, pause) = match *fault {
                Fault::Stall { milliseconds, frame, stage } if seen_first(frame) => (stage, nanoseconds(milliseconds)),
                Fault::Repeated { milliseconds, frames, stage } if seen_first(index / frames * frames) && index > 0 => {
                    (stage, nanoseconds(milliseconds))
                }
                Fault::Drift { milliseconds, frames, stage } => {
                    (stage, nanoseconds(milliseconds * index as f64 / frames as f64))
                }
                Fault::Stuck { frame, stage } if seen_first(frame) => (stage, FOREVER),
                _ => continue,
            };
            if let Some(i) = STALLABLE.iter().position(|&s| s == stage) {
                pauses[i] = pauses[i].saturating_add(pause);
            }
        }
        pauses
    }
}

fn nanoseconds(milliseconds: f64) -> u64 {
    (milliseconds * 1e6) as u64
}

/// Pauses of the engine's next frame, in nanoseconds, in the order of [`STALLABLE`].
#[derive(Debug, Default)]
pub struct Pauses([AtomicU64; STALLABLE.len()]);

impl Pauses {
    /// Sets the pauses of the next frame.
    pub fn arm(&self, pauses: [u64; STALLABLE.len()]) {
        self.0.iter().zip(pauses).for_each(|(place, pause)| place.store(pause, Ordering::Relaxed));
    }

    fn take(&self, stage: usize) {
        if self.0[stage].load(Ordering::Relaxed) > 0 {
            pause(self.0[stage].swap(0, Ordering::Relaxed));
        }
    }
}

/// Sleeps for most of it and then spins, which is exact to about a microsecond.
fn pause(nanoseconds: u64) {
    const OVERSLEEP: u64 = 500_000;
    let end = now_ns().saturating_add(nanoseconds);
    loop {
        match end.saturating_sub(now_ns()) {
            0 => return,
            left if left > OVERSLEEP => thread::sleep(Duration::from_nanos((left - OVERSLEEP).min(1_000_000_000))),
            _ => std::hint::spin_loop(),
        }
    }
}

/// An engine that reports its stage and makes the pauses that are set. A pipeline accesses the
/// input while preprocessing and the outputs while decoding.
pub struct ObservedEngine {
    pub engine: Box<dyn Engine>,
    pub pauses: Arc<Pauses>,
    pub progress: Arc<WorkerProgress>,
}

impl Engine for ObservedEngine {
    fn input(&mut self) -> &mut [f32] {
        self.progress.enter(LatencyStage::Preprocess);
        self.pauses.take(0);
        self.engine.input()
    }

    fn pixels(&mut self) -> Option<&mut dyn PixelInput> {
        self.progress.enter(LatencyStage::Preprocess);
        self.pauses.take(0);
        self.engine.pixels()
    }

    fn run(&mut self) -> Result<(), EngineError> {
        self.progress.enter(LatencyStage::Inference);
        self.pauses.take(1);
        self.engine.run()
    }

    fn output(&self, index: usize) -> &[f32] {
        self.progress.enter(LatencyStage::Decode);
        self.pauses.take(2);
        self.engine.output(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        text.parse().unwrap()
    }

    #[test]
    fn faults_are_parsed_and_printed_in_the_same_form() {
        let (milliseconds, frame) = (80.0, 100);
        assert_eq!(fault("80@100"), Fault::Stall { milliseconds, frame, stage: LatencyStage::Inference });
        assert_eq!(fault("stuck@3"), Fault::Stuck { frame: 3, stage: LatencyStage::Inference });
        for text in ["5@0:decode", "40.5/500:preprocess", "drift:30/1000:decode", "stuck@9:inference", "dropped@7"] {
            assert_eq!(fault(text).to_string(), text);
        }
    }

    #[test]
    fn an_invalid_fault_names_the_expected_form() {
        for (text, expected) in [
            ("80", "MS@FRAME"),
            ("x@1", "MS@FRAME"),
            ("1@-1", "MS@FRAME"),
            ("drift:1@5", "MS@FRAME"),
            ("0@1", "0.1 to 10000"),
            ("nan@1", "0.1 to 10000"),
            ("5/0", "0 frames"),
            ("1@1:wait", "invalid stage"),
            ("dropped@x", "MS@FRAME"),
        ] {
            let error = text.parse::<Fault>().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_fault_hits_once_the_first_frame_from_its_own_on() {
        let mut faults = Faults::new(vec![fault("20@9"), fault("7@3:decode"), fault("5/10:preprocess")]);
        let ms = |pauses: [u64; 3]| pauses.map(|ns| ns / 1_000_000);
        assert_eq!(ms(faults.pauses(0)), [0, 0, 0]);
        assert_eq!(ms(faults.pauses(2)), [0, 0, 0]);
        assert_eq!(ms(faults.pauses(5)), [0, 0, 7]);
        assert_eq!(ms(faults.pauses(6)), [0, 0, 0]);
        assert_eq!(ms(faults.pauses(11)), [5, 20, 0]);
        assert_eq!(ms(faults.pauses(12)), [0, 0, 0]);
        assert_eq!(ms(faults.pauses(20)), [5, 0, 0]);
    }

    #[test]
    fn a_drift_grows_with_the_frames() {
        let mut faults = Faults::new(vec![fault("drift:30/1000")]);
        assert_eq!(faults.pauses(0)[1], 0);
        assert_eq!(faults.pauses(500)[1], 15_000_000);
        assert_eq!(faults.pauses(2000)[1], 60_000_000);
    }

    /// An engine that does nothing.
    struct Nothing;

    impl Engine for Nothing {
        fn input(&mut self) -> &mut [f32] {
            &mut []
        }

        fn run(&mut self) -> Result<(), EngineError> {
            Ok(())
        }

        fn output(&self, _: usize) -> &[f32] {
            &[]
        }
    }

    #[test]
    fn an_observed_engine_reports_its_stage_and_pauses() {
        let (pauses, progress) = (Arc::new(Pauses::default()), Arc::new(WorkerProgress::default()));
        let mut engine =
            ObservedEngine { engine: Box::new(Nothing), pauses: pauses.clone(), progress: progress.clone() };
        pauses.arm([0, 3_000_000, 0]);
        engine.input();
        assert_eq!(progress.stage(), LatencyStage::Preprocess);
        let before = now_ns();
        engine.run().unwrap();
        assert!(now_ns() - before >= 3_000_000 && progress.stage() == LatencyStage::Inference);
        engine.output(0);
        assert_eq!(progress.stage(), LatencyStage::Decode);
    }
}
