//! Simplification of an imported network, each step of which leaves what it computes unchanged:
//! layers that nothing reads go, factors and offsets move into the convolutions before them, and so
//! do activations; a convolution that is only ever read in parts becomes a convolution for each.

use std::collections::HashMap;

use peregrine_engine::{Activation, Conv, ConvWeights, Graph, LayerId, Op, Weights};

use super::network::Network;

/// The simplified graph and its weights; `network.graph.outputs` are the outputs, in order.
pub fn simplify(network: Network) -> (Graph, Weights) {
    let Network { graph, weights, .. } = network;
    let (graph, weights) = without_unread(graph, weights);
    let (graph, weights) = folded(graph, weights);
    let (graph, weights) = without_unread(graph, weights);
    let (graph, weights) = split(graph, weights);
    without_unread(graph, weights)
}

/// How many layers read each, an output counting as a reader.
fn readers(graph: &Graph) -> Vec<usize> {
    let mut readers = vec![0; graph.layers.len()];
    graph.layers.iter().flat_map(|layer| &layer.inputs).chain(&graph.outputs).for_each(|&id| readers[id] += 1);
    readers
}

/// Only the layers that an output depends on.
fn without_unread(graph: Graph, mut weights: Weights) -> (Graph, Weights) {
    let mut needed = vec![false; graph.layers.len()];
    needed[0] = true;
    graph.outputs.iter().for_each(|&id| needed[id] = true);
    for (id, layer) in graph.layers.iter().enumerate().rev() {
        if needed[id] {
            layer.inputs.iter().for_each(|&input| needed[input] = true);
        }
    }
    let mut place = vec![0; graph.layers.len()];
    let mut layers = Vec::new();
    for (id, mut layer) in graph.layers.into_iter().enumerate() {
        if needed[id] {
            layer.inputs.iter_mut().for_each(|input| *input = place[*input]);
            place[id] = layers.len();
            layers.push(layer);
        } else {
            weights.0.remove(&layer.name);
        }
    }
    let outputs = graph.outputs.into_iter().map(|id| place[id]).collect();
    (Graph { layers, outputs }, weights)
}

/// Factors, offsets and activations that follow a convolution, in it.
fn folded(mut graph: Graph, mut weights: Weights) -> (Graph, Weights) {
    let readers = readers(&graph);
    // What each layer has become part of.
    let mut place: Vec<LayerId> = (0..graph.layers.len()).collect();
    // How many read what a layer has grown to.
    let mut read_by = readers.clone();
    for id in 0..graph.layers.len() {
        let inputs: Vec<LayerId> = graph.layers[id].inputs.iter().map(|&input| place[input]).collect();
        graph.layers[id].inputs.clone_from(&inputs);
        let Some(&before) = inputs.first() else { continue };
        let Op::Conv(conv) = graph.layers[before].op else { continue };
        if read_by[before] != 1 {
            continue;
        }
        let plain = conv.activation == Activation::Identity;
        match graph.layers[id].op {
            Op::Activate(activation) if plain => graph.layers[before].op = Op::Conv(Conv { activation, ..conv }),
            Op::Conv(after)
                if after.is_channelwise() && (plain || passes(conv, after, weights.of(&graph.layers[id].name))) =>
            {
                let by = weights.0.remove(&graph.layers[id].name).expect("each convolution has weights");
                scale_rows(weights.0.get_mut(&graph.layers[before].name).expect("likewise"), &by);
                let activation = if plain { after.activation } else { conv.activation };
                graph.layers[before].op = Op::Conv(Conv { activation, ..conv });
            }
            _ => continue,
        }
        place[id] = before;
        read_by[before] = readers[id];
    }
    graph.outputs.iter_mut().for_each(|output| *output = place[*output]);
    (graph, weights)
}

/// Whether factors pass through the activation before them: a·max(x, 0) = max(a·x, 0) for a above 0.
fn passes(before: Conv, after: Conv, by: &ConvWeights) -> bool {
    matches!(before.activation, Activation::Relu | Activation::LeakyRelu)
        && after.activation == Activation::Identity
        && by.weight.iter().all(|&factor| factor > 0.0)
        && by.bias.iter().all(|&offset| offset == 0.0)
}

