//! Maxima and means of windows over one channel.

use peregrine_engine::{Shape, Window};

/// The index in `plane` of the largest value in the window of output pixel (y, x); the first of
/// equals.
pub fn largest(plane: &[f32], shape: Shape, window: Window, (y, x): (usize, usize)) -> usize {
    let (rows, columns) = (window.span(y, shape.height), window.span(x, shape.width));
    let first = rows.start * shape.width + columns.start;
    let (mut best, mut most) = (first, plane[first]);
    for row in rows {
        let start = row * shape.width;
        for (here, &value) in plane[start + columns.start..start + columns.end].iter().enumerate() {
            // NaN wins, so that it shows in the loss.
            if value > most || value.is_nan() {
                (best, most) = (start + columns.start + here, value);
            }
        }
    }
    best
}

/// Calls `f(output value, input value, share)` for each value that an output of a mean over windows
/// averages; padding does not count.
pub fn for_each_share(from: Shape, to: Shape, window: Window, mut f: impl FnMut(usize, usize, f32)) {
    for y in 0..to.height {
        let rows = window.span(y, from.height);
        for x in 0..to.width {
            let columns = window.span(x, from.width);
            let share = 1.0 / (rows.len() * columns.len()) as f32;
            for row in rows.clone() {
                columns.clone().for_each(|column| f(y * to.width + x, row * from.width + column, share));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_gives_its_largest_value_and_never_padding() {
        let plane = [-1.0, -2.0, -3.0, -4.0, -9.0, -8.0, -7.0, -6.0];
        let at = |(kernel, stride), y, x| largest(&plane, Shape::new(1, 2, 4), Window::same(kernel, stride), (y, x));
        assert_eq!([0, 1, 2, 3].map(|x| at((3, 1), 0, x)), [0, 0, 1, 2]);
        // Even sizes, stride 2: the window begins at the pixel itself.
        assert_eq!([0, 1].map(|x| at((3, 2), 0, x)), [0, 2]);
        assert_eq!([0, 1].map(|x| at((1, 2), 0, x)), [0, 2]);
    }
}
