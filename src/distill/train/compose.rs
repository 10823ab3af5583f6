//! Several views in one input: mosaic and mixup.

use std::path::PathBuf;

use peregrine_core::BoundingBox;
use peregrine_student::architecture::Input;
use peregrine_vision::decode::mask::MASK_STRIDE;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::objects::Object;
use super::soft_view::SoftView;
use crate::data::VOID;
use crate::picture::{Part, Picture};

/// One image of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// What the input shows.
    pub picture: Picture,
    /// In input pixels.
    pub objects: Vec<Object>,
    /// For each class, whether a missing label means that there is no object.
    pub known: Vec<bool>,
    /// The classes at stride 4, if there is a mask.
    pub mask: Option<Vec<u8>>,
    /// The soft mask, if the soft targets hold one.
    pub soft_mask: Option<SoftView>,
    /// The soft targets' features for each layer that learns from them.
    pub features: Vec<Option<SoftView>>,
    /// For each group of scenes its class, if it is labelled.
    pub scene: Vec<Option<usize>>,
    /// The soft targets' logits of the scene, group by group.
    pub soft_scene: Option<Vec<f32>>,
    pub file: PathBuf,
}

/// Objects of which a mosaic's tile shows less than this fraction are dropped.
const MIN_VISIBLE: f32 = 0.25;

/// The corner where a mosaic's tiles meet: in the middle half of the input, on a border between
/// cells of the segmentation head.
pub fn centre(input: &Input, rng: &mut ChaCha8Rng) -> (usize, usize) {
    let mut along = |size: usize| rng.random_range(size / 4..=size * 3 / 4) / MASK_STRIDE * MASK_STRIDE;
    (along(input.width), along(input.height))
}

/// Four examples that meet at (`x`, `y`), each cropped to its quarter: top left, top right, bottom
/// left, bottom right.
pub fn mosaic(input: &Input, (x, y): (usize, usize), tiles: [Example; 4]) -> Example {
    let (width, height) = (input.width, input.height);
    let tile_of = |at: (usize, usize)| usize::from(at.0 >= x) + 2 * usize::from(at.1 >= y);
    let columns = width / MASK_STRIDE;
    let cells = columns * (height / MASK_STRIDE);
    let label = |i: usize| {
        let tile = &tiles[tile_of((i % columns * MASK_STRIDE, i / columns * MASK_STRIDE))];
        tile.mask.as_ref().map_or(VOID, |mask| mask[i])
    };
    let mask = tiles.iter().any(|t| t.mask.is_some()).then(|| (0..cells).map(label).collect());
    let quarters = Part::quarters(input, (x, y)).map(|Part { columns, rows }| {
        let edges = [columns.start, rows.start, columns.end, rows.end].map(|at| at as f32);
        BoundingBox::new(edges[0], edges[1], edges[2], edges[3])
    });
    let objects =
        tiles.iter().zip(&quarters).flat_map(|(t, quarter)| t.objects.iter().filter_map(move |o| clip(o, quarter)));
    Example {
        objects: objects.collect(),
        known: (0..tiles[0].known.len()).map(|c| tiles.iter().all(|t| t.known[c])).collect(),
        mask,
        soft_mask: soft_mosaic(&tiles.each_ref().map(|t| t.soft_mask.as_ref()), input, (x, y)),
        features: (0..tiles[0].features.len())
            .map(|layer| soft_mosaic(&tiles.each_ref().map(|t| t.features[layer].as_ref()), input, (x, y)))
            .collect(),
        scene: common_scene(&tiles.each_ref().map(|t| &t.scene[..])),
        // Those are of one whole image.
        soft_scene: None,
        file: tiles[0].file.clone(),
        picture: Picture::mosaic(input, (x, y), tiles.map(|tile| tile.picture)),
    }
}

