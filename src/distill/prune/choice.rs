//! Selection of the channels to prune: the least important for what they cost.

use peregrine_engine::channels::{ChannelId, Channels};
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::{Graph, Op};

/// Minimum fraction of its channels that a layer keeps: a nearly empty layer would be a bottleneck.
const LEAST: f64 = 0.25;

/// What an operation of each layer costs, in any unit.
pub struct Rates(Vec<f64>);

impl Rates {
    /// Every operation costs the same.
    pub fn equal(graph: &Graph) -> Self {
        Self(vec![1.0; graph.layers.len()])
    }

    /// The time that an operation takes where `engine` runs it, ns: the least of a few runs. Layers
    /// that run together share their time by operations; what has none costs nothing here.
    pub fn measured(graph: &Graph, engine: &mut CpuEngine) -> Self {
        let mut rates = vec![0.0; graph.layers.len()];
        for stage in engine.explain(RUNS).stages {
            let flops: usize = stage.steps.iter().map(|step| step.flops).sum();
            let Some(time) = stage.microseconds.filter(|_| flops > 0) else { continue };
            for step in stage.steps {
                if let Some(layer) = graph.layers.iter().position(|layer| layer.name == step.name) {
                    rates[layer] = 1e3 * time / flops as f64;
                }
            }
        }
        Self(rates)
    }

    /// Of the network's convolutions with the channels to `keep`.
    fn cost(&self, graph: &Graph, channels: &Channels, keep: &[bool]) -> f64 {
        let operations = operations(graph, channels, keep);
        operations.zip(&self.0).map(|(operations, rate)| operations as f64 * rate).sum()
    }
}

/// Runs of which the least time counts.
const RUNS: usize = 30;

/// For each channel id whether to keep it, so that about `share` of what the convolutions cost by
/// `rates` remains. Channels are pruned in blocks of up to `multiple`, and each layer keeps a
/// multiple of it, which engines compute efficiently.
pub fn choose(
    graph: &Graph,
    channels: &Channels,
    importance: &[f64],
    rates: &Rates,
    share: f64,
    multiple: usize,
) -> Vec<bool> {
    let mut keep = vec![true; channels.len()];
    let target = share * rates.cost(graph, channels, &keep);
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
        let now = rates.cost(graph, channels, &keep);
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
            let saved = now - rates.cost(graph, channels, &keep);
            block_ids.iter().for_each(|&id| keep[id] = true);
            let loss = block_ids.iter().map(|&id| importance[id]).sum::<f64>() / saved.max(f64::MIN_POSITIVE);
            if best.is_none_or(|b| loss < b.0) {
                best = Some((loss, index, block));
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
    operations(graph, channels, keep).sum()
}

/// The same of each layer.
fn operations<'a>(graph: &'a Graph, channels: &Channels, keep: &[bool]) -> impl Iterator<Item = usize> + 'a {
    let width = |layer: usize| channels.of[layer].iter().filter(|&&id| keep[id]).count();
    let widths: Vec<usize> = (0..graph.layers.len()).map(width).collect();
    graph.layers.iter().enumerate().map(move |(id, layer)| match layer.op {
        Op::Conv(conv) => {
            let per_group = if conv.depthwise { 1 } else { widths[layer.inputs[0]] };
            2 * widths[id] * per_group * conv.kernel * conv.kernel * layer.shape.pixels()
        }
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_student::{Architecture, Student};

    #[test]
    fn the_least_important_channels_are_pruned_to_the_share() {
        let graph = Architecture::default_student().graph(64, 64);
        let channels = Channels::of(&graph);
        // By id, so that in each space the channels with the lowest ids are the least important.
        let importance: Vec<f64> = (0..channels.len()).map(|id| 1.0 + id as f64).collect();
        let keep = choose(&graph, &channels, &importance, &Rates::equal(&graph), 0.6, 8);
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
    #[test]
    fn what_is_slow_goes_before_what_is_quick() {
        let graph = Architecture::default_student().graph(64, 64);
        let channels = Channels::of(&graph);
        let importance = vec![1.0; channels.len()];
        let slow = graph.layers.iter().position(|layer| layer.name == "detect.16.0.pointwise").unwrap();
        let mut rates = Rates::equal(&graph);
        rates.0[slow] = 1e6;
        let whole = rates.cost(&graph, &channels, &vec![true; channels.len()]);
        let keep = choose(&graph, &channels, &importance, &rates, 0.6, 8);
        assert!(rates.cost(&graph, &channels, &keep) <= 0.6 * whole);
        let pruned = |layer: usize| channels.of[layer].iter().any(|&id| !keep[id]);
        assert!(pruned(slow) || pruned(graph.layers[slow].inputs[0]), "what costs nearly all is pruned");
        let other = graph.layers.iter().position(|layer| layer.name == "backbone.2.0.expand").unwrap();
        assert!(!pruned(other), "a layer whose pruning would save nothing is not");
    }

    #[test]
    fn every_convolution_has_a_measured_time() {
        let student = Student::embedded();
        let graph = student.manifest.architecture.graph(64, 64);
        let mut engine = CpuEngine::new(&graph, &student.weights, 1).unwrap();
        let rates = Rates::measured(&graph, &mut engine);
        for (layer, &rate) in graph.layers.iter().zip(&rates.0) {
            assert!(!matches!(layer.op, Op::Conv(_)) || rate > 0.0, "{}", layer.name);
        }
    }
}
