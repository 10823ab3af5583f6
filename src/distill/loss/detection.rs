//! The detection head's losses: generalized focal loss (Li et al. 2020) with a teacher's softened class outputs.

use candle_core::{Device, Result, Tensor, D};
use candle_nn::ops::{log_softmax, sigmoid, softmax};
use peregrine_core::BoundingBox;
use serde::{Deserialize, Serialize};

use super::assign::Cell;
use super::soft;
use crate::teacher::UNKNOWN;
use crate::train::config::is_default;

/// Weights of the terms, and how much the teacher counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectionLossConfig {
    /// α: share of the teacher where an object has both a label and a teacher's opinion, 0 to 1.
    pub alpha: f64,
    /// T, above 0.
    pub temperature: f64,
    /// Weight of the generalized IoU term.
    pub box_weight: f64,
    /// Weight of the side-distribution term.
    pub side_weight: f64,
    /// ε of label smoothing (Szegedy et al. 2016, section 7), in both heads: of a labelled class's target a share ε goes to
    /// all classes alike.
    #[serde(skip_serializing_if = "is_default")]
    pub label_smoothing: f64,
}

impl Default for DetectionLossConfig {
    fn default() -> Self {
        Self { alpha: 0.5, temperature: 2.0, box_weight: 2.0, side_weight: 0.25, label_smoothing: 0.0 }
    }
}

/// A cell that answers for an object.
#[derive(Debug, Clone)]
pub struct Positive {
    /// Row of the logits.
    pub row: u32,
    pub cell: Cell,
    /// Input pixels.
    pub bbox: BoundingBox,
    /// The label's class, where there is a label.
    pub label: Option<usize>,
    /// The teacher's class logits, where it saw the object; [`UNKNOWN`] for classes that it does not know.
    pub teacher: Option<Vec<f32>>,
    /// Confidence in the box: 1 for a label, the teacher's score otherwise.
    pub confidence: f32,
    /// How much of the input its picture makes up, 0 to 1: below 1 where two are blended.
    pub share: f32,
}

impl Positive {
    /// Of what its picture teaches about a class the part that the teacher has, where it knows the class: α beside a label,
    /// all without one.
    fn teachers_part(&self, alpha: f64) -> f32 {
        self.label.map_or(1.0, |_| alpha as f32)
    }

    fn teacher_knows(&self, class: usize) -> bool {
        self.teacher.as_ref().is_some_and(|logits| logits[class] != UNKNOWN)
    }
}

/// What a batch's rows are taught.
#[derive(Debug, Clone, Default)]
pub struct DetectionTargets {
    pub positives: Vec<Positive>,
    /// `[rows · classes]`: 1 where the absence of a label means absence, else 0.
    pub known: Vec<f32>,
}

/// The terms, each already weighted; their sum is the loss.
pub struct DetectionLoss {
    pub class: Tensor,
    pub teacher: Tensor,
    pub bbox: Tensor,
    pub sides: Tensor,
}

