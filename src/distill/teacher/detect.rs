//! From a detector's output tensors to objects, by family.

use anyhow::{bail, ensure, Context};
use peregrine_vision::decode::head::softmax_mean;

use super::candidates::{best_of_groups, soft_target, suppress, OutputTensor, MIN_SCORE};
use super::description::{Family, TeacherDescription};
use super::placement::Placement;
use super::{queries, SoftTarget, UNKNOWN};

/// The objects in `outputs`, best first, in source pixels.
///
/// # Errors
/// When a tensor does not have its family's shape.
pub fn candidates(
    d: &TeacherDescription,
    groups: &[Vec<usize>],
    outputs: &[OutputTensor],
    placement: &Placement,
) -> anyhow::Result<Vec<SoftTarget>> {
    let mut found = match d.family {
        Family::Centernet | Family::Gfl => of_cells(d, groups, outputs, placement)?,
        Family::Yolo => queries::yolo(d, groups, &outputs[0], placement)?,
        Family::Detr => queries::detr(d, groups, outputs, placement)?,
        Family::ClassLogits | Family::PixelLogits => {
            bail!("{} is of a family without boxes; a detector is needed", d.name)
        }
    };
    for (class, _) in groups.iter().enumerate().filter(|(_, group)| group.is_empty()) {
        found.iter_mut().for_each(|b| b.logits[class] = UNKNOWN);
    }
    Ok(suppress(found))
}

fn of_cells(
    d: &TeacherDescription,
    groups: &[Vec<usize>],
    outputs: &[OutputTensor],
    placement: &Placement,
) -> anyhow::Result<Vec<SoftTarget>> {
    let mut found = Vec::new();
    for (level, &stride) in d.strides.iter().enumerate() {
        let (scores, distances) = (&outputs[2 * level], &outputs[2 * level + 1]);
        let cells = d.size as usize / stride;
        let classes = *scores.0.last().context("an output without dimensions")?;
        let fits = |output: &OutputTensor, per_cell: usize| output.1.len() == cells * cells * per_cell;
        ensure!(
            groups.iter().flatten().all(|&c| c < classes) && fits(scores, classes),
            "output {:?} is {:?}, which is not {cells}×{cells} cells with every class named in [classes]",
            d.outputs[2 * level],
            scores.0
        );
        let per_cell = distances.1.len() / (cells * cells);
        ensure!(
            per_cell > 0 && per_cell.is_multiple_of(4) && fits(distances, per_cell),
            "output {:?} is {:?}, which is not four distances (or distributions) for each of {cells}×{cells} cells",
            d.outputs[2 * level + 1],
            distances.0
        );
        let probabilities = group(scores.1, classes, groups);
        let best = |cell: usize| probabilities[cell].iter().copied().fold(0.0, f32::max);
        for cell in (0..cells * cells).filter(|&cell| best(cell) > MIN_SCORE) {
            if d.family == Family::Centernet && !is_peak(&probabilities, cells, cell) {
                continue;
            }
            let raw = &distances.1[cell * per_cell..][..per_cell];
            let distances = if d.family == Family::Centernet {
                std::array::from_fn(|i| raw[i])
            } else {
                expected(raw).map(|bins| bins * stride as f32)
            };
            let center = |at: usize| (at as f32 + d.center) * stride as f32;
            let (x, y) = (center(cell % cells), center(cell / cells));
            let bbox = [x - distances[0], y - distances[1], x + distances[2], y + distances[3]];
            found.extend(soft_target(placement.to_source(bbox), &probabilities[cell]));
        }
    }
    Ok(found)
}

/// The probabilities of the student's classes in each cell.
fn group(scores: &[f32], classes: usize, groups: &[Vec<usize>]) -> Vec<Vec<f32>> {
    scores.chunks(classes).map(|cell| best_of_groups(&|c| cell[c], groups).collect()).collect()
}

/// Whether the best class of this cell is a local maximum among the eight cells around it.
fn is_peak(probabilities: &[Vec<f32>], cells: usize, cell: usize) -> bool {
    let (x, y) = (cell % cells, cell / cells);
    let around = |at: usize| at.saturating_sub(1)..(at + 2).min(cells);
    let best = probabilities[cell].iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    let Some((class, &value)) = best else { return false };
    around(y).all(|y| around(x).all(|x| probabilities[y * cells + x][class] <= value))
}

/// The expected bin of each side's softmax.
fn expected(logits: &[f32]) -> [f32; 4] {
    let bins = logits.len() / 4;
    std::array::from_fn(|side| softmax_mean(logits[side * bins..][..bins].iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::super::description::Fit;
    use super::*;
    use peregrine_core::BoundingBox;

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
        let found =
            candidates(&description("centernet"), &[vec![1]], &outputs, &Placement::new(Fit::Stretch, (64, 96), 32))
                .unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].bbox, BoundingBox::new(16.0, 18.0, 44.0, 45.0));
        assert!((found[0].logits[0] - 4.0f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn a_class_that_the_description_does_not_map_is_unknown() {
        let (mut heat, distances) = (vec![0.0f32; 16 * 2], vec![4.0f32; 16 * 4]);
        heat[2 * 5 + 1] = 0.8;
        let outputs = [(vec![1, 4, 4, 2], &heat[..]), (vec![1, 4, 4, 4], &distances[..])];
        let placement = Placement::new(Fit::Stretch, (64, 96), 32);
        let found = candidates(&description("centernet"), &[vec![1], vec![]], &outputs, &placement).unwrap();
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
        let found =
            candidates(&description("gfl"), &[vec![1]], &outputs, &Placement::new(Fit::Stretch, (32, 32), 32)).unwrap();
        assert_eq!(found[0].bbox, BoundingBox::new(4.0, 4.0, 20.0, 20.0));
    }

    #[test]
    fn a_tensor_of_another_size_is_refused_by_name() {
        let outputs = [(vec![1, 2, 2, 2], &[0.0f32; 8][..]), (vec![1, 2, 2, 4], &[0.0f32; 16][..])];
        let error =
            candidates(&description("centernet"), &[vec![1]], &outputs, &Placement::new(Fit::Stretch, (32, 32), 32))
                .unwrap_err();
        assert!(error.to_string().contains("\"a\""), "{error}");
    }
}
