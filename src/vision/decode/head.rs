//! The detection head's logits to scored boxes.

use peregrine_core::{BoundingBox, Detection};
use peregrine_student::head::{BoxForm, HeadForm};
use peregrine_student::{Architecture, DetectionLevel};

/// Candidates that go on to non-maximum suppression at most; the best by score.
pub const MAX_CANDIDATES: usize = 1000;

/// Candidates held at most until the best are known.
const MAX_HELD: usize = 16 * MAX_CANDIDATES;

/// Decodes the outputs of an [`Architecture`]'s detection head for one input size, in buffers allocated once.
///
/// What the values of a cell stand for is the head's form; [`HeadForm`] cites the papers. A score is the sigmoid of a
/// class logit, times that of the objectness where there is one.
#[derive(Debug)]
pub struct HeadDecoder {
    levels: Vec<LevelGrid>,
    classes: usize,
    form: HeadForm,
    candidates: Vec<Candidate>,
}

/// One level's cells.
#[derive(Debug, Clone, Copy)]
struct LevelGrid {
    level: DetectionLevel,
    width: usize,
    cells: usize,
    /// Boxes in each cell.
    anchors: usize,
}

/// A class at an anchor whose logit is above the threshold.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    logit: f32,
    level: u32,
    class: u32,
    /// The number of its anchor, times the level's cells, plus its cell.
    place: u32,
}

impl HeadDecoder {
    /// A decoder for an input of `width` × `height` pixels.
    pub fn new(architecture: &Architecture, width: usize, height: usize) -> Self {
        let form = architecture.head_form().unwrap_or(HeadForm::own(0));
        let grid = |(index, level): (usize, DetectionLevel)| {
            let columns = width.div_ceil(level.stride);
            let cells = columns * height.div_ceil(level.stride);
            LevelGrid { level, width: columns, cells, anchors: form.boxes.anchors(index) }
        };
        let levels: Vec<_> = architecture.detection_levels().into_iter().enumerate().map(grid).collect();
        let classes = architecture.detection_classes().len();
        let places: usize = levels.iter().map(|l| l.cells * l.anchors).sum();
        Self { levels, classes, form, candidates: Vec::with_capacity((places * classes).min(MAX_HELD)) }
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
        self.keep_best();
        detections.clear();
        for candidate in &self.candidates {
            let level = candidate.level as usize;
            let bbox = self.bbox(level, candidate.place as usize, &output);
            if bbox.is_finite() {
                detections.push(Detection { class: candidate.class as usize, score: sigmoid(candidate.logit), bbox });
            }
        }
    }

