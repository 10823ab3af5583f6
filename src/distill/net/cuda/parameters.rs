//! Where parameters lie in one array on the device: trainable tensors first, each from a multiple of
//! [`BLOCK`] values on, then what is not trained (frozen tensors, running statistics). Gradients and
//! the optimizer's memory have the order of the trainable ones.

use peregrine_engine::Graph;

use super::arguments::Group;
use super::kernels::BLOCK;
use crate::net::{ConvParams, NetParams};

/// Where one tensor begins, in values, and how many it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub at: usize,
    pub len: usize,
}

/// The tensors of one convolution.
#[derive(Debug, Clone, Copy)]
pub struct ConvSlots {
    /// Dense `[out][kernel row][kernel column][in]`, depthwise `[kernel row][kernel column][channel]`.
    pub weight: Slot,
    /// Or β.
    pub bias: Slot,
    /// With batch-norm: γ, and the running means and variances, one after the other.
    pub norm: Option<(Slot, Slot)>,
    pub frozen: bool,
    /// Output channels, input channels of a filter, values of a window.
    order: [usize; 3],
}

/// The order of a network's parameters.
#[derive(Debug, Clone)]
pub struct ParameterLayout {
    /// In the order of [`NetParams::convs`].
    pub convs: Vec<ConvSlots>,
    /// Values, the trainable ones alone.
    pub trainable: usize,
    /// All values.
    pub all: usize,
    /// For each block of trainable values the factors of rate and decay.
    pub groups: Vec<Group>,
}

impl ParameterLayout {
    pub fn new(graph: &Graph, params: &NetParams) -> Self {
        let mut groups = Vec::new();
        let mut end = 0;
        let mut take = |len: usize| {
            let slot = Slot { at: end, len };
            end += len.next_multiple_of(BLOCK);
            slot
        };
        // Trainable ones come first, so that two passes are made.
        let mut trained = Vec::new();
        for conv in params.convs.iter().filter(|conv| !conv.frozen) {
            let mut of = |len: usize, decay: f32| {
                groups.resize(groups.len() + len.div_ceil(BLOCK), Group { rate: conv.rate, decay });
                take(len)
            };
            let weight = of(conv.weight.value.len(), 1.0);
            let bias = of(conv.bias.value.len(), 0.0);
            trained.push((weight, bias, conv.norm.as_ref().map(|norm| of(norm.gamma.value.len(), 0.0))));
        }
        let mut trained = trained.into_iter();
        let trainable = groups.len() * BLOCK;
        let convs = params.convs.iter().map(|conv| {
            let (weight, bias, gamma) = match conv.frozen {
                false => trained.next().expect("as many as above"),
                true => {
                    let weight = take(conv.weight.value.len());
                    let bias = take(conv.bias.value.len());
                    (weight, bias, conv.norm.as_ref().map(|norm| take(norm.gamma.value.len())))
                }
            };
            let norm = gamma.map(|gamma| (gamma, take(2 * gamma.len)));
            ConvSlots { weight, bias, norm, frozen: conv.frozen, order: order(graph, conv) }
        });
        let convs = convs.collect();
        Self { convs, trainable, all: end, groups }
    }

    /// All values of `params`, for the device.
    pub fn values(&self, params: &NetParams) -> Vec<f32> {
        let mut values = vec![0.0; self.all];
        for (slots, conv) in self.convs.iter().zip(&params.convs) {
            slots.put_weight(&conv.weight.value, &mut values);
            slots.bias.of_mut(&mut values).copy_from_slice(&conv.bias.value);
            if let Some(((gamma, running), norm)) = slots.norm.zip(conv.norm.as_ref()) {
                gamma.of_mut(&mut values).copy_from_slice(&norm.gamma.value);
                let (mean, variance) = running.of_mut(&mut values).split_at_mut(gamma.len);
                mean.copy_from_slice(&norm.running.mean);
                variance.copy_from_slice(&norm.running.variance);
            }
        }
        values
    }