/// The losses of `class` logits `[rows, classes]` and `sides` logits `[rows, 4·bins]`.
///
/// Class term: quality focal loss (eq. 3 there, β = 2), whose target at a positive cell is the IoU of its predicted box.
/// Where the teacher has an opinion, `α·T²·KL` joins in and the label's class counts `1 − α`; an object that only the
/// teacher saw is learnt from the teacher alone. Box and side terms weigh an object by the confidence in its box. All terms
/// are divided by the number of positives.
///
/// Where two pictures are blended, targets are blended too, as in mixup's eq. 1 (Zhang et al. 2018): a cell that answers for
/// an object of the one, with a `share` λ of the input, shows background of the other. So its target is λ·IoU, the teacher's
/// divergence counts λ and leaves the rest to the background, and box, sides and the number of positives count λ as well.
pub fn loss(
    class: &Tensor,
    sides: &Tensor,
    targets: &DetectionTargets,
    config: &DetectionLossConfig,
) -> Result<DetectionLoss> {
    let (rows, classes) = class.dims2()?;
    let bins = sides.dim(1)? / 4;
    let positives = &targets.positives;
    let scale = 1.0 / positives.iter().map(|p| f64::from(p.share)).sum::<f64>().max(1.0);
    let mut quality = vec![0.0f32; rows * classes];
    let mut weight = targets.known.clone();
    if positives.is_empty() {
        let class = (quality_focal(class, &quality, &weight)? * scale)?;
        let zero = Tensor::zeros((), class.dtype(), &Device::Cpu)?;
        return Ok(DetectionLoss { class, teacher: zero.clone(), bbox: zero.clone(), sides: zero });
    }

    let index = Tensor::from_iter(positives.iter().map(|p| p.row), &Device::Cpu)?;
    let sides = sides.index_select(&index, 0)?.reshape((positives.len() * 4, bins))?;
    let distances = expected_distances(&sides, positives.len())?;
    let (overlap, bbox) = generalized_iou(&distances, positives)?;
    let confidence = Tensor::from_iter(positives.iter().map(|p| p.confidence * p.share), &Device::Cpu)?;
    let bbox = ((bbox * &confidence)?.sum_all()? * (config.box_weight * scale))?;
    let side = distribution_focal(&sides, positives, bins)?.reshape((positives.len(), 4))?.mean(D::Minus1)?;
    let sides = ((side * &confidence)?.sum_all()? * (config.side_weight * scale))?;

    for (positive, overlap) in positives.iter().zip(overlap) {
        let row = positive.row as usize * classes;
        let cell = weight[row..row + classes].iter_mut().zip(&mut quality[row..row + classes]);
        for (class, (weight, quality)) in cell.enumerate() {
            let teacher = if positive.teacher_knows(class) { positive.teachers_part(config.alpha) } else { 0.0 };
            let rest = 1.0 - teacher * positive.share;
            let Some(label) = positive.label else {
                *weight *= rest;
                continue;
            };
            let smoothing = config.label_smoothing as f32;
            let smoothed = smoothing / classes as f32 + if class == label { 1.0 - smoothing } else { 0.0 };
            // The label's part of what is left beside the teacher; all of it where nothing is blended.
            let part = if rest > 0.0 { (1.0 - teacher) * positive.share / rest } else { 0.0 };
            *quality = overlap * smoothed * part;
            *weight = if class == label { rest } else { *weight * rest };
        }
    }
    let class_loss = (quality_focal(class, &quality, &weight)? * scale)?;
    let teacher = (teacher_term(class, positives, config)? * scale)?;
    Ok(DetectionLoss { class: class_loss, teacher, bbox, sides })
}

/// Σ part · T²·KL over the positives that the teacher saw and the classes that it knows.
fn teacher_term(class: &Tensor, positives: &[Positive], config: &DetectionLossConfig) -> Result<Tensor> {
    let seen: Vec<(&Positive, &Vec<f32>)> =
        positives.iter().filter_map(|p| p.teacher.as_ref().map(|logits| (p, logits))).collect();
    if seen.is_empty() {
        return Tensor::zeros((), class.dtype(), &Device::Cpu);
    }
    let shape = (seen.len(), class.dim(1)?);
    let index = Tensor::from_iter(seen.iter().map(|(p, _)| p.row), &Device::Cpu)?;
    let part = Tensor::from_iter(seen.iter().map(|(p, _)| p.teachers_part(config.alpha) * p.share), &Device::Cpu)?;
    let logits = || seen.iter().flat_map(|(_, logits)| logits.iter().copied());
    let known: Vec<f32> = logits().map(|v| f32::from(u8::from(v != UNKNOWN))).collect();
    let known = Tensor::from_vec(known, shape, &Device::Cpu)?;
    let teacher = logits().map(|v| if v == UNKNOWN { 0.0 } else { v }).collect();
    let teacher = Tensor::from_vec(teacher, shape, &Device::Cpu)?;
    let terms = soft::bernoulli_terms(&class.index_select(&index, 0)?, &teacher, config.temperature)?;
    let divergence = ((terms * known)?.sum(1)? * (config.temperature * config.temperature))?;
    (divergence * part)?.sum_all()
}

