//! The detection head's logits to scored boxes.

use peregrine_core::{BoundingBox, Detection};
use peregrine_student::{Architecture, DetectionLevel};

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
        let levels: Vec<_> = architecture.detection_levels().into_iter().map(grid).collect();
        let classes = architecture.detection_classes().len();
        let anchors: usize = levels.iter().map(|l| l.cells).sum();
        Self { levels, classes, bins: architecture.bins(), candidates: Vec::with_capacity(anchors * classes) }
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
            // Ties at the limit are broken by position, so that equal logits always give equal boxes.
            let place = |c: &Candidate| (c.level, c.class, c.cell);
            self.candidates.select_nth_unstable_by(MAX_CANDIDATES, |a, b| {
                b.logit.total_cmp(&a.logit).then_with(|| place(a).cmp(&place(b)))
            });
            self.candidates.truncate(MAX_CANDIDATES);
        }
        detections.clear();
        for candidate in &self.candidates {
            let grid = self.levels[candidate.level as usize];
            let bbox = decode_box(output(grid.level.box_distribution), grid, candidate.cell as usize, self.bins);
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
                    // NaN compares below every threshold.
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
pub fn softmax_mean(logits: impl Iterator<Item = f32> + Clone) -> f32 {
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

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64;
    const BINS: usize = 8;

    /// Outputs of a head for a 64 × 64 input in which nothing is found, to be written to.
    struct Outputs(Vec<Vec<f32>>);

    impl Outputs {
        fn empty(classes: usize) -> Self {
            let of = |level: DetectionLevel| {
                let cells = (SIZE / level.stride).pow(2);
                [vec![-9.0; classes * cells], vec![0.0; 4 * BINS * cells]]
            };
            Self(Architecture::default_student().detection_levels().into_iter().flat_map(of).collect())
        }

        /// Sets a class logit, and side logits such that each side's distribution sits in one bin.
        fn put(&mut self, level: usize, cell: usize, class: usize, logit: f32, sides: [usize; 4]) {
            let cells = (SIZE / Architecture::default_student().detection_levels()[level].stride).pow(2);
            self.0[2 * level][class * cells + cell] = logit;
            for (side, bin) in sides.into_iter().enumerate() {
                self.0[2 * level + 1][(side * BINS + bin) * cells + cell] = 40.0;
            }
        }

        fn decode(&self, threshold: f32) -> Vec<Detection> {
            let mut detections = Vec::new();
            HeadDecoder::new(&Architecture::default_student(), SIZE, SIZE).decode(
                |i| &self.0[i],
                threshold,
                &mut detections,
            );
            detections
        }
    }

    #[test]
    fn a_box_lies_around_its_anchor_at_the_distances_of_its_bins() {
        let mut outputs = Outputs::empty(5);
        // Stride 16, four cells across: cell 6 is column 2, row 1, with its anchor at (40, 24).
        outputs.put(1, 6, 3, 2.0, [1, 0, 3, 7]);
        let detections = outputs.decode(0.5);
        assert_eq!(detections.len(), 1);
        assert_eq!(detections[0].class, 3);
        assert!((detections[0].score - 0.880_797).abs() < 1e-6);
        assert_eq!(detections[0].bbox, BoundingBox::new(40.0 - 16.0, 24.0, 40.0 + 48.0, 24.0 + 112.0));
    }

    #[test]
    fn a_distance_is_the_mean_of_its_distribution() {
        // ln 1, ln 2, ln 3, ln 4: probabilities 0.1 to 0.4, with mean 0.2 + 0.6 + 1.2.
        let logits = [1.0f32, 2.0, 3.0, 4.0].map(f32::ln);
        assert!((softmax_mean(logits.into_iter()) - 2.0).abs() < 1e-6);
        assert!((softmax_mean(logits.into_iter().map(|l| l + 500.0)) - 2.0).abs() < 1e-4);
    }

    #[test]
    fn the_threshold_is_exclusive_and_one_anchor_may_have_several_classes() {
        let mut outputs = Outputs::empty(5);
        outputs.put(0, 0, 0, 0.0, [1; 4]);
        outputs.put(0, 0, 1, 0.1, [1; 4]);
        outputs.put(0, 0, 2, 0.2, [1; 4]);
        let classes: Vec<_> = outputs.decode(0.5).iter().map(|d| d.class).collect();
        assert_eq!(classes, [1, 2]);
    }

    #[test]
    fn values_that_are_not_finite_yield_no_detection() {
        let mut outputs = Outputs::empty(5);
        outputs.put(0, 0, 0, f32::NAN, [1; 4]);
        outputs.put(0, 1, 0, f32::INFINITY, [1; 4]);
        outputs.put(0, 2, 0, 3.0, [1; 4]);
        outputs.0[1][2] = f32::NAN;
        assert_eq!(outputs.decode(0.5), []);
    }

    #[test]
    fn too_many_candidates_are_cut_to_the_best() {
        let size = 512;
        let architecture = Architecture::default_student();
        let mut outputs = Vec::new();
        let mut rank = 0;
        for level in architecture.detection_levels() {
            let cells = (size / level.stride).pow(2);
            // Distinct logits from 1 to 2, in no order.
            let logits = (0..5 * cells).map(|_| {
                rank += 1;
                1.0 + ((rank * 7919) % 100_003) as f32 / 100_003.0
            });
            outputs.push(logits.collect::<Vec<f32>>());
            outputs.push(vec![0.0; 4 * BINS * cells]);
        }
        let mut expected: Vec<f32> = [0, 2, 4].iter().flat_map(|&i: &usize| outputs[i].clone()).map(sigmoid).collect();
        expected.sort_by(|a, b| b.total_cmp(a));
        let mut detections = Vec::new();
        HeadDecoder::new(&architecture, size, size).decode(|i| &outputs[i], 0.5, &mut detections);
        let mut scores: Vec<f32> = detections.iter().map(|d| d.score).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        assert_eq!(scores, expected[..MAX_CANDIDATES]);
    }

    #[test]
    fn logit_inverts_sigmoid() {
        for p in [0.001, 0.3, 0.5, 0.9] {
            assert!((sigmoid(logit(p)) - p).abs() < 1e-6);
        }
    }
}
