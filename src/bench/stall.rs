//! Stalls on purpose: a self-test of the gate. A gate that has never been seen red proves nothing when it is green.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::schedule::Stage;
use crate::engine::{Engine, EngineError};

/// A pause in one stage of one frame, written `MS@FRAME` or `MS@FRAME:STAGE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// 1 to 10000.
    pub milliseconds: u64,
    /// From 0; the first frame at or after it that the worker gets to see.
    pub frame: usize,
    /// Preprocess, inference or decode.
    pub stage: Stage,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}@{}:{}", self.milliseconds, self.frame, self.stage.name())
    }
}

impl FromStr for Stall {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || format!("{text:?} is not MS@FRAME or MS@FRAME:STAGE, such as 80@100 or 80@100:decode");
        let (milliseconds, place) = text.split_once('@').ok_or_else(form)?;
        let (frame, stage) = place.split_once(':').unwrap_or((place, Stage::Inference.name()));
        let milliseconds = milliseconds.parse().map_err(|_| form())?;
        let frame = frame.parse().map_err(|_| form())?;
        if !(1..=10_000).contains(&milliseconds) {
            return Err(format!("a stall of {milliseconds} ms is not within 1 to 10000 ms"));
        }
        let stage = STAGES
            .into_iter()
            .find(|s| s.name() == stage)
            .ok_or_else(|| format!("{stage:?} is no stage to stall in: use preprocess, inference or decode"))?;
        Ok(Self { milliseconds, frame, stage })
    }
}

/// The stages that can be made to stall.
const STAGES: [Stage; 3] = [Stage::Preprocess, Stage::Inference, Stage::Decode];

/// Pauses that the engine is to make, in nanoseconds, in the order of [`STAGES`].
#[derive(Debug, Default)]
struct Pauses([AtomicU64; STAGES.len()]);

impl Pauses {
    fn make(&self, stage: usize) {
        if self.0[stage].load(Ordering::Relaxed) > 0 {
            thread::sleep(Duration::from_nanos(self.0[stage].swap(0, Ordering::Relaxed)));
        }
    }
}

/// The stalls still to come, armed frame by frame.
#[derive(Debug)]
pub struct StallPlan {
    /// By frame, the last first.
    remaining: Vec<Stall>,
    pauses: Arc<Pauses>,
}

impl StallPlan {
    /// A plan, and `engine` wrapped so that it follows the plan.
    pub fn new(mut stalls: Vec<Stall>, engine: Box<dyn Engine>) -> (Self, Box<dyn Engine>) {
        stalls.sort_by_key(|stall| std::cmp::Reverse(stall.frame));
        let pauses = Arc::new(Pauses::default());
        (Self { remaining: stalls, pauses: pauses.clone() }, Box::new(StallingEngine { engine, pauses }))
    }

    /// To be called before frame `index` is processed.
    pub fn arm(&mut self, index: usize) {
        while let Some(stall) = self.remaining.pop_if(|stall| stall.frame <= index) {
            let stage = STAGES.iter().position(|&s| s == stall.stage).unwrap_or(1);
            self.pauses.0[stage].store(stall.milliseconds * 1_000_000, Ordering::Relaxed);
        }
    }
}

/// Pauses where a pipeline calls it: it asks for the input while preprocessing, and for outputs while decoding.
struct StallingEngine {
    engine: Box<dyn Engine>,
    pauses: Arc<Pauses>,
}

impl Engine for StallingEngine {
    fn input(&mut self) -> &mut [f32] {
        self.pauses.make(0);
        self.engine.input()
    }

    fn run(&mut self) -> Result<(), EngineError> {
        self.pauses.make(1);
        self.engine.run()
    }

    fn output(&self, index: usize) -> &[f32] {
        self.pauses.make(2);
        self.engine.output(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_read_as_documented() {
        let stall = |milliseconds, frame, stage| Stall { milliseconds, frame, stage };
        assert_eq!("80@100".parse(), Ok(stall(80, 100, Stage::Inference)));
        assert_eq!("5@0:decode".parse(), Ok(stall(5, 0, Stage::Decode)));
        assert_eq!(stall(5, 0, Stage::Decode).to_string(), "5@0:decode");
    }

    #[test]
    fn anything_else_is_refused_with_the_form_expected() {
        for (text, expected) in [
            ("80", "MS@FRAME"),
            ("x@1", "MS@FRAME"),
            ("1@-1", "MS@FRAME"),
            ("0@1", "1 to 10000"),
            ("1@1:wait", "no stage"),
        ] {
            let error = text.parse::<Stall>().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// An engine of which only the stalls matter.
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
    fn a_stall_is_armed_once_at_the_first_frame_at_or_after_its_own() {
        let stalls = vec!["20@9".parse().unwrap(), "7@3:decode".parse().unwrap()];
        let (mut plan, engine) = StallPlan::new(stalls, Box::new(Nothing));
        let pauses = plan.pauses.clone();
        let armed = || [0, 1, 2].map(|i: usize| pauses.0[i].load(Ordering::Relaxed) / 1_000_000);
        plan.arm(2);
        assert_eq!(armed(), [0, 0, 0]);
        plan.arm(5);
        assert_eq!(armed(), [0, 0, 7]);
        engine.output(0);
        assert_eq!(armed(), [0, 0, 0]);
        plan.arm(6);
        assert_eq!(armed(), [0, 0, 0]);
        plan.arm(10);
        assert_eq!(armed(), [0, 20, 0]);
    }
}
