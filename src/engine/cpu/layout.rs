//! How tensors lie in memory: channels in blocks of [`BLOCK`], `[block][row][column][channel in
//! block]`.
//!
//! Rows have room for a border of zeros left and right, as wide as the convolutions that read the
//! tensor need, so that these need no special case there; rows above and below are skipped instead.
//! A map that is needed only a few rows at a time is a ring of rows. An input of few channels that
//! only dense convolutions read lies in memory of its own, in blocks of four, so that preprocessing
//! can write it there ([`peregrine_core::PixelInput`]).

use super::simd::BLOCK;
use crate::Shape;

/// The memory that one thread's kernels work on.
#[derive(Clone, Copy)]
pub struct ThreadMemory {
    /// Shared by all threads.
    pub arena: *mut f32,
    /// This thread's own.
    pub scratch: *mut f32,
    /// The network's input, planar.
    pub input: *const f32,
    /// The same pixel by pixel, for programs that start from that.
    pub pixels: *mut f32,
    /// The network's outputs, planar, one after the other.
    pub outputs: *mut f32,
}

/// What a view's `base` counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    Arena,
    /// A thread's scratch.
    Scratch,
    /// The network's input, pixel by pixel.
    Pixels,
}

/// Channels in the one block of a network's input that is held pixel by pixel.
pub const PIXEL: usize = 4;

/// Where a tensor lies. Lengths and offsets in floats, `left` and `right` in pixels.
#[derive(Debug, Clone, Copy)]
pub struct FloatView {
    pub shape: Shape,
    pub place: Region,
    /// Channels in a block: [`BLOCK`], or [`PIXEL`].
    pub block: usize,
    pub base: usize,
    pub plane: usize,
    pub row: usize,
    /// Rows that there is room for: row y lies at y modulo this.
    pub rows: usize,
    pub left: usize,
    pub right: usize,
}

impl FloatView {
    /// A view of `shape` at offset 0 with room for `rows` rows and the given border.
    pub fn new(shape: Shape, rows: usize, (left, right): (usize, usize)) -> Self {
        let rows = rows.min(shape.height);
        let row = (left + shape.width + right) * BLOCK;
        // Planes an odd number of 64-byte cache lines apart: else those of large maps would compete
        // for the same sets.
        let plane = ((rows * row).div_ceil(16) | 1) * 16;
        Self { shape, place: Region::Arena, block: BLOCK, base: 0, plane, row, rows, left, right }
    }

    /// A view of an input of up to [`PIXEL`] channels, pixel by pixel.
    pub fn of_pixels(shape: Shape, (left, right): (usize, usize)) -> Self {
        let row = (left + shape.width + right) * PIXEL;
        let (plane, rows) = (shape.height * row, shape.height);
        Self { shape, place: Region::Pixels, block: PIXEL, base: 0, plane, row, rows, left, right }
    }

    pub fn blocks(&self) -> usize {
        self.shape.channels.div_ceil(self.block)
    }

    /// Floats that it takes.
    pub fn len(&self) -> usize {
        self.blocks() * self.plane
    }

    /// Pixel 0 of row `y` of a block.
    ///
    /// # Safety
    /// The view must lie within `memory`, and `block` and `y` within the view.
    #[inline]
    pub unsafe fn at(&self, memory: &ThreadMemory, block: usize, y: usize) -> *mut f32 {
        debug_assert!(block < self.blocks() && y < self.shape.height);
        let start = match self.place {
            Region::Arena => memory.arena,
            Region::Scratch => memory.scratch,
            Region::Pixels => memory.pixels,
        };
        start.add(self.base + block * self.plane + (y % self.rows) * self.row + self.left * self.block)
    }

    /// Zeroes the border of row `y` of a block.
    ///
    /// # Safety
    /// As for [`at`](Self::at).
    #[inline]
    pub unsafe fn zero_border(&self, memory: &ThreadMemory, block: usize, y: usize) {
        let row = self.at(memory, block, y);
        row.sub(self.left * self.block).write_bytes(0, self.left * self.block);
        row.add(self.shape.width * self.block).write_bytes(0, self.right * self.block);
    }
}