/// Each cell from the tile that its centre lies in; not valid if that tile has no soft targets.
fn soft_mosaic(tiles: &[Option<&SoftView>; 4], input: &Input, (x, y): (usize, usize)) -> Option<SoftView> {
    let any = tiles.iter().flatten().next()?;
    let (grid, cells) = (any.grid, any.grid.cells());
    let channels = any.values.len() / cells;
    let mut soft = SoftView { grid, values: vec![0.0; any.values.len()], valid: vec![false; cells] };
    for (cell, (values, valid)) in soft.values.chunks_mut(channels).zip(&mut soft.valid).enumerate() {
        let centre = grid.centre(cell, input);
        if let Some(tile) = tiles[usize::from(centre[0] >= x as f32) + 2 * usize::from(centre[1] >= y as f32)] {
            values.copy_from_slice(&tile.values[cell * channels..][..channels]);
            *valid = tile.valid[cell];
        }
    }
    Some(soft)
}

/// The scene labels on which all examples agree.
fn common_scene(examples: &[&[Option<usize>]]) -> Vec<Option<usize>> {
    let first = examples.first().copied().unwrap_or_default();
    let agreed = |(group, class): (usize, &Option<usize>)| {
        class.filter(|_| examples.iter().all(|other| other.get(group) == Some(class)))
    };
    first.iter().enumerate().map(agreed).collect()
}

/// The part of an object inside `window`; `None` if too little of it is.
fn clip(object: &Object, window: &BoundingBox) -> Option<Object> {
    let b = &object.bbox;
    let inside = BoundingBox::new(
        b.x_min.max(window.x_min),
        b.y_min.max(window.y_min),
        b.x_max.min(window.x_max),
        b.y_max.min(window.y_max),
    );
    let meets = inside.x_max - inside.x_min >= 3.0 && inside.y_max - inside.y_min >= 3.0;
    (meets && inside.area() >= MIN_VISIBLE * b.area()).then(|| Object { bbox: inside, ..object.clone() })
}