    /// Calls `found` with the box, in input pixels, and the logits of all classes of each anchor at which one of them
    /// is above `threshold`, a logit.
    pub fn anchors<'a>(
        &self,
        output: impl Fn(usize) -> &'a [f32],
        threshold: f32,
        mut found: impl FnMut(BoundingBox, &[f32]),
    ) {
        let mut logits = vec![0.0; self.classes];
        for (index, grid) in self.levels.iter().enumerate() {
            for place in 0..grid.cells * grid.anchors {
                let at = (place / grid.cells, place % grid.cells);
                let mut any = false;
                for (class, value) in logits.iter_mut().enumerate() {
                    *value = self.logit(grid, &output, class, at);
                    any |= *value > threshold && (!self.form.peaks || self.is_peak(grid, &output, class, at.1));
                }
                let bbox = if any { self.bbox(index, place, &output) } else { continue };
                if bbox.is_finite() {
                    found(bbox, &logits);
                }
            }
        }
    }

    /// Drops all but the best. Ties at the limit are broken by position, so that equal logits always give equal boxes.
    fn keep_best(&mut self) {
        if self.candidates.len() > MAX_CANDIDATES {
            let place = |c: &Candidate| (c.level, c.class, c.place);
            self.candidates.select_nth_unstable_by(MAX_CANDIDATES, |a, b| {
                b.logit.total_cmp(&a.logit).then_with(|| place(a).cmp(&place(b)))
            });
            self.candidates.truncate(MAX_CANDIDATES);
        }
    }

    fn collect_candidates<'a>(&mut self, output: &impl Fn(usize) -> &'a [f32], threshold: f32) {
        self.candidates.clear();
        for level in 0..self.levels.len() {
            let grid = self.levels[level];
            let logits = output(grid.level.class);
            for (plane, values) in logits.chunks_exact(grid.cells).take(grid.anchors * self.classes).enumerate() {
                let (anchor, class) = (plane / self.classes, plane % self.classes);
                for cell in above(values, threshold) {
                    let logit = self.logit(&grid, output, class, (anchor, cell));
                    let counts = logit > threshold && (!self.form.peaks || self.is_peak(&grid, output, class, cell));
                    if counts {
                        if self.candidates.len() == self.candidates.capacity() {
                            self.keep_best();
                        }
                        let place = (anchor * grid.cells + cell) as u32;
                        self.candidates.push(Candidate { logit, level: level as u32, class: class as u32, place });
                    }
                }
            }
        }
    }

    /// The logit of a class's score at an anchor of a cell. With an objectness o and a class logit c the score is
    /// σ(o)·σ(c), whose logit is −ln(e⁻ᵒ + e⁻ᶜ + e⁻ᵒ⁻ᶜ).
    fn logit<'a>(
        &self,
        grid: &LevelGrid,
        output: &impl Fn(usize) -> &'a [f32],
        class: usize,
        (anchor, cell): (usize, usize),
    ) -> f32 {
        let c = output(grid.level.class)[(anchor * self.classes + class) * grid.cells + cell];
        match grid.level.objectness {
            Some(objectness) => {
                let o = output(objectness)[anchor * grid.cells + cell];
                -((-o).exp() + (-c).exp() + (-o - c).exp()).ln()
            }
            None => c,
        }
    }

    /// Whether a class's value is the largest among those of the eight cells around.
    fn is_peak<'a>(&self, grid: &LevelGrid, output: &impl Fn(usize) -> &'a [f32], class: usize, cell: usize) -> bool {
        let plane = &output(grid.level.class)[class * grid.cells..][..grid.cells];
        let (width, height) = (grid.width, grid.cells / grid.width);
        let around = |at: usize, size: usize| at.saturating_sub(1)..(at + 2).min(size);
        let (x, y) = (cell % width, cell / width);
        around(y, height).all(|y| plane[y * width..][around(x, width)].iter().all(|&other| other <= plane[cell]))
    }

    /// The box of an anchor, in input pixels.
    fn bbox<'a>(&self, level: usize, place: usize, output: &impl Fn(usize) -> &'a [f32]) -> BoundingBox {
        let grid = &self.levels[level];
        let (anchor, cell) = (place / grid.cells, place % grid.cells);
        let all = output(grid.level.box_distribution);
        let values = &all[anchor * self.form.boxes.values() * grid.cells..];
        let value = |i: usize| values[i * grid.cells + cell];
        let stride = grid.level.stride as f32;
        let (column, row) = ((cell % grid.width) as f32, (cell / grid.width) as f32);
        let around = |center: f32, distances: [f32; 4]| {
            let (x, y) = ((column + center) * stride, (row + center) * stride);
            let [left, top, right, bottom] = distances.map(|d| stride * d);
            BoundingBox { x_min: x - left, y_min: y - top, x_max: x + right, y_max: y + bottom }
        };
        let of_size = |x: f32, y: f32, width: f32, height: f32| BoundingBox {
            x_min: x - 0.5 * width,
            y_min: y - 0.5 * height,
            x_max: x + 0.5 * width,
            y_max: y + 0.5 * height,
        };
        match &self.form.boxes {
            &BoxForm::Distribution { bins, center } => {
                around(center, std::array::from_fn(|side| softmax_mean((0..bins).map(|bin| value(side * bins + bin)))))
            }
            BoxForm::Distances { center } => around(*center, std::array::from_fn(value)),
            BoxForm::CenterSize => of_size(
                (column + value(0)) * stride,
                (row + value(1)) * stride,
                value(2).exp() * stride,
                value(3).exp() * stride,
            ),
            BoxForm::Anchors { anchors } => {
                let [width, height] = anchors[level][anchor];
                let twice = |i: usize| 2.0 * sigmoid(value(i));
                of_size(
                    (column + twice(0) - 0.5) * stride,
                    (row + twice(1) - 0.5) * stride,
                    twice(2).powi(2) * width,
                    twice(3).powi(2) * height,
                )
            }
        }
    }
}

/// The indices of the finite values above `threshold`. Nearly all lie below it, and are passed over a block at a time.
fn above(values: &[f32], threshold: f32) -> impl Iterator<Item = usize> + '_ {
    const BLOCK: usize = 32;
    // NaN compares below every threshold.
    let counts = move |value: f32| value > threshold && value < f32::INFINITY;
    let blocks = values.chunks(BLOCK).enumerate();
    let some = blocks.filter(move |(_, block)| block.iter().fold(false, |any, &value| any | (value > threshold)));
    some.flat_map(move |(i, block)| (0..block.len()).filter(move |&at| counts(block[at])).map(move |at| i * BLOCK + at))
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
