//! Detectors whose candidates are a list: YOLO's anchors, DETR's queries, and detections that the
//! network has selected itself.

use anyhow::{ensure, Context};
use peregrine_vision::decode::head::sigmoid;

use super::candidates::{best_of_groups, Candidate, OutputTensor};
use super::description::{BoxFormat, BoxUnit, Scores, TeacherDescription};
use super::placement::Placement;
use super::plausible;

/// The candidates above `least` of a YOLO-like output; see
/// [`Family::Yolo`](super::description::Family::Yolo).
///
/// # Errors
/// When the tensor has another shape, or values that the description cannot mean.
pub fn yolo(
    d: &TeacherDescription,
    groups: &[Vec<usize>],
    output: &OutputTensor,
    placement: &Placement,
    least: f32,
) -> anyhow::Result<Vec<Candidate>> {
    let first = if d.objectness { 5 } else { 4 };
    let needed = first + groups.iter().flatten().max().map_or(0, |c| c + 1);
    let (shape, values) = output;
    let name = &d.outputs[0];
    let fault = || {
        format!(
            "output {name:?} is {shape:?}, which is not [1, values, candidates] or its transpose with at least {needed} \
             values for a candidate ({first} and every class named in [classes])"
        )
    };
    let &[1, a, b] = shape.as_slice() else { return Err(anyhow::anyhow!(fault())) };
    // There are more candidates than values: 8400 and 84, say.
    let (per_candidate, count, planar) = if a < b { (a, b, true) } else { (b, a, false) };
    ensure!(per_candidate >= needed && values.len() == a * b, "{}", fault());
    let value = |i: usize, v: usize| if planar { values[v * count + i] } else { values[i * per_candidate + v] };
    let bbox = |i: usize| std::array::from_fn(|v| value(i, v));
    ensure!(
        planar || per_candidate != 6 || !is_selected(values),
        "output {name:?} is {shape:?} with a whole number last in each row: left, top, right, bottom, score and class of \
         detections that the network has selected; write family = \"end_to_end\""
    );
    plausible::scores(
        d,
        name,
        (4..per_candidate).flat_map(|v| (0..count).map(move |i| (i, v))).map(|(i, v)| value(i, v)),
    )?;
    plausible::boxes(d, name, (0..count).map(bbox))?;
    let probability = |raw: f32| if d.scores() == Scores::Sigmoid { sigmoid(raw) } else { raw };
    let mut found = Vec::new();
    for i in 0..count {
        let objectness = if d.objectness { probability(value(i, 4)) } else { 1.0 };
        let score = |c: usize| objectness * probability(value(i, first + c));
        let probabilities: Vec<f32> = best_of_groups(&score, groups).collect();
        if probabilities.iter().any(|&p| p > least) {
            found.push(Candidate { bbox: placement.to_source(corners(d, bbox(i))), probabilities, peaks: None });
        }
    }
    Ok(found)
}

/// Whether rows of six values are corners, score and class rather than a box and two probabilities.
fn is_selected(values: &[f32]) -> bool {
    let rows = || values.chunks_exact(6).filter(|row| row.iter().any(|&v| v != 0.0));
    rows().next().is_some() && rows().all(|row| row[5].fract() == 0.0 && row[2] >= row[0] && row[3] >= row[1])
}

/// The detections above `least` that a network has selected itself; see
/// [`Family::EndToEnd`](super::description::Family::EndToEnd).
///
/// # Errors
/// When the tensor has another shape, or values that the description cannot mean.
pub fn end_to_end(
    d: &TeacherDescription,
    groups: &[Vec<usize>],
    (shape, values): &OutputTensor,
    placement: &Placement,
    least: f32,
) -> anyhow::Result<Vec<Candidate>> {
    let name = &d.outputs[0];
    ensure!(
        matches!(shape.as_slice(), &[1, n, 6] | &[n, 6] if values.len() == n * 6),
        "output {name:?} is {shape:?}, which is not [1, detections, 6]; a list of 4 + classes values for each candidate is \
         family = \"yolo\""
    );
    // Rows without a score are padding, whatever else they hold.
    let rows: Vec<&[f32]> = values.chunks_exact(6).filter(|row| row[4] != 0.0 && row[5] != -1.0).collect();
    plausible::scores(d, name, rows.iter().map(|row| row[4]))?;
    if let Some(row) = rows.iter().find(|row| row[5] < 0.0 || row[5].fract() != 0.0) {
        anyhow::bail!(
            "output {name:?} holds {} as a class number; rows must be left, top, right, bottom, score, class: export the \
             network so",
            row[5]
        );
    }
    plausible::boxes(d, name, rows.iter().map(|row| [row[0], row[1], row[2], row[3]]))?;
    let mut found = Vec::new();
    for row in rows {
        let score = if d.scores() == Scores::Sigmoid { sigmoid(row[4]) } else { row[4] };
        let of = |c: usize| if c as f32 == row[5] { score } else { 0.0 };
        let probabilities: Vec<f32> = best_of_groups(&of, groups).collect();
        if probabilities.iter().any(|&p| p > least) {
            let bbox = placement.to_source(corners(d, [row[0], row[1], row[2], row[3]]));
            found.push(Candidate { bbox, probabilities, peaks: None });
        }
    }
    Ok(found)
}

/// The candidates above `least` of a DETR-like output; see
/// [`Family::Detr`](super::description::Family::Detr).
///
/// # Errors
/// When a tensor has another shape, or values that the description cannot mean.
pub fn detr(
    d: &TeacherDescription,
    groups: &[Vec<usize>],
    outputs: &[OutputTensor],
    placement: &Placement,
    least: f32,
) -> anyhow::Result<Vec<Candidate>> {
    let (logits, boxes) = (&outputs[0], &outputs[1]);
    let classes = *logits.0.last().context("an output without dimensions")?;
    let softmax = d.scores() == Scores::Softmax;
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
    let numbers = |b: &[f32]| std::array::from_fn(|v| b[v]);
    plausible::scores(d, &d.outputs[0], logits.1.iter().copied())?;
    plausible::boxes(d, &d.outputs[1], boxes.1.chunks_exact(4).map(numbers))?;
    let mut found = Vec::new();
    for (logits, bbox) in logits.1.chunks(classes).zip(boxes.1.chunks_exact(4)) {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logits.iter().map(|v| (v - largest).exp()).sum();
        let score = |c: usize| match d.scores() {
            Scores::Softmax => (logits[c] - largest).exp() / sum,
            Scores::Sigmoid => sigmoid(logits[c]),
            Scores::Probability => logits[c],
        };
        let probabilities: Vec<f32> = best_of_groups(&score, groups).collect();
        if probabilities.iter().any(|&p| p > least) {
            found.push(Candidate { bbox: placement.to_source(corners(d, numbers(bbox))), probabilities, peaks: None });
        }
    }
    Ok(found)
}

/// Left, top, right, bottom in input pixels of a box as the network gives it.
fn corners(d: &TeacherDescription, values: [f32; 4]) -> [f32; 4] {
    let [x, y] = match d.box_unit() {
        BoxUnit::Pixels => [1.0, 1.0],
        BoxUnit::Fractions => [d.size.width as f32, d.size.height as f32],
    };
    let [a, b, c, d] = match d.box_format() {
        BoxFormat::Xyxy => values,
        BoxFormat::Cxcywh => {
            let [x, y, width, height] = values;
            [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0]
        }
    };
    [a * x, b * y, c * x, d * y]
}
