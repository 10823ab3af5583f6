//! The segmentation head's logits to a class for each cell of the image.

use peregrine_core::ClassMask;

use crate::preprocess::Letterbox;

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

    /// For each column of the mask the map's column, and for each row the map's row.
    pub fn cells(&self) -> (&[usize], &[usize]) {
        (&self.columns, &self.rows)
    }

    /// Fills `mask` from logits `[classes, height, width]` of the whole map. Allocates only where `mask` must grow.
    ///
    /// Of equal logits the first class wins; a cell of not-a-number gets class 0.
    pub fn decode(&mut self, logits: &[f32], mask: &mut ClassMask) {
        mask.width = self.columns.len();
        mask.height = self.rows.len();
        mask.classes.clear();
        let (width, cells) = (self.map.0, self.map.0 * self.map.1);
        for &row in &self.rows {
            let values = logits.chunks_exact(cells).map(|plane| &plane[row * width..][..width]);
            argmax(values, &mut self.best, &mut self.class);
            mask.classes.extend(self.columns.iter().map(|&column| self.class[column]));
        }
    }
}

impl MaskDecoder {
    /// For each cell of the mask that [`decode`](Self::decode) makes, the softmax probability of its most likely class.
    /// For evaluation; the per-frame path does without.
    pub fn confidence(&self, logits: &[f32]) -> Vec<f32> {
        let (width, cells) = (self.map.0, self.map.0 * self.map.1);
        let probability = |cell: usize| {
            let of = || logits.chunks_exact(cells).map(|plane| plane[cell]);
            let best = of().fold(f32::NEG_INFINITY, f32::max);
            1.0 / of().map(|v| (v - best).exp()).sum::<f32>()
        };
        let row = |&row: &usize| self.columns.iter().map(move |&column| probability(row * width + column));
        self.rows.iter().flat_map(row).collect()
    }
}

/// The index of the largest of several rows of values, at each place. One row after the other and without branches, so
/// that it runs in vector registers.
fn argmax<'a>(rows: impl Iterator<Item = &'a [f32]>, best: &mut [f32], index: &mut [u8]) {
    best.fill(f32::NEG_INFINITY);
    index.fill(0);
    for (i, row) in rows.enumerate() {
        for ((best, index), &value) in best.iter_mut().zip(index.iter_mut()).zip(row) {
            let better = value > *best;
            *best = if better { value } else { *best };
            *index = if better { i as u8 } else { *index };
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

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: usize = 3;

    /// Logits `[CLASSES, height, width]` without pattern.
    fn logits(cells: usize) -> Vec<f32> {
        (0..CLASSES * cells).map(|i| ((i * 7919) % 1009) as f32 / 100.0).collect()
    }

    fn naive_argmax(logits: &[f32], cells: usize, cell: usize) -> u8 {
        let of = |class: usize| logits[class * cells + cell];
        (0..CLASSES).max_by(|&a, &b| of(a).total_cmp(&of(b)).then(b.cmp(&a))).unwrap() as u8
    }

    fn decode(source: (usize, usize), input: (usize, usize), logits: &[f32]) -> ClassMask {
        let mut mask = ClassMask::default();
        MaskDecoder::new(&Letterbox::new(source, input)).decode(logits, &mut mask);
        mask
    }

    #[test]
    fn each_cell_gets_its_most_likely_class_and_padding_is_cut_away() {
        // 320 × 180 of 320 × 256, from row 36 on: rows 9 to 53 of the map's 64.
        let logits = logits(80 * 64);
        let mask = decode((1920, 1080), (320, 256), &logits);
        assert_eq!((mask.width, mask.height), (80, 45));
        for (i, &class) in mask.classes.iter().enumerate() {
            let cell = (i / 80 + 9) * 80 + i % 80;
            assert_eq!(class, naive_argmax(&logits, 80 * 64, cell), "cell {i}");
        }
    }

    #[test]
    fn confidence_is_the_softmax_of_the_winning_class() {
        let logits = logits(16 * 24);
        let letterbox = Letterbox::new((64, 96), (64, 96));
        let confidence = MaskDecoder::new(&letterbox).confidence(&logits);
        let cell = 100;
        let of = |class: usize| f64::from(logits[class * 16 * 24 + cell]).exp();
        let expected = (0..CLASSES).map(of).fold(0.0, f64::max) / (0..CLASSES).map(of).sum::<f64>();
        assert!((f64::from(confidence[cell]) - expected).abs() < 1e-5);
    }

    #[test]
    fn padding_at_the_sides_is_cut_away() {
        let logits = logits(80 * 64);
        let mask = decode((480, 640), (320, 256), &logits);
        assert_eq!((mask.width, mask.height), (48, 64));
        assert_eq!(mask.classes[0], naive_argmax(&logits, 80 * 64, 16));
    }

    #[test]
    fn the_mask_covers_images_of_any_shape() {
        for source in [(1, 1), (3, 1000), (1000, 3), (1241, 376), (17, 16)] {
            let mask = decode(source, (64, 96), &logits(16 * 24));
            assert_eq!(mask.classes.len(), mask.width * mask.height);
            assert!(mask.at(source.0 - 1, source.1 - 1, source).is_some());
            assert_eq!(mask.at(source.0, 0, source), None);
        }
    }

    #[test]
    fn logits_that_are_not_numbers_are_class_0() {
        let mask = decode((64, 64), (64, 64), &vec![f32::NAN; CLASSES * 256]);
        assert!(mask.classes.iter().all(|&class| class == 0));
    }
}
