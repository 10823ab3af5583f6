//! What is added to a step's result in bytes.

use super::super::layout::ThreadMemory;
use super::super::residual::{BlockedTensor, Residual};
use super::layout::{ByteView, BLOCK};

/// A tensor of bytes that is added to a result.
#[derive(Debug, Clone, Copy)]
pub struct ScaledResidual {
    pub tensor: Residual<ByteView>,
    /// Its scale in units of the result's.
    pub factor: f32,
}

impl BlockedTensor for ByteView {
    type Value = u8;

    const BLOCK: usize = BLOCK;

    #[inline]
    unsafe fn row(&self, memory: &ThreadMemory, block: usize, y: usize) -> *const u8 {
        self.at(memory, block, y)
    }
}
