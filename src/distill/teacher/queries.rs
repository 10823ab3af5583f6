//! Detectors whose candidates are a list: YOLO's anchors and DETR's queries.

use anyhow::{ensure, Context};
use peregrine_vision::decode::head::sigmoid;

use super::candidates::{best_of_groups, soft_target, OutputTensor, MIN_SCORE};
use super::description::{Scores, TeacherDescription};
use super::placement::Placement;
use super::SoftTarget;

/// The candidates of a YOLO-like output; see [`Family::Yolo`](super::description::Family::Yolo).
///
/// # Errors
/// When the tensor has another shape.
pub fn yolo(
    d: &TeacherDescription,
    groups: &[Vec<usize>],
    output: &OutputTensor,
    placement: &Placement,
) -> anyhow::Result<Vec<SoftTarget>> {
    let first = if d.objectness { 5 } else { 4 };
    let needed = first + groups.iter().flatten().max().map_or(0, |c| c + 1);
    let (shape, values) = output;
    let fault = || {
        format!(
            "output {:?} is {shape:?}, which is not [1, values, candidates] or its transpose with at least {needed} values \
             for a candidate ({first} and every class named in [classes])",
            d.outputs[0]
        )
    };
    let &[1, a, b] = shape.as_slice() else { return Err(anyhow::anyhow!(fault())) };
    // There are more candidates than values: 8400 and 84, say.
    let (per_candidate, count, planar) = if a < b { (a, b, true) } else { (b, a, false) };
    ensure!(per_candidate >= needed && values.len() == a * b, "{}", fault());
    let value = |i: usize, v: usize| if planar { values[v * count + i] } else { values[i * per_candidate + v] };
    let probability = |raw: f32| if d.scores == Some(Scores::Sigmoid) { sigmoid(raw) } else { raw };
    let mut found = Vec::new();
    for i in 0..count {
        let objectness = if d.objectness { probability(value(i, 4)) } else { 1.0 };
        let score = |c: usize| objectness * probability(value(i, first + c));
        let probabilities: Vec<f32> = best_of_groups(&score, groups).collect();
        if probabilities.iter().any(|&p| p > MIN_SCORE) {
            let bbox = corners(std::array::from_fn(|v| value(i, v)));
            found.extend(soft_target(placement.to_source(bbox), &probabilities));
        }
    }
    Ok(found)
}

/// The candidates of a DETR-like output; see [`Family::Detr`](super::description::Family::Detr).
///
/// # Errors
/// When a tensor has another shape.
pub fn detr(
    d: &TeacherDescription,
    groups: &[Vec<usize>],
    outputs: &[OutputTensor],
    placement: &Placement,
) -> anyhow::Result<Vec<SoftTarget>> {
    let (logits, boxes) = (&outputs[0], &outputs[1]);
    let classes = *logits.0.last().context("an output without dimensions")?;
    let softmax = d.scores != Some(Scores::Sigmoid);
    let known = classes - usize::from(softmax).min(classes);
    let queries = logits.1.len() / classes.max(1);
    ensure!(
        logits.0.len() == 3 && logits.0[0] == 1 && groups.iter().flatten().all(|&c| c < known),
        "output {:?} is {:?}, which is not [1, queries, {}] with every class named in [classes]",
        d.outputs[0],
        logits.0,
        if softmax { "classes + 1" } else { "classes" }
    );
    ensure!(
        boxes.0 == [1, queries, 4],
        "output {:?} is {:?}, which is not [1, {queries}, 4], a box for each query of {:?}",
        d.outputs[1],
        boxes.0,
        d.outputs[0]
    );
    let mut found = Vec::new();
    for (logits, bbox) in logits.1.chunks(classes).zip(boxes.1.chunks(4)) {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|v| (v - largest).exp()).sum();
        let score = |c: usize| if softmax { (logits[c] - largest).exp() / sum } else { sigmoid(logits[c]) };
        let probabilities: Vec<f32> = best_of_groups(&score, groups).collect();
        if probabilities.iter().any(|&p| p > MIN_SCORE) {
            let bbox = corners(std::array::from_fn(|v| bbox[v] * d.size as f32));
            found.extend(soft_target(placement.to_source(bbox), &probabilities));
        }
    }
    Ok(found)
}

/// From centre and size to left, top, right, bottom.
fn corners([x, y, width, height]: [f32; 4]) -> [f32; 4] {
    [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0]
}
