//! From a detector's output tensors to objects, by family.

use anyhow::{bail, ensure, Context};
use peregrine_vision::decode::head::{sigmoid, softmax_mean};

use super::candidates::{best_of_groups, Candidate, OutputTensor};
use super::description::{Family, Scores, TeacherDescription};
use super::placement::Placement;
use super::{plausible, queries};

/// The candidates in `outputs` of which a class is more probable than `least`, in source pixels.
///
/// # Errors
/// When a tensor does not have its family's shape, or values that the description cannot mean.
pub fn candidates(
    d: &TeacherDescription,
    groups: &[Vec<usize>],
    outputs: &[OutputTensor],
    placement: &Placement,
    least: f32,
) -> anyhow::Result<Vec<Candidate>> {
    match d.family {
        Family::Centernet | Family::Gfl => of_cells(d, groups, outputs, placement, least),
        Family::Yolo => queries::yolo(d, groups, &outputs[0], placement, least),
        Family::EndToEnd => queries::end_to_end(d, groups, &outputs[0], placement, least),
        Family::Detr => queries::detr(d, groups, outputs, placement, least),
        Family::ClassLogits | Family::PixelLogits => {
            bail!("{} is of a family without boxes; a detector is needed", d.name)
        }
    }
}

fn of_cells(
    d: &TeacherDescription,
    groups: &[Vec<usize>],
    outputs: &[OutputTensor],
    placement: &Placement,
    least: f32,
) -> anyhow::Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for (level, &stride) in d.strides.iter().enumerate() {
        let (scores, distances) = (&outputs[2 * level], &outputs[2 * level + 1]);
        let columns = d.size.width as usize / stride;
        let (rows, cells) = (d.size.height as usize / stride, columns * (d.size.height as usize / stride));
        let classes = *scores.0.last().context("an output without dimensions")?;
        let fits = |output: &OutputTensor, per_cell: usize| output.1.len() == cells * per_cell;
        ensure!(
            cells > 0 && groups.iter().flatten().all(|&c| c < classes) && fits(scores, classes),
            "output {:?} is {:?}, which is not {columns}×{rows} cells with every class named in [classes]",
            d.outputs[2 * level],
            scores.0
        );
        let per_cell = distances.1.len() / cells;
        let distributions = d.family == Family::Centernet || per_cell >= 8;
        ensure!(
            per_cell > 0 && per_cell.is_multiple_of(4) && distributions && fits(distances, per_cell),
            "output {:?} is {:?}, which is not four {} for each of {columns}×{rows} cells",
            d.outputs[2 * level + 1],
            distances.0,
            if d.family == Family::Centernet { "distances" } else { "distributions of at least two bins" }
        );
        plausible::scores(d, &d.outputs[2 * level], scores.1.iter().copied())?;
        let probabilities = group(d, scores.1, classes, groups);
        for (cell, of_cell) in probabilities.iter().enumerate().filter(|(_, p)| p.iter().any(|&p| p > least)) {
            let raw = &distances.1[cell * per_cell..][..per_cell];
            let peaks = (d.family == Family::Centernet).then(|| peaks(&probabilities, (columns, rows), cell));
            let distances = if d.family == Family::Centernet {
                std::array::from_fn(|i| raw[i])
            } else {
                expected(raw).map(|bins| bins * stride as f32)
            };
            let center = |at: usize| (at as f32 + d.center) * stride as f32;
            let (x, y) = (center(cell % columns), center(cell / columns));
            let bbox = [x - distances[0], y - distances[1], x + distances[2], y + distances[3]];
            ensure!(
                bbox.iter().all(|v| v.is_finite()),
                "output {:?} holds a distance that is not a number; check mean and std, or export the network in float32",
                d.outputs[2 * level + 1]
            );
            found.push(Candidate { bbox: placement.to_source(bbox), probabilities: of_cell.clone(), peaks });
        }
    }
    Ok(found)
}

/// The probabilities of the student's classes in each cell.
fn group(d: &TeacherDescription, scores: &[f32], classes: usize, groups: &[Vec<usize>]) -> Vec<Vec<f32>> {
    let probability = |raw: f32| if d.scores() == Scores::Sigmoid { sigmoid(raw) } else { raw };
    scores.chunks(classes).map(|cell| best_of_groups(&|c| probability(cell[c]), groups).collect()).collect()
}

