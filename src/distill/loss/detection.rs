//! The detection head's losses: generalized focal loss (Li et al. 2020), and distillation of a
//! teacher's class logits.

use serde::{Deserialize, Serialize};

use super::boxes::{distribution_focal, expected_distances, generalized_iou};
use super::soft;
use super::targets::DetectionTargets;
use crate::defaults::is_default;
use crate::ranks::Ranks;
use crate::teacher::UNKNOWN;
use crate::tensor::{Result, Tensor};

/// Weights of the loss terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectionLossConfig {
    /// α: the teacher's weight beside a label, 0 to 1; the label's is 1 − α.
    pub alpha: f64,
    /// T of distillation, above 0.
    pub temperature: f64,
    /// Weight of the generalized IoU term.
    pub box_weight: f64,
    /// Weight of the box distribution's term (DFL).
    #[serde(rename = "side_weight")]
    pub box_distribution_weight: f64,
    /// ε of label smoothing (Szegedy et al. 2016, section 7), in both heads: a share ε of a
    /// labelled class's target is divided equally among all classes.
    #[serde(skip_serializing_if = "is_default")]
    pub label_smoothing: f64,
}

impl Default for DetectionLossConfig {
    fn default() -> Self {
        Self { alpha: 0.5, temperature: 2.0, box_weight: 2.0, box_distribution_weight: 0.25, label_smoothing: 0.0 }
    }
}

/// The terms, each already weighted; their sum is the loss.
pub struct DetectionLoss {
    pub class: Tensor,
    pub teacher: Tensor,
    pub bbox: Tensor,
    pub box_distribution: Tensor,
}

/// The losses of `class` logits `[rows, classes]` and `box_distribution` logits `[rows, 4·bins]`.
///
/// Class term: quality focal loss (eq. 3 there, β = 2), whose target at a positive anchor is the
/// IoU of its predicted box. If there are teacher logits, `α·T²·KL` is added and the label's class
/// weighs `1 − α`; an object that only the teacher detected is learnt from the teacher alone. The
/// box terms weigh an object by the confidence in its box. All terms are divided by the number of
/// positives that all `ranks` have.
///
/// Under mixup the targets are blended as the images are (eq. 1 in Zhang et al. 2018): a positive
/// anchor whose image has the weight λ (`share`) shows background of the other image. So its target
/// is λ·IoU, the teacher's divergence weighs λ and the remainder is background, and the box terms
/// and the number of positives weigh λ as well.
pub fn loss(
    class: &Tensor,
    box_distribution: &Tensor,
    targets: &DetectionTargets,
    config: &DetectionLossConfig,
    ranks: &Ranks,
) -> Result<DetectionLoss> {
    let bins = box_distribution.dim(1)? / 4;
    let scale = 1.0 / ranks.total(targets.positives.iter().map(|p| f64::from(p.share)).sum()).max(1.0);
    if targets.slots() == 0 {
        let quality = (class.detach() * 0.0)?;
        let weight = Tensor::from_slice(&targets.known, class.dims())?;
        let class = (quality_focal(class, &quality, &weight)? * scale)?;
        return Ok(DetectionLoss { class, ..DetectionLoss::zero() });
    }

    let distribution = box_distribution.index_select(&targets.rows(), 0)?.rows_of(bins)?;
    let (ious, bbox) = generalized_iou(&expected_distances(&distribution)?, targets)?;
    let confidence = Tensor::vector(targets.of_slots(0.0, |p| p.confidence * p.share))?;
    let bbox = ((bbox * &confidence)?.sum_all()? * (config.box_weight * scale))?;
    let dfl = distribution_focal(&distribution, targets, bins)?.rows_of(4)?.mean(1)?;
    let box_distribution = ((dfl * &confidence)?.sum_all()? * (config.box_distribution_weight * scale))?;

    let (quality, weight) = class_targets(targets, &ious.detach(), class, config)?;
    let class_loss = (quality_focal(class, &quality, &weight)? * scale)?;
    let teacher = (teacher_term(class, targets, config)? * scale)?;
    Ok(DetectionLoss { class: class_loss, teacher, bbox, box_distribution })
}

