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
