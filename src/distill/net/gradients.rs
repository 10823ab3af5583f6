//! The gradients of the layers' tensors in one backward pass, and how they add up.

use peregrine_engine::LayerId;
use rayon::prelude::*;

/// Values that one task adds or copies.
pub(super) const PARALLEL_CHUNK: usize = 1 << 16;

/// A gradient buffer for each layer that a gradient has to reach.
pub(super) struct Gradients {
    /// `[batch, channels, height, width]` for each layer; empty if none is needed.
    pub buffers: Vec<Vec<f32>>,
    /// Whether a gradient has to reach a layer's output.
    pub needed: Vec<bool>,
    /// Whether the layer's buffer already holds something of this pass.
    started: Vec<bool>,
}

impl Gradients {
    /// `lengths`: the values of each layer's tensor over the batch.
    pub fn new(needed: Vec<bool>, lengths: impl Iterator<Item = usize>) -> Self {
        let buffers = needed.iter().zip(lengths).map(|(&needed, len)| vec![0.0; if needed { len } else { 0 }]);
        Self { buffers: buffers.collect(), started: vec![false; needed.len()], needed }
    }

    /// Starts a pass: nothing has reached any layer.
    pub fn start(&mut self) {
        self.started.fill(false);
    }

    /// Hands `f` the buffer of `layer`, and whether to add to what it holds rather than to
    /// overwrite it; does nothing where no gradient is needed.
    pub fn accumulate(&mut self, layer: LayerId, f: impl FnOnce(&mut [f32], bool)) {
        if self.needed[layer] {
            f(&mut self.buffers[layer], self.started[layer]);
            self.started[layer] = true;
        }
    }

    /// Takes the gradient of a layer's tensor out; `None` if nothing has reached it. Give it back
    /// by [`put_back`](Self::put_back).
    pub fn take(&mut self, layer: LayerId) -> Option<Vec<f32>> {
        self.started[layer].then(|| std::mem::take(&mut self.buffers[layer]))
    }

    pub fn put_back(&mut self, layer: LayerId, gradient: Vec<f32>) {
        self.buffers[layer] = gradient;
    }
}

/// `into += from` if `keep`, else `into = from`, on all threads.
pub(super) fn add_or_copy(into: &mut [f32], from: &[f32], keep: bool) {
    into.par_chunks_mut(PARALLEL_CHUNK).zip(from.par_chunks(PARALLEL_CHUNK)).for_each(|(into, from)| {
        if keep {
            into.iter_mut().zip(from).for_each(|(i, f)| *i += f);
        } else {
            into.copy_from_slice(from);
        }
    });
}
