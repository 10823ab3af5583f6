//! A segmenter's soft targets of a whole image, as a view of the image shows them.

use super::augment::View;
use crate::decode::mask::MASK_STRIDE;
use crate::distill::soften::targets::HalfMask;
use crate::student::architecture::Input;

/// Logits at the cells of the segmentation head.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftView {
    /// `[cells, classes]`, at a temperature of 1.
    pub logits: Vec<f32>,
    /// For each cell whether it shows the image; where it does not, the teacher has seen nothing.
    pub seen: Vec<bool>,
}

impl SoftView {
    /// The `mask` of an image of `source` = (width, height) pixels, interpolated at the centres of the cells.
    pub fn new(mask: &HalfMask, source: (u32, u32), view: &View, input: &Input) -> Self {
        let (columns, rows) = (input.width / MASK_STRIDE, input.height / MASK_STRIDE);
        let plane = mask.width * mask.height;
        let classes = mask.logits.len() / plane;
        let mut soft = Self { logits: Vec::with_capacity(columns * rows * classes), seen: Vec::new() };
        for cell in 0..columns * rows {
            let source_at =
                |i: usize, axis: usize| view.origin[axis] + view.step[axis] * ((i as f32 + 0.5) * MASK_STRIDE as f32);
            let x = source_at(cell % columns, 0) / source.0 as f32;
            let y = source_at(cell / columns, 1) / source.1 as f32;
            let seen = (0.0..1.0).contains(&x) && (0.0..1.0).contains(&y);
            soft.seen.push(seen);
            if !seen {
                soft.logits.extend(std::iter::repeat_n(0.0, classes));
                continue;
            }
            let ((left, right, across), (top, bottom, down)) = (between(x, mask.width), between(y, mask.height));
            let value = |class: usize, x: usize, y: usize| mask.logits[class * plane + y * mask.width + x].to_f32();
            soft.logits.extend((0..classes).map(|class| {
                let row = |y: usize| value(class, left, y) * (1.0 - across) + value(class, right, y) * across;
                row(top) * (1.0 - down) + row(bottom) * down
            }));
        }
        soft
    }
}

/// The two cells of `cells` whose centres a place lies between, 0 to 1 along the axis, and how far it is to the second.
fn between(place: f32, cells: usize) -> (usize, usize, f32) {
    let at = (place * cells as f32 - 0.5).clamp(0.0, cells as f32 - 1.0);
    (at as usize, (at as usize + 1).min(cells - 1), at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    fn input() -> Input {
        Input { width: 32, height: 16, mean: [0.0; 3], std: [1.0; 3] }
    }

    /// Two classes over an image of 64 × 32 pixels, on 16 × 8 cells: the first's logit is the column, the second's the row.
    fn mask() -> HalfMask {
        let (width, height) = (16, 8);
        let plane = |of: fn(usize) -> usize| (0..width * height).map(move |i| f16::from_f32(of(i) as f32));
        HalfMask { width, height, logits: plane(|i| i % 16).chain(plane(|i| i / 16)).collect() }
    }

    #[test]
    fn each_cell_has_the_logits_of_the_place_that_it_shows() {
        // The middle of the image, mirrored and at its own size: cells of 4 pixels, as the mask's are.
        let view = View { origin: [48.0, 8.0], step: [-1.0, 1.0] };
        let soft = SoftView::new(&mask(), (64, 32), &view, &input());
        assert!(soft.seen.iter().all(|&seen| seen));
        for (cell, logits) in soft.logits.chunks(2).enumerate() {
            assert_eq!(logits, [(11 - cell % 8) as f32, (2 + cell / 8) as f32]);
        }
    }

    #[test]
    fn what_lies_outside_the_image_is_not_seen() {
        let view = View { origin: [-16.0, 0.0], step: [1.0, 1.0] };
        let soft = SoftView::new(&mask(), (64, 32), &view, &input());
        assert!(soft.seen.iter().enumerate().all(|(cell, &seen)| seen == (cell % 8 >= 4)));
        assert_eq!(soft.logits[2 * 4..][..2], [0.0, 0.0]);
        assert_eq!(soft.logits[2 * 5..][..2], [1.0, 0.0]);
    }
}