/// Σ weight · |y − σ|² · BCE(σ, y).
fn quality_focal(logits: &Tensor, quality: &[f32], weight: &[f32]) -> Result<Tensor> {
    let quality = Tensor::from_slice(quality, logits.shape(), &Device::Cpu)?;
    let weight = Tensor::from_slice(weight, logits.shape(), &Device::Cpu)?;
    let modulation = (sigmoid(logits)? - &quality)?.sqr()?;
    ((soft::binary_cross_entropy(logits, &quality)? * modulation)? * weight)?.sum_all()
}

/// Distances in strides `[positives, 4]`: the expectation of each side's distribution.
fn expected_distances(sides: &Tensor, positives: usize) -> Result<Tensor> {
    let bins = sides.dim(1)?;
    let support = Tensor::arange(0.0f32, bins as f32, &Device::Cpu)?.reshape((1, bins))?;
    softmax(sides, 1)?.broadcast_mul(&support)?.sum(1)?.reshape((positives, 4))
}

/// IoU (as plain values) and the loss 1 − GIoU (Rezatofighi et al. 2019, algorithm 1) of each positive, `[positives]`.
///
/// Both boxes surround the cell's centre unless the object is tiny, so the overlap is written in distances from it;
/// a side's overlap is clamped at zero where they do not meet.
fn generalized_iou(distances: &Tensor, positives: &[Positive]) -> Result<(Vec<f32>, Tensor)> {
    let target: Vec<f32> = positives.iter().flat_map(target_distances).collect();
    let target = Tensor::from_vec(target, (positives.len(), 4), &Device::Cpu)?;
    let extent = |d: &Tensor| -> Result<(Tensor, Tensor)> {
        let side = |i| d.narrow(1, i, 1)?.squeeze(1);
        Ok(((side(0)? + side(2)?)?.relu()?, (side(1)? + side(3)?)?.relu()?))
    };
    let area = |d: &Tensor| extent(d).and_then(|(w, h)| w * h);
    let overlap = area(&distances.minimum(&target)?)?;
    let hull = (area(&distances.maximum(&target)?)? + 1e-6)?;
    let union = (((area(distances)? + area(&target)?)? - &overlap)? + 1e-6)?;
    let iou = (overlap / &union)?;
    let plain = iou.to_vec1::<f32>()?;
    let gap = ((&hull - &union)? / &hull)?;
    Ok((plain, ((1.0 - iou)? + gap)?))
}

/// Cross-entropy against the two bins on either side of each target distance (eq. 6 there), `[positives · 4]`.
fn distribution_focal(sides: &Tensor, positives: &[Positive], bins: usize) -> Result<Tensor> {
    let mut target = vec![0.0f32; positives.len() * 4 * bins];
    let wanted = positives.iter().flat_map(target_distances);
    for (row, distance) in target.chunks_mut(bins).zip(wanted) {
        let distance = distance.clamp(0.0, bins as f32 - 1.0 - 1e-3);
        let below = distance.floor();
        row[below as usize] = 1.0 - (distance - below);
        row[below as usize + 1] = distance - below;
    }
    let target = Tensor::from_vec(target, (positives.len() * 4, bins), &Device::Cpu)?;
    (log_softmax(sides, 1)? * target)?.sum(1)?.neg()
}

