//! Classifiers and segmenters: logits of the whole image, or of each pixel.

use anyhow::ensure;
use peregrine_core::ClassMask;

use super::candidates::OutputTensor;
use super::description::{Layout, Scores, TeacherDescription};
use super::placement::Placement;

/// The logit of a class that the segmenter does not know: finite, as softmax needs it.
pub(crate) const UNKNOWN_CLASS: f32 = -30.0;

/// Logits for cells that cover the source image exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftMask {
    pub width: usize,
    pub height: usize,
    /// `[classes, height, width]`, at a temperature of 1.
    pub logits: Vec<f32>,
}

impl SoftMask {
    /// The same on a grid of `width` × `height` cells (neither 0), by bilinear interpolation
    /// between the centres of the cells.
    pub fn resized(&self, width: usize, height: usize) -> Self {
        // For each cell along an axis, the two nearest source cells, and the weight of the second.
        let axis = |from: usize, to: usize| -> Vec<(usize, usize, f32)> {
            let place = |i: usize| ((i as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, from as f32 - 1.0);
            (0..to).map(|i| (place(i) as usize, (place(i) as usize + 1).min(from - 1), place(i).fract())).collect()
        };
        let (columns, rows) = (axis(self.width, width), axis(self.height, height));
        let mut logits = Vec::with_capacity(self.logits.len() / (self.width * self.height) * width * height);
        for plane in self.logits.chunks(self.width * self.height) {
            for &(top, bottom, down) in &rows {
                logits.extend(columns.iter().map(|&(left, right, across)| {
                    let row = |y: usize| {
                        plane[y * self.width + left] * (1.0 - across) + plane[y * self.width + right] * across
                    };
                    row(top) * (1.0 - down) + row(bottom) * down
                }));
            }
        }
        Self { width, height, logits }
    }

    /// Of the image mirrored, left to right.
    #[must_use]
    pub fn mirrored(mut self) -> Self {
        self.logits.chunks_mut(self.width.max(1)).for_each(<[f32]>::reverse);
        self
    }

    /// The mean of several teachers' logits on a grid of `width` × `height` cells, for each class
    /// over the teachers that know it, as `known` says for each teacher and class.
    pub fn mean(teachers: &[Self], known: &[Vec<bool>], width: usize, height: usize) -> Self {
        let resized: Vec<Self> = teachers.iter().map(|mask| mask.resized(width, height)).collect();
        let (cells, classes) = (width * height, known.first().map_or(0, Vec::len));
        let mut logits = vec![UNKNOWN_CLASS; classes * cells];
        for (class, plane) in logits.chunks_mut(cells).enumerate() {
            let knowing: Vec<&Self> =
                resized.iter().zip(known).filter(|(_, k)| k[class]).map(|(mask, _)| mask).collect();
            if !knowing.is_empty() {
                let sum = |cell: usize| knowing.iter().map(|mask| mask.logits[class * cells + cell]).sum::<f32>();
                plane.iter_mut().enumerate().for_each(|(cell, v)| *v = sum(cell) / knowing.len() as f32);
            }
        }
        Self { width, height, logits }
    }

    /// The most likely class of each cell, and its softmax probability.
    pub fn decided(&self) -> (ClassMask, Vec<f32>) {
        let cells = self.width * self.height;
        let of = |cell: usize| self.logits.chunks(cells).map(move |plane| plane[cell]);
        let best = |cell: usize| {
            let pick = |best: (usize, f32), (class, v)| if v > best.1 { (class, v) } else { best };
            of(cell).enumerate().fold((0, f32::NEG_INFINITY), pick)
        };
        let best: Vec<(usize, f32)> = (0..cells).map(best).collect();
        let confidence =
            |(cell, (_, largest)): (usize, &(usize, f32))| 1.0 / of(cell).map(|v| (v - largest).exp()).sum::<f32>();
        let classes = best.iter().map(|b| b.0 as u8).collect();
        let confidences = best.iter().enumerate().map(confidence).collect();
        (ClassMask { width: self.width, height: self.height, classes }, confidences)
    }
}

/// The student's class logits of the whole image: for each class, log Σ exp of the teacher's logits
/// that it is mapped to, so that their probabilities add up.
///
/// # Errors
/// When the tensor lacks a class that is named.
pub fn of_image(d: &TeacherDescription, groups: &[Vec<usize>], output: &OutputTensor) -> anyhow::Result<Vec<f32>> {
    let (shape, values) = output;
    ensure!(
        // Also [1, classes, 1, 1], as networks without a last flattening have it.
        shape.iter().product::<usize>() == *shape.iter().max().unwrap_or(&0)
            && groups.iter().flatten().all(|&c| c < values.len()),
        "output {:?} is {shape:?}, which is not [1, classes] with every class named in [classes]",
        d.outputs[0]
    );
    // The logarithm of a probability is a logit of the same softmax.
    let is_probability = d.scores == Some(Scores::Probability);
    let logit = |&c: &usize| if is_probability { values[c].max(1e-8).ln() } else { values[c] };
    Ok(groups.iter().map(|group| log_sum(group.iter().map(logit))).collect())
}

/// The student's class logits of each cell on the image, without the padding of the letterbox.
///
/// # Errors
/// When the tensor has another shape, or lacks a class that is named.
pub fn of_pixels(
    d: &TeacherDescription,
    groups: &[Vec<usize>],
    output: &OutputTensor,
    placement: &Placement,
) -> anyhow::Result<SoftMask> {
    let (shape, values) = output;
    let dims = match (d.layout, shape.as_slice()) {
        (Layout::Nchw, &[1, classes, height, width]) => Some((classes, height, width)),
        (Layout::Nhwc, &[1, height, width, classes]) => Some((classes, height, width)),
        _ => None,
    };
    let Some((classes, height, width)) = dims.filter(|(c, ..)| groups.iter().flatten().all(|g| g < c)) else {
        let order = if d.layout == Layout::Nchw { "[1, classes, h, w]" } else { "[1, h, w, classes]" };
        anyhow::bail!(
            "output {:?} is {shape:?}, which is not {order} with every class named in [classes]",
            d.outputs[0]
        );
    };
    ensure!(height * width > 0, "output {:?} is empty", d.outputs[0]);
    let (left, columns) = placement.covered(width, true);
    let (top, rows) = placement.covered(height, false);
    let at = |c: usize, y: usize, x: usize| match d.layout {
        Layout::Nchw => values[(c * height + y) * width + x],
        Layout::Nhwc => values[(y * width + x) * classes + c],
    };
    let mut logits = Vec::with_capacity(groups.len() * rows * columns);
    for group in groups {
        for y in top..top + rows {
            logits.extend((left..left + columns).map(|x| log_sum(group.iter().map(|&c| at(c, y, x)))));
        }
    }
    Ok(SoftMask { width: columns, height: rows, logits })
}

fn log_sum(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let largest = values.clone().fold(f32::NEG_INFINITY, f32::max);
    if !largest.is_finite() {
        return UNKNOWN_CLASS;
    }
    largest + values.map(|v| (v - largest).exp()).sum::<f32>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_interpolated_between_the_centres_of_its_cells() {
        let mask = SoftMask { width: 2, height: 1, logits: vec![0.0, 4.0, 10.0, 10.0] };
        let finer = mask.resized(4, 2);
        assert_eq!(finer.logits[..8], [0.0, 1.0, 3.0, 4.0, 0.0, 1.0, 3.0, 4.0]);
        assert!(finer.logits[8..].iter().all(|&v| v == 10.0));
        assert_eq!(mask.resized(2, 1), mask);
    }

    #[test]
    fn each_class_is_averaged_over_the_teachers_that_know_it() {
        let one = |a: f32, b: f32| SoftMask { width: 1, height: 1, logits: vec![a, b, UNKNOWN_CLASS] };
        let known = [vec![true, true, false], vec![true, false, false]];
        let mean = SoftMask::mean(&[one(1.0, 5.0), one(3.0, UNKNOWN_CLASS)], &known, 1, 1);
        assert_eq!(mean.logits, [2.0, 5.0, UNKNOWN_CLASS]);
    }
}
