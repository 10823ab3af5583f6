//! What is added to a step's result: another tensor, of the result's size or of half of it.

use super::layout::{FloatView, ThreadMemory};
use super::simd::BLOCK;

/// A tensor in blocks of channels, as [`Residual`] reads it.
pub trait BlockedTensor {
    /// One channel of one pixel.
    type Value;

    /// Channels in a block.
    const BLOCK: usize;

    /// Pixel 0 of row `y` of a block.
    ///
    /// # Safety
    /// The tensor must lie within `memory`, and `block` and `y` within the tensor.
    unsafe fn row(&self, memory: &ThreadMemory, block: usize, y: usize) -> *const Self::Value;
}

/// A tensor that is added to a result.
#[derive(Debug, Clone, Copy)]
pub struct Residual<T> {
    pub view: T,
    /// Whether it is half as high and half as wide as the result, so that each of its pixels is
    /// added to four.
    pub upsampled: bool,
}

impl<T: BlockedTensor> Residual<T> {
    /// What is added to pixel `x` of row `y` of a block of the result.
    ///
    /// # Safety
    /// As for [`BlockedTensor::row`].
    #[inline]
    pub unsafe fn at(&self, memory: &ThreadMemory, block: usize, y: usize, x: usize) -> *const T::Value {
        let (y, x) = if self.upsampled { (y / 2, x / 2) } else { (y, x) };
        self.view.row(memory, block, y).add(x * T::BLOCK)
    }
}

impl BlockedTensor for FloatView {
    type Value = f32;

    const BLOCK: usize = BLOCK;

    #[inline]
    unsafe fn row(&self, memory: &ThreadMemory, block: usize, y: usize) -> *const f32 {
        self.at(memory, block, y)
    }
}