/// Multiplies each output channel, and adds to it.
fn scale_rows(weights: &mut ConvWeights, by: &ConvWeights) {
    let per_row = weights.weight.len() / weights.bias.len();
    for (c, row) in weights.weight.chunks_mut(per_row).enumerate() {
        row.iter_mut().for_each(|w| *w *= by.weight[c]);
        weights.bias[c] = weights.bias[c] * by.weight[c] + by.bias[c];
    }
}

/// Each dense convolution that only slices read, as a convolution for each slice. So a head's
/// classes and boxes are layers of their own, and pruning may narrow what was split.
fn split(mut graph: Graph, mut weights: Weights) -> (Graph, Weights) {
    let mut slices: HashMap<LayerId, usize> = HashMap::new();
    for layer in graph.layers.iter().filter(|layer| matches!(layer.op, Op::Slice { .. })) {
        *slices.entry(layer.inputs[0]).or_default() += 1;
    }
    let readers = readers(&graph);
    for id in 0..graph.layers.len() {
        let Op::Slice { first } = graph.layers[id].op else { continue };
        let from = graph.layers[id].inputs[0];
        let whole = &graph.layers[from];
        let Op::Conv(conv) = whole.op else { continue };
        if conv.depthwise || readers[from] != slices[&from] {
            continue;
        }
        let (input, channels) = (whole.inputs[0], graph.layers[id].shape.channels);
        let all = weights.of(&whole.name);
        let per_row = all.weight.len() / all.bias.len();
        let rows = first..first + channels;
        let part = ConvWeights {
            weight: all.weight[rows.start * per_row..rows.end * per_row].to_vec(),
            bias: all.bias[rows].to_vec(),
        };
        let layer = &mut graph.layers[id];
        layer.op = Op::Conv(conv);
        layer.inputs = vec![input];
        weights.0.insert(layer.name.clone(), part);
    }
    (graph, weights)
}

#[cfg(test)]
mod tests {
    use peregrine_engine::cpu::CpuEngine;
    use peregrine_engine::{Engine, Padding, Shape};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn outputs(graph: &Graph, weights: &Weights) -> Vec<Vec<f32>> {
        let mut engine = CpuEngine::new(graph, weights, 1).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        engine.input().iter_mut().for_each(|v| *v = rng.random_range(-2.0..2.0));
        engine.run().unwrap();
        (0..graph.outputs.len()).map(|i| engine.output(i).to_vec()).collect()
    }

    #[test]
    fn simplification_leaves_what_is_computed_unchanged() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let mut network = Network::new(Shape::new(3, 8, 8));
        let dense =
            Conv { kernel: 3, stride: 1, depthwise: false, activation: Activation::Identity, padding: Padding::Even };
        let a = network.conv("a", 0, dense, ConvWeights { weight: random(8 * 27), bias: random(8) }).unwrap();
        let b = network.affine("b", a, random(8), random(8)).unwrap();
        let c = network.push("c", Op::Activate(Activation::LeakyRelu), &[b], 8).unwrap();
        let left = network.push("left", Op::Slice { first: 0 }, &[c], 3).unwrap();
        let right = network.push("right", Op::Slice { first: 3 }, &[c], 5).unwrap();
        let unread = network.affine("unread", right, random(5), random(5)).unwrap();
        network.affine("also unread", unread, random(5), random(5)).unwrap();
        // Read twice: its factor must not move into it.
        let d = network.conv("d", left, dense, ConvWeights { weight: random(5 * 27), bias: random(5) }).unwrap();
        let e = network.affine("e", d, random(5), random(5)).unwrap();
        let sum = network.push("sum", Op::Add, &[d, e], 5).unwrap();
        let total = network.push("total", Op::Add, &[sum, right], 5).unwrap();
        network.graph.outputs = vec![total, e];
        let before = outputs(&network.graph, &network.weights);
        let (graph, weights) = simplify(network);
        weights.check(&graph).unwrap();
        let names: Vec<_> = graph.layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["input", "left", "right", "d", "e", "sum", "total"]);
        for (before, after) in before.iter().zip(outputs(&graph, &weights)) {
            assert!(before.iter().zip(after).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }
}
