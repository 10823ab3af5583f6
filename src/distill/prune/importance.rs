//! Channel importance, by one of three criteria.

use clap::ValueEnum;
use peregrine_engine::channels::Channels;
use peregrine_engine::{Graph, Op, Weights};
use serde::Serialize;

use crate::net::{convolve, Geometry, Mode, NetParams, TrainNet};

/// Importance criteria. A channel in several layers gets the sum over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Criterion {
    /// First-order Taylor estimate of the change of the loss: (Σ gradient · weight)² over the
    /// channel's filter and bias, summed over batches (Molchanov et al. 2019, eq. 8).
    Taylor,
    /// The batch-norm's |γ| (Liu et al. 2017, "network slimming"). Packages have it folded into the
    /// weights, but it equals the standard deviation of the channel before its activation, which is
    /// measured on the data.
    Scale,
    /// Mean |weight| of the filter (Li et al. 2017): a baseline that needs no data.
    L1,
}

/// Sums of importance, by layer and channel.
type ByLayer = Vec<Vec<f64>>;

/// Importance of each channel id from that of each layer's channels. Except for Taylor, which is
/// comparable between layers, each layer is normalised to a mean of one.
pub fn by_channel(channels: &Channels, layers: &ByLayer, criterion: Criterion) -> Vec<f64> {
    let mut sums = vec![0.0; channels.len()];
    for (ids, values) in channels.of.iter().zip(layers).filter(|(_, values)| !values.is_empty()) {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let unit = if criterion == Criterion::Taylor || mean <= 0.0 { 1.0 } else { mean };
        ids.iter().zip(values).for_each(|(&id, value)| sums[id] += value / unit);
    }
    sums
}

/// Mean |weight| of each filter.
pub fn l1(graph: &Graph, weights: &Weights) -> ByLayer {
    let of = |layer: &peregrine_engine::Layer| match layer.op {
        Op::Conv(_) => {
            let conv = weights.of(&layer.name);
            let taps = conv.weight.len() / conv.bias.len();
            let mean = |filter: &[f32]| filter.iter().map(|w| f64::from(w.abs())).sum::<f64>() / taps as f64;
            conv.weight.chunks(taps).map(mean).collect()
        }
        _ => Vec::new(),
    };
    graph.layers.iter().map(of).collect()
}

/// Adds one batch's Taylor terms, from the gradients that `params` hold.
pub fn add_taylor(sums: &mut ByLayer, params: &NetParams) {
    for conv in &params.convs {
        let taps = conv.weight.value.len() / conv.bias.value.len();
        let sums = &mut sums[conv.layer];
        sums.resize(conv.bias.value.len(), 0.0);
        for (c, sum) in sums.iter_mut().enumerate() {
            let range = c * taps..(c + 1) * taps;
            let pairs = conv.weight.value[range.clone()].iter().zip(&conv.weight.gradient[range]);
            let filter: f64 = pairs.map(|(w, g)| f64::from(w * g)).sum();
            *sum += (filter + f64::from(conv.bias.value[c] * conv.bias.gradient[c])).powi(2);
        }
    }
}

/// Mean of each layer's activations, and standard deviation before each convolution's activation
/// function, over data.
pub struct Moments {
    /// For each layer and channel the sum of its activations.
    sums: ByLayer,
    /// For each convolution and channel the sum of its values and of their squares, before bias and
    /// activation function.
    before: Vec<Vec<[f64; 2]>>,
    /// Number of images so far.
    images: usize,
}

impl Moments {
    pub fn new(graph: &Graph) -> Self {
        let channels = |i: usize| graph.layers[i].shape.channels;
        let layers = 0..graph.layers.len();
        Self {
            sums: layers.clone().map(|i| vec![0.0; channels(i)]).collect(),
            before: layers.map(|i| vec![[0.0; 2]; channels(i)]).collect(),
            images: 0,
        }
    }

    /// Adds the activations of `net` for the batch in its input. `net` must have no batch-norm and
    /// be on the CPU.
    ///
    /// # Errors
    /// As [`TrainNet::forward`].
    pub fn add(&mut self, net: &mut TrainNet) -> anyhow::Result<()> {
        net.forward(Mode::Evaluate)?;
        for (id, layer) in net.graph.layers.iter().enumerate() {
            let (pixels, channels) = (layer.shape.pixels(), layer.shape.channels);
            for (i, plane) in net.value(id).chunks(pixels).enumerate() {
                self.sums[id][i % channels] += plane.iter().map(|&v| f64::from(v)).sum::<f64>();
            }
            let Op::Conv(conv) = layer.op else { continue };
            let from = layer.inputs[0];
            let geometry = Geometry::new(conv, net.graph.layers[from].shape, layer.shape);
            let mut before = vec![0.0; net.batch() * layer.shape.len()];
            let params = net.params.convs.iter().find(|c| c.layer == id).expect("every convolution has parameters");
            convolve::forward(&geometry, net.value(from), &params.weight.value, &mut before);
            for (i, plane) in before.chunks(pixels).enumerate() {
                let [sum, squares] = &mut self.before[id][i % channels];
                *sum += plane.iter().map(|&v| f64::from(v)).sum::<f64>();
                *squares += plane.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
            }
        }
        self.images += net.batch();
        Ok(())
    }

    /// The mean activations of each layer's channels.
    pub fn means(&self, graph: &Graph) -> Vec<Vec<f32>> {
        let count = |layer: usize| (self.images * graph.layers[layer].shape.pixels()).max(1) as f64;
        self.sums.iter().enumerate().map(|(l, sums)| sums.iter().map(|s| (s / count(l)) as f32).collect()).collect()
    }

    /// The standard deviation before each convolution's activation function.
    pub fn scales(&self, graph: &Graph) -> ByLayer {
        let of = |(id, layer): (usize, &peregrine_engine::Layer)| match layer.op {
            Op::Conv(_) => {
                let count = (self.images * layer.shape.pixels()).max(1) as f64;
                let deviation = |[sum, squares]: &[f64; 2]| (squares / count - (sum / count).powi(2)).max(0.0).sqrt();
                self.before[id].iter().map(deviation).collect()
            }
            _ => Vec::new(),
        };
        graph.layers.iter().enumerate().map(of).collect()
    }
}
