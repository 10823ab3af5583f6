//! Selection of the channels to prune: the least important per operation saved.

use peregrine_engine::channels::{ChannelId, Channels};
use peregrine_engine::{Graph, Op};

/// Minimum fraction of its channels that a layer keeps: a nearly empty layer would be a bottleneck.
const LEAST: f64 = 0.25;

/// For each channel id whether to keep it, so that about `share` of the convolutions' operations
/// remain. Channels are pruned in blocks of up to `multiple`, and each layer keeps a multiple of
/// it, which engines compute efficiently.
pub fn choose(graph: &Graph, channels: &Channels, importance: &[f64], share: f64, multiple: usize) -> Vec<bool> {
    let mut keep = vec![true; channels.len()];
    let target = share * flops(graph, channels, &keep) as f64;
    // The channels of each space, the least important last.
    let mut spaces: Vec<(Vec<ChannelId>, usize)> = channels
        .spaces()
        .into_iter()
        .map(|mut ids| {
            ids.sort_by(|&a, &b| importance[b].total_cmp(&importance[a]));
            let least = ((LEAST * ids.len() as f64).ceil() as usize).next_multiple_of(multiple);
            (ids, least)
        })
        .collect();
    loop {
        let now = flops(graph, channels, &keep) as f64;
        if now <= target {
            return keep;
        }
        let mut best: Option<(f64, usize, usize)> = None;
        for (index, (ids, least)) in spaces.iter().enumerate() {
            let block = match ids.len() % multiple {
                0 => multiple,
                rest => rest,
            };
            if ids.len() < least + block {
                continue;
            }
            let block_ids = &ids[ids.len() - block..];
            block_ids.iter().for_each(|&id| keep[id] = false);
            let saved = now - flops(graph, channels, &keep) as f64;
            block_ids.iter().for_each(|&id| keep[id] = true);
            let cost = block_ids.iter().map(|&id| importance[id]).sum::<f64>() / saved.max(1.0);
            if best.is_none_or(|b| cost < b.0) {
                best = Some((cost, index, block));
            }
        }
        let Some((_, index, block)) = best else { return keep };
        let ids = &mut spaces[index].0;
        ids.drain(ids.len() - block..).for_each(|id| keep[id] = false);
    }
}

/// Operations of the network's convolutions with the channels to `keep`; a multiply-accumulate
/// counts as two.
pub fn flops(graph: &Graph, channels: &Channels, keep: &[bool]) -> usize {
    let width = |layer: usize| channels.of[layer].iter().filter(|&&id| keep[id]).count();
    let widths: Vec<usize> = (0..graph.layers.len()).map(width).collect();
    let of = |(id, layer): (usize, &peregrine_engine::Layer)| match layer.op {
        Op::Conv(conv) => {
            let per_group = if conv.depthwise { 1 } else { widths[layer.inputs[0]] };
            2 * widths[id] * per_group * conv.kernel * conv.kernel * layer.shape.pixels()
        }
        _ => 0,
    };
    graph.layers.iter().enumerate().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_student::Architecture;

    #[test]
    fn the_least_important_channels_are_pruned_to_the_share() {
        let graph = Architecture::default_student().graph(64, 64);
        let channels = Channels::of(&graph);
        // By id, so that in each space the channels with the lowest ids are the least important.
        let importance: Vec<f64> = (0..channels.len()).map(|id| 1.0 + id as f64).collect();
        let keep = choose(&graph, &channels, &importance, 0.6, 8);
        let share = flops(&graph, &channels, &keep) as f64 / flops(&graph, &channels, &vec![true; keep.len()]) as f64;
        assert!(share <= 0.6 && share > 0.55, "{share}");
        assert!(channels.fixed.iter().zip(&keep).all(|(&fixed, &keep)| keep || !fixed));
        for space in channels.spaces() {
            let kept = space.iter().filter(|&&id| keep[id]).count();
            assert!(kept % 8 == 0 && kept * 4 >= space.len());
            let first = space.iter().position(|&id| keep[id]).unwrap();
            assert_eq!(first + kept, space.len(), "the important ones are kept");
        }
    }
}
