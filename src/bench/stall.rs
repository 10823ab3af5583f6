//! Faults on purpose: a self-test of the gate. A gate that has never been seen red proves nothing when it is green.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use peregrine_core::{now_ns, PixelInput};
use peregrine_engine::{Engine, EngineError};

use super::progress::Progress;
use super::record::Stage;

/// The stages that can be made to stall.
pub const STALLABLE: [Stage; 3] = [Stage::Preprocess, Stage::Inference, Stage::Decode];

/// Something that goes wrong. Frames count from 0; a fault strikes the first frame at or after its own that the worker
/// gets to see.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// `MS@FRAME[:STAGE]`: a pause in one frame.
    Stall { milliseconds: f64, frame: usize, stage: Stage },
    /// `MS/FRAMES[:STAGE]`: a pause in every so many frames.
    Repeated { milliseconds: f64, frames: usize, stage: Stage },
    /// `drift:MS/FRAMES[:STAGE]`: slower and slower, by so much over so many frames.
    Drift { milliseconds: f64, frames: usize, stage: Stage },
    /// `stuck@FRAME[:STAGE]`: work on a frame never ends.
    Stuck { frame: usize, stage: Stage },
    /// `dropped@FRAME`: the camera sends nothing from that frame on.
    Dropped { frame: usize },
}

const FORM: &str = "MS@FRAME, MS/FRAMES, drift:MS/FRAMES, stuck@FRAME (each with :STAGE if wanted) or dropped@FRAME";

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
        let form = || format!("{text:?} is not {FORM}, such as 80@100 or 80@100:decode");
        if let Some(frame) = text.strip_prefix("dropped@") {
            return Ok(Self::Dropped { frame: frame.parse().map_err(|_| form())? });
        }
        let (drift, rest) = text.strip_prefix("drift:").map_or((false, text), |rest| (true, rest));
        let (fault, stage) = rest.split_once(':').unwrap_or((rest, Stage::Inference.name()));
        let stage = STALLABLE
            .into_iter()
            .find(|s| s.name() == stage)
            .ok_or_else(|| format!("{stage:?} is no stage to stall in: use preprocess, inference or decode"));
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
            return Err(format!("a stall of {milliseconds} ms is not within 0.1 to 10000 ms"));
        }
        if !once && count == 0 {
            return Err(format!("{text:?}: 0 frames are not an interval"));
        }
        let stage = stage?;
        Ok(match (drift, once) {
            (true, _) => Self::Drift { milliseconds, frames: count, stage },
            (_, true) => Self::Stall { milliseconds, frame: count, stage },
            _ => Self::Repeated { milliseconds, frames: count, stage },
        })
    }
}

/// A pause without an end.
pub const FOR_EVER: u64 = u64::MAX;

/// All faults of a run.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    faults: Vec<Fault>,
    /// The first frame that the worker has not seen yet.
    unseen: usize,
}

impl Faults {
    pub fn new(faults: Vec<Fault>) -> Self {
        Self { faults, unseen: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// The first frame that the camera does not send; none where it sends all.
    pub fn dropped_from(&self) -> Option<usize> {
        let dropped = |fault: &Fault| match *fault {
            Fault::Dropped { frame } => Some(frame),
            _ => None,
        };
        self.faults.iter().filter_map(dropped).min()
    }

    /// Nanoseconds of pause in each of [`STALLABLE`] for frame `index`; to be called for rising frames, once each.
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
                Fault::Stuck { frame, stage } if seen_first(frame) => (stage, FOR_EVER),
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

/// Pauses that the engine is to make, in nanoseconds, in the order of [`STALLABLE`].
#[derive(Debug, Default)]
pub struct Pauses([AtomicU64; STALLABLE.len()]);

impl Pauses {
    pub fn arm(&self, pauses: [u64; STALLABLE.len()]) {
        self.0.iter().zip(pauses).for_each(|(place, pause)| place.store(pause, Ordering::Relaxed));
    }

    fn make(&self, stage: usize) {
        if self.0[stage].load(Ordering::Relaxed) > 0 {
            pause(self.0[stage].swap(0, Ordering::Relaxed));
        }
    }
}

/// To the microsecond: sleeps most of it, and watches the clock for the rest.
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

/// An engine that says which stage a pipeline has come to, and pauses where it is told to: a pipeline asks for the input
/// while preprocessing, and for outputs while decoding.
pub struct ObservedEngine {
    pub engine: Box<dyn Engine>,
    pub pauses: Arc<Pauses>,
    pub progress: Arc<Progress>,
}

impl Engine for ObservedEngine {
    fn input(&mut self) -> &mut [f32] {
        self.progress.enter(Stage::Preprocess);
        self.pauses.make(0);
        self.engine.input()
    }

    fn pixels(&mut self) -> Option<&mut dyn PixelInput> {
        self.progress.enter(Stage::Preprocess);
        self.pauses.make(0);
        self.engine.pixels()
    }

    fn run(&mut self) -> Result<(), EngineError> {
        self.progress.enter(Stage::Inference);
        self.pauses.make(1);
        self.engine.run()
    }

    fn output(&self, index: usize) -> &[f32] {
        self.progress.enter(Stage::Decode);
        self.pauses.make(2);
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
    fn a_fault_is_read_as_documented_and_written_as_read() {
        let (milliseconds, frame) = (80.0, 100);
        assert_eq!(fault("80@100"), Fault::Stall { milliseconds, frame, stage: Stage::Inference });
        assert_eq!(fault("stuck@3"), Fault::Stuck { frame: 3, stage: Stage::Inference });
        for text in ["5@0:decode", "40.5/500:preprocess", "drift:30/1000:decode", "stuck@9:inference", "dropped@7"] {
            assert_eq!(fault(text).to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_form_expected() {
        for (text, expected) in [
            ("80", "MS@FRAME"),
            ("x@1", "MS@FRAME"),
            ("1@-1", "MS@FRAME"),
            ("drift:1@5", "MS@FRAME"),
            ("0@1", "0.1 to 10000"),
            ("nan@1", "0.1 to 10000"),
            ("5/0", "0 frames"),
            ("1@1:wait", "no stage"),
            ("dropped@x", "MS@FRAME"),
        ] {
            let error = text.parse::<Fault>().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_fault_strikes_once_at_the_first_frame_seen_at_or_after_its_own() {
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

    /// An engine of which only the faults matter.
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
    fn an_observed_engine_tells_its_stage_and_pauses_no_less_than_told() {
        let (pauses, progress) = (Arc::new(Pauses::default()), Arc::new(Progress::default()));
        let mut engine =
            ObservedEngine { engine: Box::new(Nothing), pauses: pauses.clone(), progress: progress.clone() };
        pauses.arm([0, 3_000_000, 0]);
        engine.input();
        assert_eq!(progress.stage(), Stage::Preprocess);
        let before = now_ns();
        engine.run().unwrap();
        assert!(now_ns() - before >= 3_000_000 && progress.stage() == Stage::Inference);
        engine.output(0);
        assert_eq!(progress.stage(), Stage::Decode);
    }
}