impl DetectionLoss {
    /// That of a network without a detection head.
    pub fn zero() -> Self {
        let zero = Tensor::scalar(0.0);
        Self { class: zero.clone(), teacher: zero.clone(), bbox: zero.clone(), box_distribution: zero }
    }
}

/// The class term's targets and weights, of the shape of `logits`; `ious` are those of the positives,
/// `[slots]`.
fn class_targets(
    targets: &DetectionTargets,
    ious: &Tensor,
    logits: &Tensor,
    config: &DetectionLossConfig,
) -> Result<(Tensor, Tensor)> {
    let (rows, classes) = logits.dims2()?;
    // What a positive's target is of its IoU.
    let mut share_of_iou = vec![0.0f32; targets.slots() * classes];
    let mut weight = targets.known.clone();
    let smoothing = config.label_smoothing as f32;
    for (positive, shares) in targets.positives.iter().zip(share_of_iou.chunks_mut(classes)) {
        let row = positive.row as usize * classes;
        let cell = weight[row..row + classes].iter_mut().zip(shares);
        for (class, (weight, share)) in cell.enumerate() {
            let teacher = positive.teacher_weight(class, config.alpha);
            let rest = 1.0 - teacher * positive.share;
            let Some(label) = positive.label else {
                *weight *= rest;
                continue;
            };
            let smoothed = smoothing / classes as f32 + if class == label { 1.0 - smoothing } else { 0.0 };
            // The label's part of what remains beside the teacher; all of it without mixup.
            let part = if rest > 0.0 { (1.0 - teacher) * positive.share / rest } else { 0.0 };
            *share = smoothed * part;
            *weight = if class == label { rest } else { *weight * rest };
        }
    }
    let share_of_iou = Tensor::from_vec(share_of_iou, &[targets.slots(), classes])?;
    let quality = ious.unsqueeze(1)?.broadcast_mul(&share_of_iou)?.scatter_rows(&targets.rows(), rows)?;
    Ok((quality, Tensor::from_vec(weight, &[rows, classes])?))
}

/// Σ weight · T²·KL over the positives that have teacher logits and the classes that the teacher
/// knows.
fn teacher_term(class: &Tensor, targets: &DetectionTargets, config: &DetectionLossConfig) -> Result<Tensor> {
    if targets.positives.iter().all(|p| p.teacher_logits.is_none()) {
        return Ok(Tensor::scalar(0.0));
    }
    let shape = [targets.slots(), class.dim(1)?];
    let weight = Tensor::vector(targets.of_slots(0.0, |p| p.alpha(config.alpha) * p.share))?;
    let unknown = vec![UNKNOWN; shape[1]];
    let logits = targets.of_slots(unknown.clone(), |p| p.teacher_logits.as_ref().unwrap_or(&unknown).clone()).concat();
    let known = Tensor::from_vec(logits.iter().map(|&v| f32::from(u8::from(v != UNKNOWN))).collect(), &shape)?;
    let teacher = logits.iter().map(|&v| if v == UNKNOWN { 0.0 } else { v }).collect();
    let teacher = Tensor::from_vec(teacher, &shape)?;
    let terms = soft::bernoulli_terms(&class.index_select(&targets.rows(), 0)?, &teacher, config.temperature)?;
    let divergence = ((terms * known)?.sum(1)? * (config.temperature * config.temperature))?;
    (divergence * weight)?.sum_all()
}

