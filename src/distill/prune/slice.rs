//! Removal of channels from a network's weights.

use std::collections::BTreeMap;

use peregrine_engine::channels::Channels;
use peregrine_engine::{ConvWeights, Graph, Weights};

/// The weights of the channels to `keep`, for the graph with [`widths`].
///
/// `means` has the mean activation of each layer and channel. The mean contribution of a pruned
/// channel to the following layers is added to their biases ("mean replacement", Evci et al. 2018).
pub fn weights(graph: &Graph, weights: &Weights, channels: &Channels, keep: &[bool], means: &[Vec<f32>]) -> Weights {
    let kept = |layer: usize| -> Vec<usize> {
        channels.of[layer].iter().enumerate().filter(|(_, &id)| keep[id]).map(|(c, _)| c).collect()
    };
    let mut cut = Weights::default();
    let ids = (0..graph.layers.len()).filter(|&id| matches!(graph.layers[id].op, peregrine_engine::Op::Conv(_)));
    for (id, (layer, conv, shape)) in ids.zip(graph.convs()) {
        let from = layer.inputs[0];
        let (outs, ins) = (kept(id), if conv.depthwise { vec![0] } else { kept(from) });
        let old = weights.of(&layer.name);
        let taps = shape[2] * shape[3];
        let filter = |o: usize, i: usize| &old.weight[(o * shape[1] + i) * taps..][..taps];
        let pruned = |i: &usize| !conv.depthwise && !keep[channels.of[from][*i]];
        let bias = |o: usize| {
            let lost = (0..shape[1]).filter(pruned).map(|i| means[from][i] * filter(o, i).iter().sum::<f32>());
            old.bias[o] + lost.sum::<f32>()
        };
        cut.0.insert(
            layer.name.clone(),
            ConvWeights {
                weight: outs.iter().flat_map(|&o| ins.iter().flat_map(move |&i| filter(o, i))).copied().collect(),
                bias: outs.iter().map(|&o| bias(o)).collect(),
            },
        );
    }
    cut
}

/// The number of channels of each dense convolution that keeps fewer than it has.
pub fn widths(graph: &Graph, channels: &Channels, keep: &[bool]) -> BTreeMap<String, usize> {
    let layers = graph.layers.iter().zip(&channels.of);
    layers
        .filter(|(layer, _)| matches!(layer.op, peregrine_engine::Op::Conv(conv) if !conv.depthwise))
        .map(|(layer, ids)| (layer.name.clone(), ids.len(), ids.iter().filter(|&&id| keep[id]).count()))
        .filter(|(_, all, kept)| kept < all)
        .map(|(name, _, kept)| (name, kept))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_engine::cpu::CpuEngine;
    use peregrine_engine::Op;
    use peregrine_reference::graphs::any_graph;
    use peregrine_reference::{outputs, random_input, random_weights, relative_error};
    use proptest::prelude::*;

    /// Weights under which no channel without `keep` has a say in any other.
    fn without_influence(graph: &Graph, mut weights: Weights, channels: &Channels, keep: &[bool]) -> Weights {
        for layer in &graph.layers {
            let Op::Conv(conv) = layer.op else { continue };
            if conv.depthwise {
                continue;
            }
            let from = &channels.of[layer.inputs[0]];
            let taps = conv.kernel * conv.kernel;
            let values = weights.0.get_mut(&layer.name).unwrap();
            for (i, filter) in values.weight.chunks_mut(taps).enumerate() {
                if !keep[from[i % from.len()]] {
                    filter.fill(0.0);
                }
            }
        }
        weights
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]
        #[test]
        fn any_network_without_idle_channels_computes_the_same(graph in any_graph(), seed: u64) {
            let channels = Channels::of(&graph);
            let mut keep: Vec<bool> = (0..channels.len()).map(|id| !(id as u64 ^ seed).is_multiple_of(3) || channels.fixed[id]).collect();
            channels.spaces().iter().for_each(|space| keep[space[0]] = true);
            let weights = without_influence(&graph, random_weights(&graph, seed), &channels, &keep);
            let narrow = channels.narrowed(&graph, &keep);
            let means: Vec<Vec<f32>> = graph.layers.iter().map(|l| vec![0.0; l.shape.channels]).collect();
            let cut = super::weights(&graph, &weights, &channels, &keep, &means);
            let input = random_input(&graph, seed);
            let run = |graph: &Graph, weights: &Weights| {
                outputs(graph, &mut CpuEngine::new(graph, weights, 1).unwrap(), &input)
            };
            let error = relative_error(&run(&graph, &weights), &run(&narrow, &cut));
            prop_assert!(error < 1e-4, "{error}");
        }
    }
}
