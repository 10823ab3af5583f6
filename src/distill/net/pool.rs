//! Maxima and means of windows over one channel.

use std::ops::Range;

use peregrine_engine::{Shape, Window};

/// Calls `f(output value, input value)` with the largest value in the window of each output; the first of
/// equals.
pub fn for_each_largest(plane: &[f32], from: Shape, to: Shape, window: Window, mut f: impl FnMut(usize, usize)) {
    let columns: Vec<Range<usize>> = (0..to.width).map(|x| window.span(x, from.width)).collect();
    for y in 0..to.height {
        let rows = window.span(y, from.height);
        for (x, columns) in columns.iter().enumerate() {
            f(y * to.width + x, largest(plane, from.width, &rows, columns));
        }
    }
}

#[inline]
fn largest(plane: &[f32], width: usize, rows: &Range<usize>, columns: &Range<usize>) -> usize {
    let first = rows.start * width + columns.start;
    let (mut best, mut most) = (first, plane[first]);
    for row in rows.clone() {
        let start = row * width;
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
        let of = |(kernel, stride), to| {
            let mut found = vec![];
            let window = Window::same(kernel, stride);
            for_each_largest(&plane, Shape::new(1, 2, 4), to, window, |i, largest| found.push((i, largest)));
            found.into_iter().map(|(_, largest)| largest).collect::<Vec<_>>()
        };
        assert_eq!(of((3, 1), Shape::new(1, 2, 4))[..4], [0, 0, 1, 2]);
        // Even sizes, stride 2: the window begins at the pixel itself.
        assert_eq!(of((3, 2), Shape::new(1, 1, 2)), [0, 2]);
        assert_eq!(of((1, 2), Shape::new(1, 1, 2)), [0, 2]);
    }
}
