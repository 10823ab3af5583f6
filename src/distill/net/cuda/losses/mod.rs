//! The losses of a step on the device: a record of tensors becomes launches between the two passes.
//!
//! - [`program`]: a record in order, apart from what changes from step to step; [`schedule`]: its launches
//!   and their memory; `pointwise`: what is computed value by value, together; `access`: views of memory.

mod access;
mod pointwise;
pub mod program;
pub mod schedule;
#[cfg(test)]
mod tests;

use peregrine_engine::cuda::launch::{Launch, Node, NodeWork, Span};
use peregrine_engine::cuda::plain::Plain;

use super::kernels::{Precision, BLOCK};
use access::Access;
use pointwise::Expression;

/// Copies a tensor of `[images, channels, pixels]`; where there are `numbers`, each channel times a factor
/// plus an offset of its own.
pub fn channelwise_affine(
    precision: Precision,
    from: &Span,
    to: &Span,
    sizes: [usize; 3],
    numbers: Option<&Span>,
) -> Vec<Node> {
    let (from, to) = (Access::plain(from.clone(), &sizes), Access::plain(to.clone(), &sizes));
    let channel = |channel: usize| {
        let part = |access: &Access| access.narrowed(1, channel, 1);
        let expression = Expression::of(part(&from));
        let expression = match numbers {
            Some(_) => Expression::apply(pointwise::AFFINE, 2 * channel, &[&expression]).expect("it is only one"),
            None => expression,
        };
        let argument = expression.argument(&part(&to), numbers.map_or(0, |numbers| numbers.start));
        let launch = Launch {
            kernel: precision.kernel("pointwise"),
            grid: [(argument.count as u32).div_ceil(BLOCK as u32), 1, 1],
            threads: BLOCK as u32,
            argument: argument.bytes(),
        };
        let reads = [Some(&from.span), numbers].into_iter().flatten().cloned().collect();
        let name = format!("channel {channel}");
        Node { name, work: NodeWork::Kernel(launch), reads, writes: vec![to.span.clone()] }
    };
    (0..sizes[1]).map(channel).collect()
}
