//! The launches that update all parameters: clipping, the optimizer, the moving average.

use std::slice::from_ref;

use peregrine_engine::cuda::driver::{DeviceMemory, Instance};
use peregrine_engine::cuda::launch::{span, Node, Span};

use super::arguments::{self as arg, int};
use super::nodes::Plan;

/// Values of a block of the sum of squares.
const CHUNK: usize = 8192;

/// The rule by which parameters follow their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    AdamW,
    Sgd,
}

impl Rule {
    /// Values that are kept for each trainable one.
    pub fn slots(self) -> usize {
        match self {
            Self::AdamW => 2,
            Self::Sgd => 1,
        }
    }
}

/// What an update works on, besides parameters and gradients.
#[derive(Debug, Clone)]
pub struct UpdateMemory {
    pub rule: Rule,
    /// As many as the rule has slots.
    pub slots: Vec<Span>,
    pub average: Span,
    pub groups: Span,
    pub partial: Span,
    pub outcome: Span,
    /// A loss without which nothing is updated unless it is finite.
    pub loss: Option<Span>,
}

/// The optimizer's graph and memory.
pub struct Update {
    pub instance: Box<dyn Instance>,
    pub memory: UpdateMemory,
    /// Whether the next step is to end with it.
    pub is_announced: bool,
    /// Whether the last step did.
    pub is_done: bool,
    pub slots: Vec<DeviceMemory>,
    pub average: DeviceMemory,
    /// Pinned.
    pub outcome: DeviceMemory,
    pub _device: [DeviceMemory; 3],
}

impl UpdateMemory {
    /// Bytes of the partial sums for so many trainable values.
    pub fn partial_bytes(trainable: usize) -> usize {
        8 * trainable.div_ceil(CHUNK).max(1)
    }
}

impl Plan<'_> {
    /// One update by what [`arg::Step`] says at the step's address, which leaves [`arg::Outcome`] and
    /// gradients of zero.
    pub fn update(&self, memory: &UpdateMemory) -> Vec<Node> {
        let parameters = &self.layout.parameters;
        let trained = span(self.bases.values, 4 * parameters.trainable);
        let all = span(self.bases.values, 4 * parameters.all);
        let step = span(self.bases.step, size_of::<arg::Step>());
        let UpdateMemory { rule, slots, average, groups, partial, outcome, loss } = memory;
        let gradients = self.gradients();
        let argument = arg::Update {
            first: slots[0].start,
            second: slots.get(1).map_or(0, |slot| slot.start),
            average: average.start,
            groups: groups.start,
            partial: partial.start,
            outcome: outcome.start,
            loss: loss.as_ref().map_or(0, |loss| loss.start),
            parts: int(parameters.trainable.div_ceil(CHUNK)),
            ..self.update_argument()
        };
        let of = |kernel| ("update", kernel);
        let blocks = [argument.parts.unsigned_abs(), 1, 1];
        let mut reads = vec![trained.clone(), gradients.clone(), groups.clone(), step.clone(), outcome.clone()];
        reads.extend(slots.iter().cloned());
        let mut writes = vec![trained, gradients.clone()];
        writes.extend(slots.iter().cloned());
        let of_clip: Vec<Span> = [partial.clone(), step.clone()].into_iter().chain(loss.clone()).collect();
        let rule = match rule {
            Rule::AdamW => "adamw",
            Rule::Sgd => "sgd",
        };
        vec![
            self.blocks(of("squares"), blocks, &argument, &[gradients], from_ref(partial)),
            self.blocks(of("clip"), [1, 1, 1], &argument, &of_clip, from_ref(outcome)),
            self.flat(of(rule), parameters.trainable, &argument, &reads, &writes),
            self.flat(
                of("average"),
                parameters.all,
                &argument,
                &[all, step, outcome.clone(), average.clone()],
                from_ref(average),
            ),
        ]
    }

    /// Sets the gradients of all parameters to zero.
    pub fn clear(&self) -> Vec<Node> {
        let trainable = self.layout.parameters.trainable;
        vec![self.flat(("gradients", "clear"), trainable, &self.update_argument(), &[], &[self.gradients()])]
    }

    fn gradients(&self) -> Span {
        span(self.bases.gradients, 4 * self.layout.parameters.trainable)
    }

    fn update_argument(&self) -> arg::Update {
        arg::Update {
            values: self.bases.values,
            gradients: self.bases.gradients,
            step: self.bases.step,
            count: self.layout.parameters.trainable as i64,
            follows: self.layout.parameters.all as i64,
            chunk: int(CHUNK),
            ..arg::Update::default()
        }
    }
}
