//! The assignment of anchors to objects: ATSS (Zhang et al. 2020, section 3.2).
//!
//! On each level the cells nearest to an object's centre are candidates. Those become positive
//! whose anchor's IoU with the object is at least the candidates' mean plus one standard deviation,
//! and whose centre lies inside the object. It needs no scale ranges, and does not depend on the
//! network's predictions, so that it is right from the first step on.

use peregrine_core::BoundingBox;
use peregrine_student::head::BoxForm;
use peregrine_student::{Architecture, DetectionLevel};

/// Candidates on each level.
const CANDIDATES: usize = 9;
/// Side of a cell's square anchor, in strides.
const ANCHOR_STRIDES: f32 = 5.0;

/// A cell of the detection head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// The point that distances count from, in input pixels: usually its centre.
    pub x: f32,
    pub y: f32,
    /// Input pixels.
    pub stride: f32,
}

/// The cells of all levels of `architecture`'s detection head for an input of `width` × `height`
/// pixels, in the order of the head's outputs: level by level, row by row.
pub fn cells(architecture: &Architecture, width: usize, height: usize) -> Vec<Cell> {
    let center = match architecture.head_form().map(|form| form.boxes) {
        Some(BoxForm::Distribution { center, .. } | BoxForm::Distances { center }) => center,
        _ => 0.5,
    };
    let level = |DetectionLevel { stride, .. }: DetectionLevel| {
        let (columns, rows) = (width.div_ceil(stride), height.div_ceil(stride));
        (0..rows * columns).map(move |i| {
            let center = |at: usize| (at as f32 + center) * stride as f32;
            Cell { x: center(i % columns), y: center(i / columns), stride: stride as f32 }
        })
    };
    architecture.detection_levels().into_iter().flat_map(level).collect()
}

/// For each cell, the index of the object that it is a positive anchor of. A cell that several
/// objects claim goes to that with the best IoU; every object whose centre lies in the input keeps
/// at least the best of its candidates that no other object has.
pub fn assign(cells: &[Cell], objects: &[BoundingBox]) -> Vec<Option<usize>> {
    let mut owner: Vec<Option<(usize, f32)>> = vec![None; cells.len()];
    for (object, bbox) in objects.iter().enumerate() {
        let candidates = candidates(cells, bbox);
        if candidates.is_empty() {
            continue;
        }
        let count = candidates.len() as f32;
        let mean = candidates.iter().map(|c| c.1).sum::<f32>() / count;
        let variance = candidates.iter().map(|c| (c.1 - mean).powi(2)).sum::<f32>() / count;
        let threshold = mean + variance.sqrt();
        let best = candidates.iter().map(|c| c.1).fold(0.0, f32::max);
        for &(cell, iou) in &candidates {
            let inside = contains(bbox, &cells[cell]);
            let claims = inside && iou >= threshold.min(best);
            if claims && owner[cell].is_none_or(|(_, held)| iou > held) {
                owner[cell] = Some((object, iou));
            }
        }
        // An object smaller than a cell may contain no cell's centre, but must not be lost.
        if !owner.iter().any(|o| o.is_some_and(|(i, _)| i == object)) {
            let free = candidates.iter().filter(|c| owner[c.0].is_none());
            if let Some(&(cell, iou)) = free.max_by(|a, b| a.1.total_cmp(&b.1)) {
                owner[cell] = Some((object, iou));
            }
        }
    }
    owner.into_iter().map(|o| o.map(|(object, _)| object)).collect()
}

/// The nearest cells on each level, with the IoU of their anchors.
fn candidates(cells: &[Cell], bbox: &BoundingBox) -> Vec<(usize, f32)> {
    let (cx, cy) = bbox.center();
    let mut found = Vec::new();
    let mut first = 0;
    for cells_of_level in cells.chunk_by(|a, b| a.stride == b.stride) {
        let distance = |cell: &Cell| (cell.x - cx).powi(2) + (cell.y - cy).powi(2);
        let mut level: Vec<(usize, f32)> = (first..).zip(cells_of_level.iter().map(distance)).collect();
        first += cells_of_level.len();
        let keep = CANDIDATES.min(level.len());
        level.select_nth_unstable_by(keep - 1, |a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        found.extend(level[..keep].iter().map(|&(i, _)| (i, anchor(&cells[i]).iou(bbox))));
    }
    found
}

fn anchor(cell: &Cell) -> BoundingBox {
    let half = 0.5 * ANCHOR_STRIDES * cell.stride;
    BoundingBox::new(cell.x - half, cell.y - half, cell.x + half, cell.y + half)
}

fn contains(bbox: &BoundingBox, cell: &Cell) -> bool {
    (bbox.x_min..=bbox.x_max).contains(&cell.x) && (bbox.y_min..=bbox.y_max).contains(&cell.y)
}

#[cfg(test)]
mod tests {
    use peregrine_student::Architecture;

    use super::*;

    fn cells(width: usize, height: usize) -> Vec<Cell> {
        super::cells(&Architecture::default_student(), width, height)
    }

    #[test]
    fn an_object_is_assigned_to_the_level_of_its_size() {
        let cells = cells(320, 256);
        for (side, stride) in [(40.0, 8.0), (80.0, 16.0), (160.0, 32.0)] {
            let bbox = BoundingBox::new(160.0 - side / 2.0, 128.0 - side / 2.0, 160.0 + side / 2.0, 128.0 + side / 2.0);
            let owner = assign(&cells, &[bbox]);
            let best = owner.iter().zip(&cells).filter(|(o, _)| o.is_some()).map(|(_, c)| c.stride);
            assert!(best.clone().count() > 0);
            assert!(best.into_iter().all(|s| s == stride), "side {side}");
        }
    }

    #[test]
    fn an_object_smaller_than_a_cell_is_not_lost() {
        let owner = assign(&cells(64, 64), &[BoundingBox::new(15.0, 15.0, 17.0, 17.0)]);
        assert_eq!(owner.iter().flatten().count(), 1);
    }

    #[test]
    fn positive_anchors_lie_inside_their_object() {
        let cells = cells(320, 256);
        let objects = [BoundingBox::new(10.0, 20.0, 90.0, 70.0), BoundingBox::new(40.0, 30.0, 300.0, 250.0)];
        for (owner, cell) in assign(&cells, &objects).iter().zip(&cells) {
            if let Some(object) = owner {
                assert!(contains(&objects[*object], cell));
            }
        }
    }
}
