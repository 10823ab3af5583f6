//! The detection head's logits to scored boxes.

use super::{BoundingBox, Detection};
use crate::student::{Architecture, DetectionLevel};

/// Candidates that go on to non-maximum suppression at most; the best by score.
pub const MAX_CANDIDATES: usize = 1000;

/// Decodes the outputs of an [`Architecture`]'s detection head for one input size, in buffers allocated once.
///
/// Anchors lie at the centres of cells, ((x + ½)·stride, (y + ½)·stride). The distance from an anchor to each side of
/// its box is stride · Σᵢ i · softmax(side logits)ᵢ, the mean of the distribution that generalized focal loss learns
/// (Li et al. 2020, "Generalized Focal Loss", section 3.2). A score is the sigmoid of a class logit.
#[derive(Debug)]
pub struct HeadDecoder {
    levels: Vec<LevelGrid>,
    classes: usize,
    bins: usize,
    candidates: Vec<Candidate>,
}

/// One level's cells.
#[derive(Debug, Clone, Copy)]
struct LevelGrid {
    level: DetectionLevel,
    width: usize,
    cells: usize,
}

/// A class at an anchor whose logit is above the threshold.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    logit: f32,
    level: u32,
    class: u32,
    cell: u32,
}

impl HeadDecoder {
    /// A decoder for an input of `width` × `height` pixels.
    pub fn new(architecture: &Architecture, width: usize, height: usize) -> Self {
        let grid = |level: DetectionLevel| LevelGrid {
            level,
            width: width / level.stride,
            cells: (width / level.stride) * (height / level.stride),
        };
        let levels: Vec<_> = Architecture::detection_levels().map(grid).into();
        let classes = architecture.detection.classes.len();
        let anchors: usize = levels.iter().map(|l| l.cells).sum();
        Self { levels, classes, bins: architecture.detection.bins, candidates: Vec::with_capacity(anchors * classes) }
    }

    /// Capacity that lets [`decode`](Self::decode) fill a vector without allocation.
    pub fn max_detections(&self) -> usize {
        self.candidates.capacity().min(MAX_CANDIDATES)
    }

    /// Replaces `detections` by the candidates that score above `threshold` (0 to 1), in input pixels, unsuppressed and
    /// in no particular order; `output` gives the graph's outputs by index.
    ///
    /// Values that are not finite yield no detection.
    pub fn decode<'a>(&mut self, output: impl Fn(usize) -> &'a [f32], threshold: f32, detections: &mut Vec<Detection>) {
        self.collect_candidates(&output, logit(threshold));
        if self.candidates.len() > MAX_CANDIDATES {
            // Ties at the cut go by place, so that the same logits always give the same boxes.
            let place = |c: &Candidate| (c.level, c.class, c.cell);
            self.candidates.select_nth_unstable_by(MAX_CANDIDATES, |a, b| {
                b.logit.total_cmp(&a.logit).then_with(|| place(a).cmp(&place(b)))
            });
            self.candidates.truncate(MAX_CANDIDATES);
        }
        detections.clear();
        for candidate in &self.candidates {
            let grid = self.levels[candidate.level as usize];
            let bbox = decode_box(output(grid.level.sides), grid, candidate.cell as usize, self.bins);
            if bbox.is_finite() {
                detections.push(Detection { class: candidate.class as usize, score: sigmoid(candidate.logit), bbox });
            }
        }
    }

    fn collect_candidates<'a>(&mut self, output: &impl Fn(usize) -> &'a [f32], threshold: f32) {
        self.candidates.clear();
        for (level, grid) in self.levels.iter().enumerate() {
            let logits = output(grid.level.class);
            for (class, plane) in logits.chunks_exact(grid.cells).take(self.classes).enumerate() {
                for (cell, &logit) in plane.iter().enumerate() {
                    // Not-a-number is above no threshold.
                    if logit > threshold && logit < f32::INFINITY {
                        let (level, class, cell) = (level as u32, class as u32, cell as u32);
                        self.candidates.push(Candidate { logit, level, class, cell });
                    }
                }
            }
        }
    }
}

fn decode_box(sides: &[f32], grid: LevelGrid, cell: usize, bins: usize) -> BoundingBox {
    let stride = grid.level.stride as f32;
    let x = ((cell % grid.width) as f32 + 0.5) * stride;
    let y = ((cell / grid.width) as f32 + 0.5) * stride;
    let distance = |side: usize| {
        let logits = (0..bins).map(|bin| sides[(side * bins + bin) * grid.cells + cell]);
        stride * softmax_mean(logits)
    };
    BoundingBox { x_min: x - distance(0), y_min: y - distance(1), x_max: x + distance(2), y_max: y + distance(3) }
}

/// Σᵢ i · softmax(logits)ᵢ.
fn softmax_mean(logits: impl Iterator<Item = f32> + Clone) -> f32 {
    let largest = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    let (mut total, mut weighted) = (0.0, 0.0);
    for (i, logit) in logits.enumerate() {
        let e = (logit - largest).exp();
        total += e;
        weighted += i as f32 * e;
    }
    weighted / total
}

/// 1 / (1 + e⁻ˣ).
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The inverse of [`sigmoid`]: −∞ at 0 and ∞ at 1.
pub fn logit(p: f32) -> f32 {
    (p / (1.0 - p)).ln()
}