/// For each class, whether this cell is its maximum among the cell and the eight around it.
fn peaks(probabilities: &[Vec<f32>], (columns, rows): (usize, usize), cell: usize) -> Vec<bool> {
    let (x, y) = (cell % columns, cell / columns);
    let around = |at: usize, cells: usize| at.saturating_sub(1)..(at + 2).min(cells);
    let of_class = |(class, value): (usize, &f32)| {
        around(y, rows).all(|y| around(x, columns).all(|x| probabilities[y * columns + x][class] <= *value))
    };
    probabilities[cell].iter().enumerate().map(of_class).collect()
}

/// The expected bin of each side's softmax.
fn expected(logits: &[f32]) -> [f32; 4] {
    let bins = logits.len() / 4;
    std::array::from_fn(|side| softmax_mean(logits[side * bins..][..bins].iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::super::candidates::{soft_targets, MIN_SCORE};
    use super::super::description::Fit;
    use super::super::input_size::InputSize;
    use super::super::{SoftTarget, UNKNOWN};
    use super::*;
    use peregrine_core::BoundingBox;

    /// The soft targets in `outputs` for an image of `source` pixels.
    fn found(
        family: &str,
        groups: &[Vec<usize>],
        outputs: &[OutputTensor],
        source: (u32, u32),
    ) -> anyhow::Result<Vec<SoftTarget>> {
        let placement = Placement::new(Fit::Stretch, source, InputSize::square(32));
        let candidates = candidates(&description(family), groups, outputs, &placement, MIN_SCORE)?;
        Ok(soft_targets(&candidates, groups))
    }

    fn description(family: &str) -> TeacherDescription {
        toml::from_str(&format!(
            "name='t'\nfamily='{family}'\ninput='x'\nsize=32\nlayout='nchw'\ncolours='rgb'\nmean=[0.0,0.0,0.0]\n\
             std=[1.0,1.0,1.0]\noutputs=['a','b']\nstrides=[8]\ncenter=0.5\n[classes]\ncar=[1]\n"
        ))
        .unwrap()
    }

    #[test]
    fn a_peak_of_a_heat_map_becomes_one_box_in_source_pixels() {
        let (mut heat, mut distances) = (vec![0.0f32; 16 * 2], vec![0.0f32; 16 * 4]);
        (heat[2 * 5 + 1], heat[2 * 6 + 1], heat[2 * 10]) = (0.8, 0.6, 0.9);
        distances[4 * 5..4 * 6].copy_from_slice(&[4.0, 6.0, 10.0, 3.0]);
        let outputs = [(vec![1, 4, 4, 2], &heat[..]), (vec![1, 4, 4, 4], &distances[..])];
        let found = found("centernet", &[vec![1]], &outputs, (64, 96)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].bbox, BoundingBox::new(16.0, 18.0, 44.0, 45.0));
        assert!((found[0].logits[0] - 4.0f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn a_class_that_the_description_does_not_map_is_unknown() {
        let (mut heat, distances) = (vec![0.0f32; 16 * 2], vec![4.0f32; 16 * 4]);
        heat[2 * 5 + 1] = 0.8;
        let outputs = [(vec![1, 4, 4, 2], &heat[..]), (vec![1, 4, 4, 4], &distances[..])];
        let found = found("centernet", &[vec![1], vec![]], &outputs, (64, 96)).unwrap();
        assert_eq!((found[0].best().0, found[0].logits[1]), (0, UNKNOWN));
    }

    #[test]
    fn side_distributions_become_their_expected_distance() {
        let (mut scores, mut distances) = (vec![0.0f32; 16 * 2], vec![0.0f32; 16 * 12]);
        scores[2 * 5 + 1] = 0.5;
        // Three bins; all mass on bin 1, which is one stride of 8 pixels, to each side.
        for side in 0..4 {
            distances[12 * 5 + 3 * side + 1] = 50.0;
        }
        let outputs = [(vec![1, 16, 2], &scores[..]), (vec![1, 16, 12], &distances[..])];
        let found = found("gfl", &[vec![1]], &outputs, (32, 32)).unwrap();
        assert_eq!(found[0].bbox, BoundingBox::new(4.0, 4.0, 20.0, 20.0));
    }

    #[test]
    fn a_tensor_of_another_size_is_refused_by_name() {
        let outputs = [(vec![1, 2, 2, 2], &[0.0f32; 8][..]), (vec![1, 2, 2, 4], &[0.0f32; 16][..])];
        let error = found("centernet", &[vec![1]], &outputs, (32, 32)).unwrap_err();
        assert!(error.to_string().contains("\"a\""), "{error}");
    }
}
