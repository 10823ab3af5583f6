//! How long a worker is warmed up: by a rule, and not by taste.

use std::time::Instant;

/// Two blocks whose medians are so close, as a share of the first, are taken for stable.
const ALIKE: f64 = 0.05;

/// Blocks after which a machine that never settles is measured as it is.
const MOST_BLOCKS: usize = 10;

/// Runs `frame` with the numbers of frames, in blocks of `block` of them, until the median time of a block differs by no more
/// than 5 % from that of the block before; at most ten blocks. Returns the number of frames; none are run where `block`
/// is 0.
///
/// # Errors
/// The first of `frame`.
pub fn until_stable<E>(block: usize, mut frame: impl FnMut(usize) -> Result<(), E>) -> Result<usize, E> {
    until(block, |index| {
        let begun = Instant::now();
        frame(index)?;
        Ok(begun.elapsed().as_secs_f64())
    })
}

/// As [`until_stable`], with a `frame` that tells how long it took.
fn until<E>(block: usize, mut frame: impl FnMut(usize) -> Result<f64, E>) -> Result<usize, E> {
    let mut before: Option<f64> = None;
    let mut times = Vec::with_capacity(block);
    for number in 0..if block == 0 { 0 } else { MOST_BLOCKS } {
        times.clear();
        for index in number * block..(number + 1) * block {
            times.push(frame(index)?);
        }
        let middle = block / 2;
        let median = *times.select_nth_unstable_by(middle, f64::total_cmp).1;
        if before.is_some_and(|before| (median - before).abs() <= ALIKE * before) {
            return Ok((number + 1) * block);
        }
        before = Some(median);
    }
    Ok(if block == 0 { 0 } else { MOST_BLOCKS * block })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warmed(block: usize, time: impl Fn(usize) -> f64) -> usize {
        until::<()>(block, |index| Ok(time(index))).unwrap()
    }

    #[test]
    fn a_machine_that_is_stable_at_once_takes_two_blocks() {
        assert_eq!(warmed(20, |_| 7.0), 40);
    }

    #[test]
    fn warming_goes_on_while_frames_become_faster() {
        // A frame of ten is an outlier, which a median leaves alone.
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
    fn a_machine_that_never_settles_is_measured_all_the_same() {
        assert_eq!(warmed(4, |index| if index / 4 % 2 == 0 { 1.0 } else { 2.0 }), 40);
    }

    #[test]
    fn no_warm_up_is_none() {
        assert_eq!(warmed(0, |_| unreachable!()), 0);
    }

    #[test]
    fn a_frame_that_fails_ends_it() {
        assert_eq!(until(5, |index| if index == 7 { Err("no") } else { Ok(1.0) }), Err("no"));
    }
}