/// Mixup: `a` with a `share` (0 to 0.5) of `b` blended in. The objects of both are kept, weighted
/// by the share of their example; masks are those of `a`.
pub fn mixup(a: Example, b: Example, share: f32) -> Example {
    let weigh =
        |objects: Vec<Object>, share: f32| objects.into_iter().map(move |o| Object { share: o.share * share, ..o });
    Example {
        picture: a.picture.mixup(b.picture, share),
        objects: weigh(a.objects, 1.0 - share).chain(weigh(b.objects, share)).collect(),
        known: a.known.iter().zip(&b.known).map(|(a, b)| *a && *b).collect(),
        mask: a.mask,
        soft_mask: a.soft_mask,
        features: a.features,
        scene: common_scene(&[&a.scene, &b.scene]),
        soft_scene: None,
        file: a.file,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use image::RgbImage;

    use super::super::soft_view::Grid;
    use super::*;
    use crate::picture::{Colour, SourceImage, ViewTransform};

    fn input() -> Input {
        Input { width: 64, height: 32, mean: [127.0; 3], std: [16.0; 3] }
    }

    fn soft(value: f32, channels: usize, grid: Grid) -> SoftView {
        SoftView { grid, values: vec![value; channels * grid.cells()], valid: vec![true; grid.cells()] }
    }

    /// The normalised `value` everywhere.
    fn plain(value: f32) -> Picture {
        let pixels = Arc::new(RgbImage::from_pixel(1, 1, image::Rgb([0; 3])));
        let colour = Colour { saturation: 0.0, gain: 0.0, offset: 127.0 + 16.0 * value };
        let view = ViewTransform { origin: [0.0; 2], step: [1.0 / 64.0, 1.0 / 32.0] };
        Picture::view(SourceImage::new(0, pixels), view, colour, &input())
    }

    fn rendered(picture: &Picture) -> Vec<f32> {
        let mut tensor = vec![f32::NAN; 3 * 64 * 32];
        picture.render(&input(), &mut tensor);
        tensor
    }

    fn example(value: f32, bbox: BoundingBox, mask: bool) -> Example {
        Example {
            picture: plain(value),
            objects: vec![Object { label: Some(0), ..Object::at(bbox) }],
            known: vec![true, mask],
            mask: mask.then(|| vec![value as u8; 16 * 8]),
            soft_mask: mask.then(|| soft(value, 2, Grid { columns: 16, rows: 8 })),
            features: vec![mask.then(|| soft(value, 3, Grid { columns: 4, rows: 2 }))],
            // All agree on the first group alone.
            scene: vec![Some(1), Some(value as usize), None],
            soft_scene: Some(vec![value; 2]),
            file: PathBuf::new(),
        }
    }

    #[test]
    fn each_quarter_of_a_mosaic_shows_its_own_example() {
        let whole = BoundingBox::new(0.0, 0.0, 64.0, 32.0);
        let small = BoundingBox::new(2.0, 2.0, 12.0, 12.0);
        // The small box lies in the top left; in the bottom right quarter nothing of it is left.
        let tiles = [(1.0, whole, true), (2.0, whole, false), (3.0, whole, true), (4.0, small, true)];
        let mosaic = mosaic(&input(), (40, 16), tiles.map(|(v, b, m)| example(v, b, m)));
        let pixels = rendered(&mosaic.picture);
        let pixel = |x: usize, y: usize| pixels[64 * 32 + y * 64 + x];
        assert_eq!([pixel(39, 15), pixel(40, 15), pixel(39, 16), pixel(40, 16)], [1.0, 2.0, 3.0, 4.0]);
        let cell = |x: usize, y: usize| mosaic.mask.as_ref().unwrap()[y * 16 + x];
        assert_eq!([cell(9, 3), cell(10, 3), cell(9, 4), cell(10, 4)], [1, VOID, 3, 4]);
        let soft = mosaic.soft_mask.as_ref().unwrap();
        let value = |x: usize, y: usize| soft.valid[y * 16 + x].then(|| soft.values[2 * (y * 16 + x)]);
        assert_eq!([value(9, 3), value(10, 3), value(9, 4), value(10, 4)], [Some(1.0), None, Some(3.0), Some(4.0)]);
        // Cells of 16 pixels: the third column's centre is on the tiles' border, and belongs to the
        // right ones.
        let layer = mosaic.features[0].as_ref().unwrap();
        let values: Vec<_> = layer.valid.iter().zip(layer.values.chunks(3)).map(|(&s, v)| s.then_some(v[0])).collect();
        assert_eq!(values[..4], [Some(1.0), Some(1.0), None, None]);
        assert_eq!(values[4..], [Some(3.0), Some(3.0), Some(4.0), Some(4.0)]);
        let boxes: Vec<_> = mosaic.objects.iter().map(|o| o.bbox).collect();
        let expected = [BoundingBox::new(0.0, 0.0, 40.0, 16.0), BoundingBox::new(0.0, 16.0, 40.0, 32.0)];
        assert_eq!(boxes, [expected[0], expected[1]], "the second tile shows 19 % of its object");
        assert_eq!(mosaic.known, [true, false]);
        assert_eq!((mosaic.scene, mosaic.soft_scene), (vec![Some(1), None, None], None));
    }

    #[test]
    fn mixup_blends_pixels_and_weighs_objects() {
        let bbox = BoundingBox::new(2.0, 2.0, 12.0, 12.0);
        let mixed = mixup(example(1.0, bbox, true), example(3.0, bbox, false), 0.25);
        assert!(rendered(&mixed.picture).iter().all(|&v| v == 1.5));
        assert_eq!(mixed.objects.iter().map(|o| o.share).collect::<Vec<_>>(), [0.75, 0.25]);
        assert_eq!(mixed.mask.unwrap()[0], 1);
        assert_eq!(mixed.known, [true, false]);
        assert_eq!(mixed.scene, [Some(1), None, None]);
    }
}