/// From the cell's centre to left, top, right, bottom, in strides.
fn target_distances(p: &Positive) -> [f32; 4] {
    let Cell { x, y, stride } = p.cell;
    [(x - p.bbox.x_min), (y - p.bbox.y_min), (p.bbox.x_max - x), (p.bbox.y_max - y)].map(|d| d / stride)
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use crate::net::check::values;

    const BINS: usize = 4;

    fn positive(row: u32, label: Option<usize>, teacher: Option<Vec<f32>>) -> Positive {
        let cell = Cell { x: 20.0, y: 12.0, stride: 8.0 };
        let bbox = BoundingBox::new(9.0, 5.0, 33.0, 17.0);
        Positive { row, cell, bbox, label, teacher, confidence: 0.8, share: 1.0 }
    }

    fn targets() -> DetectionTargets {
        let positives = vec![
            positive(0, Some(1), None),
            positive(2, Some(0), Some(vec![1.5, -2.0])),
            positive(3, None, Some(vec![-1.0, 0.5])),
        ];
        DetectionTargets { positives, known: vec![1.0; 10] }
    }

    fn tensor(values: &[f32], shape: (usize, usize)) -> Tensor {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn box_terms_are_differentiated_rightly() {
        let class = tensor(&values(10, 1), (5, 2));
        let sides = values(5 * 4 * BINS, 2);
        check::gradient(&sides, (5, 4 * BINS), |sides| {
            let loss = loss(&class, sides, &targets(), &Default::default())?;
            loss.bbox + loss.sides
        });
    }

    #[test]
    fn class_terms_are_differentiated_rightly() {
        let sides = tensor(&values(5 * 4 * BINS, 2), (5, 4 * BINS));
        check::gradient(&values(10, 1), (5, 2), |class| {
            let loss = loss(class, &sides, &targets(), &Default::default())?;
            loss.class + loss.teacher
        });
    }

    #[test]
    fn generalized_iou_equals_boxes_worked_out_by_hand() {
        // Predicted: one stride to each side, 16 × 16 pixels around (20, 12); target: 24 × 12 as above.
        let distances = tensor(&[1.0; 4], (1, 4));
        let (iou, loss) = generalized_iou(&distances, &[positive(0, Some(0), None)]).unwrap();
        let (overlap, union, hull) = (16.0 * 12.0f32, 256.0, 24.0 * 16.0);
        let union = union + 24.0 * 12.0 - overlap;
        assert!((iou[0] - overlap / union).abs() < 1e-5);
        let expected = 1.0 - overlap / union + (hull - union) / hull;
        assert!((loss.to_vec1::<f32>().unwrap()[0] - expected).abs() < 1e-5);
    }

    #[test]
    fn alpha_one_leaves_a_seen_label_to_the_teacher() {
        let class = tensor(&values(10, 1), (5, 2));
        let sides = tensor(&values(5 * 4 * BINS, 2), (5, 4 * BINS));
        let with = |label| {
            let mut targets = targets();
            targets.positives = vec![positive(2, label, Some(vec![1.5, -2.0]))];
            let config = DetectionLossConfig { alpha: 1.0, ..Default::default() };
            let loss = loss(&class, &sides, &targets, &config).unwrap();
            (loss.class + loss.teacher).unwrap().to_scalar::<f32>().unwrap()
        };
        assert!((with(Some(0)) - with(None)).abs() < 1e-6);
    }

    #[test]
    fn a_batch_without_objects_teaches_absence_where_it_is_known() {
        let class = tensor(&[-1.0, 2.0], (1, 2));
        let sides = tensor(&[0.0; 16], (1, 16));
        let targets = DetectionTargets { positives: vec![], known: vec![0.0, 1.0] };
        let loss = loss(&class, &sides, &targets, &Default::default()).unwrap();
        let sigma = 1.0 / (1.0 + (-2.0f32).exp());
        let expected = -sigma * sigma * (1.0 - sigma).ln();
        assert!((loss.class.to_scalar::<f32>().unwrap() - expected).abs() < 1e-5);
    }

    fn sigma(z: f32) -> f64 {
        1.0 / (1.0 + (-f64::from(z)).exp())
    }

    /// |y − σ|² · BCE(σ, y) in f64.
    fn focal(z: f32, y: f64) -> f64 {
        let p = sigma(z);
        (y - p).powi(2) * -(y * p.ln() + (1.0 - y) * (1.0 - p).ln())
    }

    /// T²·KL of two Bernoulli distributions in f64, at the default temperature of 2.
    fn divergence(student: f32, teacher: f32) -> f64 {
        let (q, p) = (sigma(student / 2.0), sigma(teacher / 2.0));
        4.0 * (p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln())
    }

    /// The class and teacher terms for one positive, and the IoU of its predicted box.
    fn terms(logits: [f32; 2], positive: Positive, config: &DetectionLossConfig) -> (f64, f64, f64) {
        let sides = tensor(&values(4 * BINS, 2), (1, 4 * BINS));
        let distances = expected_distances(&sides.reshape((4, BINS)).unwrap(), 1).unwrap();
        let iou = generalized_iou(&distances, std::slice::from_ref(&positive)).unwrap().0[0];
        let targets = DetectionTargets { positives: vec![positive], known: vec![1.0; 2] };
        let loss = loss(&tensor(&logits, (1, 2)), &sides, &targets, config).unwrap();
        let value = |t: Tensor| f64::from(t.to_scalar::<f32>().unwrap());
        (value(loss.class), value(loss.teacher), f64::from(iou))
    }

    #[test]
    fn a_blended_picture_s_label_is_taught_by_its_share_of_the_target() {
        let [a, b] = [0.4, -0.7];
        let share = 0.25f32;
        let positive = Positive { share, ..positive(0, Some(1), None) };
        let (class, teacher, iou) = terms([a, b], positive, &Default::default());
        let expected = focal(a, 0.0) + focal(b, 0.25 * iou);
        assert!((class - expected).abs() < 1e-5 && teacher == 0.0, "{class}, not {expected}");
    }

    #[test]
    fn a_blended_pseudo_label_leaves_the_rest_of_its_cell_to_the_other_picture_s_background() {
        let ([a, b], [p, q]) = ([0.4, -0.7], [-1.0, 2.0]);
        for (share, alpha, label) in [(0.25f32, 0.5, None), (0.25, 0.5, Some(1)), (1.0, 0.5, Some(1)), (1.0, 0.5, None)]
        {
            let positive = Positive { share, ..positive(0, label, Some(vec![p, q])) };
            let (class, teacher, iou) = terms([a, b], positive, &Default::default());
            let (share, part) = (f64::from(share), if label.is_some() { alpha } else { 1.0 });
            let rest = 1.0 - share * part;
            let target = if label.is_some() { iou * share * (1.0 - part) / rest } else { 0.0 };
            let expected = rest * (focal(a, 0.0) + focal(b, target));
            assert!((class - expected).abs() < 1e-5, "{label:?} {share}: {class}, not {expected}");
            let expected = share * part * (divergence(a, p) + divergence(b, q));
            assert!((teacher - expected).abs() < 1e-5, "{label:?} {share}: {teacher}, not {expected}");
        }
    }

    #[test]
    fn a_class_that_the_teacher_does_not_know_is_learnt_from_the_label_alone() {
        let [a, b] = [0.4, -0.7];
        let seen = positive(0, Some(1), Some(vec![-1.0, UNKNOWN]));
        let (class, teacher, iou) = terms([a, b], seen, &Default::default());
        assert!((class - (0.5 * focal(a, 0.0) + focal(b, iou))).abs() < 1e-5);
        assert!((teacher - 0.5 * divergence(a, -1.0)).abs() < 1e-5);
    }

    #[test]
    fn a_smoothed_label_gives_its_share_of_the_target_to_all_classes_alike() {
        let [a, b] = [0.4, -0.7];
        let config = DetectionLossConfig { label_smoothing: 0.2, ..Default::default() };
        let (class, _, iou) = terms([a, b], positive(0, Some(1), None), &config);
        let expected = focal(a, 0.1 * iou) + focal(b, 0.9 * iou);
        assert!((class - expected).abs() < 1e-5, "{class}, not {expected}");
    }

    #[test]
    fn box_and_side_terms_weigh_an_object_by_its_score_and_share() {
        let sides = tensor(&values(5 * 4 * BINS, 2), (5, 4 * BINS));
        let class = tensor(&values(10, 1), (5, 2));
        let of = |confidence, share| {
            let rows = [(0, 1.0, 1.0), (2, confidence, share)];
            let positives =
                rows.map(|(row, confidence, share)| Positive { confidence, share, ..positive(row, Some(1), None) });
            let targets = DetectionTargets { positives: positives.into(), known: vec![1.0; 10] };
            let loss = loss(&class, &sides, &targets, &Default::default()).unwrap();
            [loss.bbox, loss.sides].map(|t| f64::from(t.to_scalar::<f32>().unwrap()))
        };
        let (none, whole) = (of(0.0, 1.0), of(1.0, 1.0));
        for ((part, blended), (none, whole)) in of(0.3, 1.0).iter().zip(of(0.6, 0.5)).zip(none.iter().zip(whole)) {
            let expected = none + 0.3 * (whole - none);
            assert!((part - expected).abs() < 1e-5, "{part}, not {expected}");
            // Two objects, of which one and a half are in the input.
            assert!((blended - expected * 2.0 / 1.5).abs() < 1e-5, "{blended}");
        }
    }
}
