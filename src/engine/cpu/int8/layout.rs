//! How tensors of bytes lie in memory: channels in blocks of 16, `[block][row][column][channel in
//! block]`.
//!
//! As in the f32 engine, rows have room left and right for the border that their readers need; it
//! holds the zero point, which is what zero is in bytes. A network's input of up to 4 channels may
//! have blocks of 4 instead.

use super::super::layout::ThreadMemory;
use crate::Shape;

/// Channels in a block of bytes, and lanes of the kernels.
pub const BLOCK: usize = 16;

/// Channels that one 32-bit lane multiplies at a time; the block of a small input.
pub const QUAD: usize = 4;

/// Bytes after each plane that kernels may read, whatever they hold, when they load four pixels at
/// a row's end.
const SLACK: usize = 64;

/// Where a tensor of bytes lies in the arena. Lengths and offsets in bytes, `left` and `right` in
/// pixels.
#[derive(Debug, Clone, Copy)]
pub struct ByteView {
    pub shape: Shape,
    /// Channels in a block: [`BLOCK`] or [`QUAD`].
    pub block: usize,
    /// Whether it is the network's input pixel by pixel, in memory of its own rather than in the
    /// arena.
    pub pixels: bool,
    pub base: usize,
    pub plane: usize,
    pub row: usize,
    pub left: usize,
    pub right: usize,
    pub zero: u8,
}

impl ByteView {
    /// A view of `shape` at offset 0 with the given border.
    pub fn new(shape: Shape, block: usize, (left, right): (usize, usize), zero: u8) -> Self {
        let row = (left + shape.width + right) * block;
        // Planes an odd number of cache lines apart, as in the f32 engine.
        let plane = ((shape.height * row + SLACK).div_ceil(64) | 1) * 64;
        Self { shape, block, pixels: false, base: 0, plane, row, left, right, zero }
    }

    pub fn blocks(&self) -> usize {
        self.shape.channels.div_ceil(self.block)
    }

    /// Bytes that it takes.
    pub fn len(&self) -> usize {
        self.blocks() * self.plane
    }

    /// Pixel 0 of row `y` of a block.
    ///
    /// # Safety
    /// The view must lie within `memory`, and `block` and `y` within the view.
    #[inline]
    pub unsafe fn at(&self, memory: &ThreadMemory, block: usize, y: usize) -> *mut u8 {
        debug_assert!(block < self.blocks() && y < self.shape.height);
        let start = if self.pixels { memory.pixels } else { memory.arena };
        start.cast::<u8>().add(self.base + block * self.plane + y * self.row + self.left * self.block)
    }

    /// Fills the border of row `y` of a block.
    ///
    /// # Safety
    /// As for [`at`](Self::at).
    #[inline]
    pub unsafe fn fill_border(&self, memory: &ThreadMemory, block: usize, y: usize) {
        let row = self.at(memory, block, y);
        row.sub(self.left * self.block).write_bytes(self.zero, self.left * self.block);
        row.add(self.shape.width * self.block).write_bytes(self.zero, self.right * self.block);
    }
}
