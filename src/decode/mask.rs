//! The segmentation head's logits to a class for each cell of the image.

use crate::preprocess::Letterbox;

/// A class for each cell of a grid that covers the source image exactly, row by row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassMask {
    /// Cells; 0 where there is no segmentation.
    pub width: usize,
    /// Cells.
    pub height: usize,
    /// Indices into the segmentation classes of the student's architecture, `width · height` of them.
    pub classes: Vec<u8>,
}

impl ClassMask {
    /// The class at a pixel of a source image of `size` (width, height); `None` outside it or without segmentation.
    pub fn at(&self, x: usize, y: usize, size: (usize, usize)) -> Option<u8> {
        if x >= size.0 || y >= size.1 {
            return None;
        }
        let (column, row) = (x * self.width / size.0, y * self.height / size.1);
        self.classes.get(row * self.width + column).copied()
    }
}

/// Input pixels for one cell of the segmentation map.
pub const MASK_STRIDE: usize = 4;

/// Takes the most likely class of each cell and cuts the padding away, in buffers allocated once for a source size.
#[derive(Debug, Default)]
pub struct MaskDecoder {
    /// Cells across the whole map, with its padding.
    map: (usize, usize),
    /// For each column and row of the mask, the map's column and row.
    columns: Vec<usize>,
    rows: Vec<usize>,
    /// Best logit so far and its class, for one row of the map.
    best: Vec<f32>,
    class: Vec<u8>,
}

impl MaskDecoder {
    /// Tables for images of one size. Allocates.
    pub fn new(letterbox: &Letterbox) -> Self {
        let (input, content, pad) = (letterbox.input(), letterbox.content(), letterbox.pad());
        let map = (input.0 / MASK_STRIDE, input.1 / MASK_STRIDE);
        Self {
            map,
            columns: nearest_cells(content.0, pad.0, map.0),
            rows: nearest_cells(content.1, pad.1, map.1),
            best: vec![0.0; map.0],
            class: vec![0; map.0],
        }
    }

    /// Fills `mask` from logits `[classes, height, width]` of the whole map. Allocates only where `mask` must grow.
    ///
    /// Of equal logits the first class wins; a cell of not-a-number gets class 0.
    pub fn decode(&mut self, logits: &[f32], mask: &mut ClassMask) {
        mask.width = self.columns.len();
        mask.height = self.rows.len();
        mask.classes.clear();
        for &row in &self.rows {
            self.argmax_row(logits, row);
            mask.classes.extend(self.columns.iter().map(|&column| self.class[column]));
        }
    }

    /// One class after the other over a whole row, without branches, so that it runs in vector registers.
    fn argmax_row(&mut self, logits: &[f32], row: usize) {
        let (width, cells) = (self.map.0, self.map.0 * self.map.1);
        self.best.fill(f32::NEG_INFINITY);
        self.class.fill(0);
        for (class, plane) in logits.chunks_exact(cells).enumerate() {
            let values = &plane[row * width..][..width];
            for ((best, found), &value) in self.best.iter_mut().zip(&mut self.class).zip(values) {
                let better = value > *best;
                *best = if better { value } else { *best };
                *found = if better { class as u8 } else { *found };
            }
        }
    }
}

/// For each of the cells that cover `content` pixels from `pad` on, the map's cell that holds its centre.
fn nearest_cells(content: usize, pad: usize, map: usize) -> Vec<usize> {
    let count = ((content as f64 / MASK_STRIDE as f64).round() as usize).max(1);
    let pixels = content as f64 / count as f64;
    let centre = |i: usize| pad as f64 + (i as f64 + 0.5) * pixels;
    (0..count).map(|i| ((centre(i) / MASK_STRIDE as f64) as usize).min(map.saturating_sub(1))).collect()
}