    /// The way back.
    pub fn take_values(&self, values: &[f32], params: &mut NetParams) {
        for (slots, conv) in self.convs.iter().zip(&mut params.convs) {
            slots.take_weight(values, &mut conv.weight.value);
            conv.bias.value.copy_from_slice(slots.bias.of(values));
            if let Some(((gamma, running), norm)) = slots.norm.zip(conv.norm.as_mut()) {
                norm.gamma.value.copy_from_slice(gamma.of(values));
                let (mean, variance) = running.of(values).split_at(gamma.len);
                norm.running.mean.copy_from_slice(mean);
                norm.running.variance.copy_from_slice(variance);
            }
        }
    }

    /// The gradients of the trainable tensors, from the device.
    pub fn take_gradients(&self, gradients: &[f32], params: &mut NetParams) {
        for (slots, conv) in self.convs.iter().zip(&mut params.convs).filter(|(slots, _)| !slots.frozen) {
            slots.take_weight(gradients, &mut conv.weight.gradient);
            conv.bias.gradient.copy_from_slice(slots.bias.of(gradients));
            if let Some(((gamma, _), norm)) = slots.norm.zip(conv.norm.as_mut()) {
                norm.gamma.gradient.copy_from_slice(gamma.of(gradients));
            }
        }
    }

    /// One value for each trainable one, such as the optimizer's moments, from
    /// [`NetParams::trainable`]'s order.
    pub fn gather<'a>(&self, mut tensors: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
        let mut values = vec![0.0; self.trainable];
        for slots in self.convs.iter().filter(|slots| !slots.frozen) {
            if let Some(weight) = tensors.next() {
                slots.put_weight(weight, &mut values);
            }
            for slot in [Some(slots.bias), slots.norm.map(|norm| norm.0)].into_iter().flatten() {
                if let Some(tensor) = tensors.next() {
                    slot.of_mut(&mut values).copy_from_slice(tensor);
                }
            }
        }
        values
    }

    /// The way back.
    pub fn scatter(&self, values: &[f32]) -> Vec<Vec<f32>> {
        let mut tensors = Vec::new();
        for slots in self.convs.iter().filter(|slots| !slots.frozen) {
            let mut weight = vec![0.0; slots.weight.len];
            slots.take_weight(values, &mut weight);
            tensors.push(weight);
            let others = [Some(slots.bias), slots.norm.map(|norm| norm.0)];
            tensors.extend(others.into_iter().flatten().map(|slot| slot.of(values).to_vec()));
        }
        tensors
    }
}

impl Slot {
    fn of(self, values: &[f32]) -> &[f32] {
        &values[self.at..self.at + self.len]
    }

    fn of_mut(self, values: &mut [f32]) -> &mut [f32] {
        &mut values[self.at..self.at + self.len]
    }
}

impl ConvSlots {
    /// From `[out][in][kernel row][kernel column]` to the kernels' order.
    fn put_weight(&self, weight: &[f32], values: &mut [f32]) {
        let to = self.weight.of_mut(values);
        self.for_each(|host, device| to[device] = weight[host]);
    }

    fn take_weight(&self, values: &[f32], weight: &mut [f32]) {
        let from = self.weight.of(values);
        self.for_each(|host, device| weight[host] = from[device]);
    }

    /// Calls `f(index on the host, index on the device)`. Depthwise filters are one output channel
    /// with each channel as an input.
    fn for_each(&self, mut f: impl FnMut(usize, usize)) {
        let [out, inputs, taps] = self.order;
        for o in 0..out {
            for i in 0..inputs {
                (0..taps).for_each(|t| f((o * inputs + i) * taps + t, (o * taps + t) * inputs + i));
            }
        }
    }
}

fn order(graph: &Graph, conv: &ConvParams) -> [usize; 3] {
    let layer = &graph.layers[conv.layer];
    let peregrine_engine::Op::Conv(of) = layer.op else { unreachable!("only convolutions have parameters") };
    let inputs = graph.layers[layer.inputs[0]].shape.channels;
    let out = if of.depthwise { 1 } else { layer.shape.channels };
    [out, inputs, of.kernel * of.kernel]
}
