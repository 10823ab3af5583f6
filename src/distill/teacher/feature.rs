//! A feature: an inner tensor of a teacher for a whole image, that a layer of the student learns
//! from.

use anyhow::bail;

use super::candidates::OutputTensor;
use super::description::Layout;
use super::placement::Placement;

/// The values of the cells of a grid on which an image lies.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    pub width: usize,
    pub height: usize,
    /// `[channels, height, width]`
    pub values: Vec<f32>,
    /// Left, top, right and bottom of the image, in cells: fractions, since a letterboxed image
    /// seldom ends on the border of a cell.
    pub image: [f32; 4],
}

impl Feature {
    /// The cells that overlap the `image`, of a tensor of `channels` over `width` × `height` cells
    /// whose values `at` gives by channel, row and column.
    pub fn cut(
        (channels, height, width): (usize, usize, usize),
        image: [f32; 4],
        at: impl Fn(usize, usize, usize) -> f32,
    ) -> Self {
        let cells = |from: f32, to: f32, size: usize| {
            let first = (from.floor() as usize).min(size - 1);
            (first, (to.ceil() as usize).clamp(first + 1, size) - first)
        };
        let ((left, columns), (top, rows)) = (cells(image[0], image[2], width), cells(image[1], image[3], height));
        let mut values = Vec::with_capacity(channels * rows * columns);
        for c in 0..channels {
            for y in top..top + rows {
                values.extend((left..left + columns).map(|x| at(c, y, x)));
            }
        }
        let (x, y) = (left as f32, top as f32);
        Self { width: columns, height: rows, values, image: [image[0] - x, image[1] - y, image[2] - x, image[3] - y] }
    }

    /// From an ONNX network's output, `[1, channels, h, w]`, or `[1, h, w, channels]` with `layout
    /// = "nhwc"`.
    ///
    /// # Errors
    /// When the tensor has another shape.
    pub fn of_output(name: &str, layout: Layout, output: &OutputTensor, placement: &Placement) -> anyhow::Result<Self> {
        let (shape, values) = output;
        let (channels, height, width) = match (layout, shape.as_slice()) {
            (Layout::Nchw, &[1, channels, height, width]) if !values.is_empty() => (channels, height, width),
            (Layout::Nhwc, &[1, height, width, channels]) if !values.is_empty() => (channels, height, width),
            _ => {
                let order = if layout == Layout::Nchw { "[1, channels, h, w]" } else { "[1, h, w, channels]" };
                bail!("output {name:?} is {shape:?}; a feature is {order}")
            }
        };
        let at = |c: usize, y: usize, x: usize| match layout {
            Layout::Nchw => values[(c * height + y) * width + x],
            Layout::Nhwc => values[(y * width + x) * channels + c],
        };
        Ok(Self::cut((channels, height, width), placement.on_grid(width, height), at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teacher::description::Fit;
    use crate::teacher::input_size::InputSize;

    /// Two channels over 8 × 8 cells: the value of the first is the column, that of the second the
    /// row.
    fn tensor(layout: Layout) -> Vec<f32> {
        let of = |i: usize| match layout {
            Layout::Nchw if i < 64 => i % 8,
            Layout::Nchw => i / 8 % 8,
            Layout::Nhwc if i.is_multiple_of(2) => i / 2 % 8,
            Layout::Nhwc => i / 16,
        };
        (0..128).map(|i| of(i) as f32).collect()
    }

    #[test]
    fn the_cells_on_the_image_are_kept_with_its_place_on_them() {
        // 64 × 40 pixels in 64 × 64: rows 12 to 52, which are rows 1.5 to 6.5 of 8.
        let placement = Placement::new(Fit::Letterbox, (64, 40), InputSize::square(64));
        for (layout, shape) in [(Layout::Nchw, vec![1, 2, 8, 8]), (Layout::Nhwc, vec![1, 8, 8, 2])] {
            let values = tensor(layout);
            let feature = Feature::of_output("f", layout, &(shape, &values[..]), &placement).unwrap();
            assert_eq!((feature.width, feature.height, feature.image), (8, 6, [0.0, 0.5, 8.0, 5.5]));
            for (i, value) in feature.values.iter().enumerate() {
                let expected = if i < 48 { i % 8 } else { 1 + i % 48 / 8 };
                assert_eq!(*value, expected as f32, "{layout:?} {i}");
            }
        }
    }

    #[test]
    fn a_tensor_that_is_not_a_map_is_refused_with_its_shape() {
        let placement = Placement::new(Fit::Stretch, (8, 8), InputSize::square(64));
        let error = Feature::of_output("f", Layout::Nchw, &(vec![1, 4], &[0.0; 4]), &placement).unwrap_err();
        assert!(error.to_string().contains("\"f\" is [1, 4]"), "{error}");
    }
}
