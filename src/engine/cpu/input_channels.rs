//! Where a dense convolution finds its input channels: in one tensor, or scattered over several.
//!
//! A convolution sums over its input channels in any order. So those of a slice, a channel shuffle
//! or a concatenation are read where they are: sorted by place, and its weights packed in that
//! order.

use super::layout::FloatView;
use super::simd::BLOCK;

/// Consecutive channels within one block of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelRun {
    /// Floats from channel 0 of the convolution's input view.
    pub offset: isize,
    /// 1 to [`BLOCK`].
    pub len: usize,
}

/// All input channels of a dense convolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputChannels {
    pub runs: Vec<ChannelRun>,
    /// The input channel that each place in the runs holds.
    pub order: Vec<usize>,
}

impl InputChannels {
    /// The channels of one tensor.
    pub fn of_view(view: &FloatView) -> Self {
        let channels = view.shape.channels;
        let run = |b: usize| ChannelRun { offset: (b * view.plane) as isize, len: BLOCK.min(channels - b * BLOCK) };
        Self { runs: (0..view.blocks()).map(run).collect(), order: (0..channels).collect() }
    }

    /// Channels by their offsets from channel 0 of the input view.
    pub fn of_offsets(offsets: &[isize]) -> Self {
        let mut order: Vec<usize> = (0..offsets.len()).collect();
        order.sort_by_key(|&channel| offsets[channel]);
        let mut runs: Vec<ChannelRun> = vec![];
        for &channel in &order {
            let offset = offsets[channel];
            match runs.last_mut() {
                // Not past the block, wherever in it the run began: the tiles have a loop of that
                // length at most.
                Some(run) if run.offset + run.len as isize == offset && run.len < BLOCK => run.len += 1,
                _ => runs.push(ChannelRun { offset, len: 1 }),
            }
        }
        Self { runs, order }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scattered_channels_are_read_in_runs_by_place() {
        let channels = InputChannels::of_offsets(&[100, 3, 101, -8, 2]);
        let run = |offset, len| ChannelRun { offset, len };
        assert_eq!(channels.runs, [run(-8, 1), run(2, 2), run(100, 2)]);
        assert_eq!(channels.order, [3, 4, 1, 0, 2]);
    }
}