/// Σ weight · |y − σ|² · BCE(σ, y).
fn quality_focal(logits: &Tensor, quality: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let modulation = (logits.sigmoid()? - quality)?.sqr()?;
    ((soft::binary_cross_entropy(logits, quality)? * modulation)? * weight)?.sum_all()
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use crate::loss::assign::Cell;
    use crate::loss::targets::Positive;
    use crate::net::check::values;
    use peregrine_core::BoundingBox;

    const BINS: usize = 4;

    fn positive(row: u32, label: Option<usize>, teacher_logits: Option<Vec<f32>>) -> Positive {
        let cell = Cell { x: 20.0, y: 12.0, stride: 8.0 };
        let bbox = BoundingBox::new(9.0, 5.0, 33.0, 17.0);
        Positive { row, cell, bbox, label, teacher_logits, confidence: 0.8, share: 1.0 }
    }

    fn targets() -> DetectionTargets {
        let positives = vec![
            positive(0, Some(1), None),
            positive(2, Some(0), Some(vec![1.5, -2.0])),
            positive(3, None, Some(vec![-1.0, 0.5])),
        ];
        DetectionTargets { positives, known: vec![1.0; 10], room: 0 }
    }

    fn tensor(values: &[f32], shape: (usize, usize)) -> Tensor {
        Tensor::from_slice(values, &[shape.0, shape.1]).unwrap()
    }

    #[test]
    fn box_terms_agree_with_finite_differences() {
        let class = tensor(&values(10, 1), (5, 2));
        let distribution = values(5 * 4 * BINS, 2);
        check::gradient(&distribution, (5, 4 * BINS), |distribution| {
            let loss = loss(&class, distribution, &targets(), &Default::default(), &Ranks::alone())?;
            loss.bbox + loss.box_distribution
        });
    }

    #[test]
    fn class_terms_agree_with_finite_differences() {
        let distribution = tensor(&values(5 * 4 * BINS, 2), (5, 4 * BINS));
        check::gradient(&values(10, 1), (5, 2), |class| {
            let loss = loss(class, &distribution, &targets(), &Default::default(), &Ranks::alone())?;
            loss.class + loss.teacher
        });
    }

    #[test]
    fn generalized_iou_equals_a_value_computed_by_hand() {
        // Predicted: one stride to each side, 16 × 16 pixels around (20, 12); target: 24 × 12 as
        // above.
        let distances = tensor(&[1.0; 4], (1, 4));
        let targets = DetectionTargets { positives: vec![positive(0, Some(0), None)], ..Default::default() };
        let (iou, loss) = generalized_iou(&distances, &targets).unwrap();
        let iou = iou.values().unwrap();
        let (overlap, union, hull) = (16.0 * 12.0f32, 256.0, 24.0 * 16.0);
        let union = union + 24.0 * 12.0 - overlap;
        assert!((iou[0] - overlap / union).abs() < 1e-5);
        let expected = 1.0 - overlap / union + (hull - union) / hull;
        assert!((loss.values().unwrap()[0] - expected).abs() < 1e-5);
    }

    #[test]
    fn with_alpha_one_a_detected_label_is_the_teachers_alone() {
        let class = tensor(&values(10, 1), (5, 2));
        let distribution = tensor(&values(5 * 4 * BINS, 2), (5, 4 * BINS));
        let with = |label| {
            let mut targets = targets();
            targets.positives = vec![positive(2, label, Some(vec![1.5, -2.0]))];
            let config = DetectionLossConfig { alpha: 1.0, ..Default::default() };
            let loss = loss(&class, &distribution, &targets, &config, &Ranks::alone()).unwrap();
            (loss.class + loss.teacher).unwrap().value().unwrap()
        };
        assert!((with(Some(0)) - with(None)).abs() < 1e-6);
    }

    #[test]
    fn a_batch_without_objects_teaches_the_known_absence() {
        let class = tensor(&[-1.0, 2.0], (1, 2));
        let distribution = tensor(&[0.0; 16], (1, 16));
        let targets = DetectionTargets { known: vec![0.0, 1.0], ..Default::default() };
        let loss = loss(&class, &distribution, &targets, &Default::default(), &Ranks::alone()).unwrap();
        let sigma = 1.0 / (1.0 + (-2.0f32).exp());
        let expected = -sigma * sigma * (1.0 - sigma).ln();
        assert!((loss.class.value().unwrap() - expected).abs() < 1e-5);
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
        let distribution = tensor(&values(4 * BINS, 2), (1, 4 * BINS));
        let distances = expected_distances(&distribution.rows_of(BINS).unwrap()).unwrap();
        let targets = DetectionTargets { positives: vec![positive], known: vec![1.0; 2], room: 0 };
        let iou = generalized_iou(&distances, &targets).unwrap().0.values().unwrap()[0];
        let loss = loss(&tensor(&logits, (1, 2)), &distribution, &targets, config, &Ranks::alone()).unwrap();
        let value = |t: Tensor| f64::from(t.value().unwrap());
        (value(loss.class), value(loss.teacher), f64::from(iou))
    }

    #[test]
    fn a_label_under_mixup_weighs_its_image_s_share() {
        let [a, b] = [0.4, -0.7];
        let share = 0.25f32;
        let positive = Positive { share, ..positive(0, Some(1), None) };
        let (class, teacher, iou) = terms([a, b], positive, &Default::default());
        let expected = focal(a, 0.0) + focal(b, 0.25 * iou);
        assert!((class - expected).abs() < 1e-5 && teacher == 0.0, "{class}, not {expected}");
    }

    #[test]
    fn a_pseudo_label_under_mixup_leaves_the_rest_to_background() {
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
    fn a_class_unknown_to_the_teacher_is_learnt_from_the_label() {
        let [a, b] = [0.4, -0.7];
        let detected = positive(0, Some(1), Some(vec![-1.0, UNKNOWN]));
        let (class, teacher, iou) = terms([a, b], detected, &Default::default());
        assert!((class - (0.5 * focal(a, 0.0) + focal(b, iou))).abs() < 1e-5);
        assert!((teacher - 0.5 * divergence(a, -1.0)).abs() < 1e-5);
    }

    #[test]
    fn label_smoothing_divides_its_share_among_all_classes() {
        let [a, b] = [0.4, -0.7];
        let config = DetectionLossConfig { label_smoothing: 0.2, ..Default::default() };
        let (class, _, iou) = terms([a, b], positive(0, Some(1), None), &config);
        let expected = focal(a, 0.1 * iou) + focal(b, 0.9 * iou);
        assert!((class - expected).abs() < 1e-5, "{class}, not {expected}");
    }

    #[test]
    fn box_terms_weigh_an_object_by_its_score_and_share() {
        let distribution = tensor(&values(5 * 4 * BINS, 2), (5, 4 * BINS));
        let class = tensor(&values(10, 1), (5, 2));
        let of = |confidence, share| {
            let rows = [(0, 1.0, 1.0), (2, confidence, share)];
            let positives =
                rows.map(|(row, confidence, share)| Positive { confidence, share, ..positive(row, Some(1), None) });
            let targets = DetectionTargets { positives: positives.into(), known: vec![1.0; 10], room: 0 };
            let loss = loss(&class, &distribution, &targets, &Default::default(), &Ranks::alone()).unwrap();
            [loss.bbox, loss.box_distribution].map(|t| f64::from(t.value().unwrap()))
        };
        let (none, whole) = (of(0.0, 1.0), of(1.0, 1.0));
        for ((part, blended), (none, whole)) in of(0.3, 1.0).iter().zip(of(0.6, 0.5)).zip(none.iter().zip(whole)) {
            let expected = none + 0.3 * (whole - none);
            assert!((part - expected).abs() < 1e-5, "{part}, not {expected}");
            // Two objects with a total weight of one and a half.
            assert!((blended - expected * 2.0 / 1.5).abs() < 1e-5, "{blended}");
        }
    }
}
