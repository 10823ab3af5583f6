//! Warm-up: it ends when the medians of two successive blocks of frames agree within 5 %.

use std::time::Instant;

/// Largest relative difference of two medians that count as equal.
const TOLERANCE: f64 = 0.05;

/// Blocks after which a machine that does not settle is measured as it is.
const MAX_BLOCKS: usize = 10;

/// Runs `frame(index)` in blocks of `block` frames until the median time of a block is within 5 %
/// of that of the block before, for at most ten blocks. Returns the number of frames; 0 if `block`
/// is 0.
///
/// # Errors
/// The first error of `frame`.
pub fn until_stable<E>(block: usize, mut frame: impl FnMut(usize) -> Result<(), E>) -> Result<usize, E> {
    until(block, |index| {
        let begun = Instant::now();
        frame(index)?;
        Ok(begun.elapsed().as_secs_f64())
    })
}

/// [`until_stable`] with a `frame` that returns its duration.
fn until<E>(block: usize, mut frame: impl FnMut(usize) -> Result<f64, E>) -> Result<usize, E> {
    if block == 0 {
        return Ok(0);
    }
    let mut before: Option<f64> = None;
    let mut times = Vec::with_capacity(block);
    for number in 0..MAX_BLOCKS {
        times.clear();
        for index in number * block..(number + 1) * block {
            times.push(frame(index)?);
        }
        let middle = block / 2;
        let median = *times.select_nth_unstable_by(middle, f64::total_cmp).1;
        if before.is_some_and(|before| (median - before).abs() <= TOLERANCE * before) {
            return Ok((number + 1) * block);
        }
        before = Some(median);
    }
    Ok(MAX_BLOCKS * block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warmed(block: usize, time: impl Fn(usize) -> f64) -> usize {
        until::<()>(block, |index| Ok(time(index))).unwrap()
    }

    #[test]
    fn a_stable_machine_takes_two_blocks() {
        assert_eq!(warmed(20, |_| 7.0), 40);
    }

    #[test]
    fn warm_up_continues_while_frames_become_faster() {
        // Every tenth frame is an outlier, to which the median is robust.
        let time = |index| {
            if index % 10 == 9 {
                50.0
            } else if index < 60 {
                20.0 - 0.2 * index as f64
            } else {
                8.0
            }
        };
        assert_eq!(warmed(20, time), 100);
    }

    #[test]
    fn a_machine_that_never_settles_takes_ten_blocks() {
        assert_eq!(warmed(4, |index| if index / 4 % 2 == 0 { 1.0 } else { 2.0 }), 40);
    }

    #[test]
    fn a_block_of_no_frames_is_no_warm_up() {
        assert_eq!(warmed(0, |_| unreachable!()), 0);
    }

    #[test]
    fn an_error_ends_the_warm_up() {
        assert_eq!(until(5, |index| if index == 7 { Err("no") } else { Ok(1.0) }), Err("no"));
    }
}
