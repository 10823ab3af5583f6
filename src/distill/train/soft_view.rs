//! A teacher's outputs for a whole image (a segmenter's logits, or an inner tensor), resampled to
//! an augmented view of the image.

use peregrine_student::architecture::Input;

use crate::picture::ViewTransform;
use crate::soften::map::HalfMap;

/// The cells of a head or a layer, over the whole of a network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub columns: usize,
    pub rows: usize,
}

impl Grid {
    pub fn cells(&self) -> usize {
        self.columns * self.rows
    }

    /// The centre of a cell in input pixels; cells are numbered row by row.
    pub fn centre(&self, cell: usize, input: &Input) -> [f32; 2] {
        let at = |i: usize, cells: usize, size: usize| (i as f32 + 0.5) * (size as f32 / cells as f32);
        [at(cell % self.columns, self.columns, input.width), at(cell / self.columns, self.rows, input.height)]
    }
}

/// Values at the cells of a view.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftView {
    pub grid: Grid,
    /// `[cells, channels]`; zero for cells that are not valid. Logits are at a temperature of 1.
    pub values: Vec<f32>,
    /// For each cell whether it lies on the image; elsewhere the teacher has no output.
    pub valid: Vec<bool>,
}

impl SoftView {
    /// The `map` of an image of `source` = (width, height) pixels, interpolated at the centres of
    /// the cells of `grid`.
    pub fn new(map: &HalfMap, source: (u32, u32), view: &ViewTransform, input: &Input, grid: Grid) -> Self {
        let (plane, channels) = (map.width * map.height, map.channels());
        let [left, top, right, bottom] = map.image;
        let mut soft = Self { grid, values: Vec::with_capacity(grid.cells() * channels), valid: Vec::new() };
        for cell in 0..grid.cells() {
            let centre = grid.centre(cell, input);
            let source_at = |axis: usize| view.origin[axis] + view.step[axis] * centre[axis];
            let (x, y) = (source_at(0) / source.0 as f32, source_at(1) / source.1 as f32);
            let valid = (0.0..1.0).contains(&x) && (0.0..1.0).contains(&y);
            soft.valid.push(valid);
            if !valid {
                soft.values.extend(std::iter::repeat_n(0.0, channels));
                continue;
            }
            let (left, right, across) = between(left + x * (right - left), map.width);
            let (top, bottom, down) = between(top + y * (bottom - top), map.height);
            let value = |channel: usize, x: usize, y: usize| map.values[channel * plane + y * map.width + x].to_f32();
            soft.values.extend((0..channels).map(|channel| {
                let row = |y: usize| value(channel, left, y) * (1.0 - across) + value(channel, right, y) * across;
                row(top) * (1.0 - down) + row(bottom) * down
            }));
        }
        soft
    }
}

/// The two of `cells` whose centres enclose a place (in cells), and its fraction of the way to the
/// second.
fn between(place: f32, cells: usize) -> (usize, usize, f32) {
    let at = (place - 0.5).clamp(0.0, cells as f32 - 1.0);
    (at as usize, (at as usize + 1).min(cells - 1), at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    const GRID: Grid = Grid { columns: 8, rows: 4 };

    fn input() -> Input {
        Input { width: 32, height: 16, mean: [0.0; 3], std: [1.0; 3] }
    }

    /// Two channels over an image of 64 × 32 pixels, on 16 × 8 cells: the value of the first is the
    /// column, that of the second the row.
    fn map() -> HalfMap {
        let (width, height) = (16, 8);
        let plane = |of: fn(usize) -> usize| (0..width * height).map(move |i| f16::from_f32(of(i) as f32));
        let values = plane(|i| i % 16).chain(plane(|i| i / 16)).collect();
        HalfMap { width, height, values, image: [0.0, 0.0, 16.0, 8.0] }
    }

    #[test]
    fn each_cell_has_the_values_at_its_place_in_the_image() {
        // The middle of the image, mirrored and at its own size: cells of 4 pixels, as the map's
        // are.
        let view = ViewTransform { origin: [48.0, 8.0], step: [-1.0, 1.0] };
        let soft = SoftView::new(&map(), (64, 32), &view, &input(), GRID);
        assert!(soft.valid.iter().all(|&valid| valid));
        for (cell, values) in soft.values.chunks(2).enumerate() {
            assert_eq!(values, [(11 - cell % 8) as f32, (2 + cell / 8) as f32]);
        }
    }

    #[test]
    fn an_image_may_lie_between_the_cells_of_its_grid() {
        // The same cells as those of an image half as large, from the middle of the first column
        // on.
        let place = HalfMap { image: [0.5, 2.0, 8.5, 6.0], ..map() };
        let view = ViewTransform { origin: [0.0, 0.0], step: [1.0, 1.0] };
        let soft = SoftView::new(&place, (32, 16), &view, &input(), GRID);
        for (cell, values) in soft.values.chunks(2).enumerate() {
            assert_eq!(values, [(cell % 8) as f32 + 0.5, (2 + cell / 8) as f32]);
        }
    }

    #[test]
    fn cells_outside_the_image_are_not_valid() {
        let view = ViewTransform { origin: [-16.0, 0.0], step: [1.0, 1.0] };
        let soft = SoftView::new(&map(), (64, 32), &view, &input(), GRID);
        assert!(soft.valid.iter().enumerate().all(|(cell, &valid)| valid == (cell % 8 >= 4)));
        assert_eq!(soft.values[2 * 4..][..2], [0.0, 0.0]);
        assert_eq!(soft.values[2 * 5..][..2], [1.0, 0.0]);
    }
}
