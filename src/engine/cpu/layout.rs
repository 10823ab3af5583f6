//! How tensors lie in memory: channels in blocks of [`BLOCK`], `[block][row][column][channel in block]`.
//!
//! Rows have room for a border of zeros left and right, as wide as the convolutions that read the tensor need, so
//! that these need no special case there; rows above and below are skipped instead. A map that is needed only a few
//! rows at a time is a ring of rows.

use super::simd::BLOCK;
use crate::engine::Shape;

/// The memory that one thread's kernels work on.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Shared by all threads.
    pub arena: *mut f32,
    /// This thread's own.
    pub scratch: *mut f32,
    /// The network's input, planar.
    pub input: *const f32,
    /// The network's outputs, planar, one after the other.
    pub outputs: *mut f32,
}

/// Where a tensor lies. Lengths and offsets in floats, `left` and `right` in pixels.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub shape: Shape,
    /// Whether `base` counts from a thread's scratch rather than from the arena.
    pub local: bool,
    pub base: usize,
    pub plane: usize,
    pub row: usize,
    /// Rows that there is room for: row y lies at y modulo this.
    pub rows: usize,
    pub left: usize,
    pub right: usize,
}

impl View {
    /// A view of `shape` at offset 0 with room for `rows` rows and the given border.
    pub fn new(shape: Shape, rows: usize, (left, right): (usize, usize)) -> Self {
        let rows = rows.min(shape.height);
        let row = (left + shape.width + right) * BLOCK;
        // Planes an odd number of 64-byte cache lines apart: else those of large maps would compete for the same sets.
        let plane = ((rows * row).div_ceil(16) | 1) * 16;
        Self { shape, local: false, base: 0, plane, row, rows, left, right }
    }

    pub fn blocks(&self) -> usize {
        self.shape.channels.div_ceil(BLOCK)
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
    pub unsafe fn at(&self, memory: &Memory, block: usize, y: usize) -> *mut f32 {
        debug_assert!(block < self.blocks() && y < self.shape.height);
        let start = if self.local { memory.scratch } else { memory.arena };
        start.add(self.base + block * self.plane + (y % self.rows) * self.row + self.left * BLOCK)
    }

    /// Zeroes the border of row `y` of a block.
    ///
    /// # Safety
    /// As for [`at`](Self::at).
    #[inline]
    pub unsafe fn zero_border(&self, memory: &Memory, block: usize, y: usize) {
        let row = self.at(memory, block, y);
        row.sub(self.left * BLOCK).write_bytes(0, self.left * BLOCK);
        row.add(self.shape.width * BLOCK).write_bytes(0, self.right * BLOCK);
    }
}
