//! Maxima and means of windows over one channel.

use peregrine_engine::{Shape, Window};

use super::vectors::vectorised;

/// Calls `f(output value, input value)` with the largest value in the window of each output; the first of
/// equals.
///
/// Tap by tap along a row of outputs, so that many are compared at once.
pub fn for_each_largest(plane: &[f32], from: Shape, to: Shape, window: Window, mut f: impl FnMut(usize, usize)) {
    let (before, stride) = (window.before(from.width), window.stride);
    let (mut most, mut best) = (vec![0.0; to.width], vec![0; to.width]);
    for y in 0..to.height {
        let rows = window.span(y, from.height);
        for (x, (most, best)) in most.iter_mut().zip(&mut best).enumerate() {
            *best = (rows.start * from.width + window.span(x, from.width).start) as u32;
            *most = plane[*best as usize];
        }
        vectorised!({
            for row in rows.clone() {
                for tap in 0..window.kernel {
                    // Outputs whose input `x · stride + tap − before` is one.
                    let first = before.saturating_sub(tap).div_ceil(stride).min(to.width);
                    let end = (from.width + before).saturating_sub(tap).div_ceil(stride).clamp(first, to.width);
                    // Of a map narrower than the window some taps meet padding alone.
                    if first == end {
                        continue;
                    }
                    let at = row * from.width + first * stride + tap - before;
                    let (most, best) = (&mut most[first..end], &mut best[first..end]);
                    match stride {
                        1 => take_larger::<1>(plane, at, most, best),
                        2 => take_larger::<2>(plane, at, most, best),
                        3 => take_larger::<3>(plane, at, most, best),
                        _ => (0..most.len()).for_each(|x| take_one(plane, at + x * stride, &mut most[x], &mut best[x])),
                    }
                }
            }
        });
        best.iter().enumerate().for_each(|(x, &best)| f(y * to.width + x, best as usize));
    }
}

/// Compares every `STRIDE`th value from the `at`th on with the largest so far.
#[inline(always)]
fn take_larger<const STRIDE: usize>(plane: &[f32], at: usize, most: &mut [f32], best: &mut [u32]) {
    // The last value may have none behind it that would make its step whole.
    let Some(last) = most.len().checked_sub(1) else { return };
    let steps = plane[at..][..last * STRIDE].chunks_exact(STRIDE);
    for (x, ((step, most), best)) in steps.zip(&mut *most).zip(&mut *best).enumerate() {
        let (value, place) = (step[0], (at + x * STRIDE) as u32);
        let larger = value > *most || value.is_nan();
        *most = if larger { value } else { *most };
        *best = if larger { place } else { *best };
    }
    take_one(plane, at + last * STRIDE, &mut most[last], &mut best[last]);
}

/// Compares one value with the largest so far. NaN wins, so that it shows in the loss.
#[inline(always)]
fn take_one(plane: &[f32], at: usize, most: &mut f32, best: &mut u32) {
    if plane[at] > *most || plane[at].is_nan() {
        (*most, *best) = (plane[at], at as u32);
    }
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

    #[test]
    fn largest_values_are_those_of_the_definition() {
        let windows =
            [Window::same(3, 2), Window::even(3, 2), Window::same(5, 1), Window::even(2, 2), Window::same(3, 3)];
        // Maps that are narrower than the window, too.
        for (from, window) in [Shape::new(1, 13, 37), Shape::new(1, 3, 1), Shape::new(1, 1, 2)]
            .into_iter()
            .flat_map(|from| windows.map(|window| (from, window)))
        {
            let mut plane = super::super::check::values(from.pixels(), 7);
            // Equals too.
            plane.iter_mut().step_by(3).for_each(|value| *value = 0.5);
            if let Some(value) = plane.get_mut(40) {
                *value = f32::NAN;
            }
            let to = Shape::new(1, window.output(from.height), window.output(from.width));
            for_each_largest(&plane, from, to, window, |i, found| {
                let (rows, columns) = (window.span(i / to.width, from.height), window.span(i % to.width, from.width));
                let inputs = rows.flat_map(|row| columns.clone().map(move |column| row * from.width + column));
                let better = |best: usize, at: usize| {
                    if plane[at] > plane[best] || plane[at].is_nan() {
                        at
                    } else {
                        best
                    }
                };
                assert_eq!(found, inputs.reduce(better).unwrap(), "{window:?} at {i}");
            });
        }
    }
}
