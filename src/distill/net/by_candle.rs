//! The two passes with candle's plain operations, for tests: what our own are compared with.
//!
//! Tensors are `[channels, batch, height, width]`, so that a pointwise convolution is one matrix
//! product over the whole batch. A window is split into its taps, each a shifted view of the padded
//! map, and every layer with a window is a sum (or a maximum) over those. In the backward pass,
//! each layer is recomputed with its inputs and parameters as variables and differentiated by
//! candle alone, so that the intermediates of only one layer are held.

use candle_core::{Device, Result, Tensor, Var};
use peregrine_engine::op::LEAK;
use peregrine_engine::{Activation, Conv, Graph, Interpolation, Layer, LayerId, Op, Shape, Window};

use super::gradients::add_or_copy;
use super::norm::{BatchStatistics, EPSILON};
use super::{ConvParams, Mode, NetParams, TrainNet};

/// A network in training, by whatever passes.
pub trait Passes {
    /// Its input, parameters and, after a forward pass, tensors.
    fn net(&mut self) -> &mut TrainNet;

    fn forward(&mut self, mode: Mode);

    /// As [`TrainNet::backward`].
    fn backward<'a>(&mut self, seeds: impl IntoIterator<Item = (LayerId, &'a [f32])>);
}

impl Passes for TrainNet {
    fn net(&mut self) -> &mut TrainNet {
        self
    }

    fn forward(&mut self, mode: Mode) {
        TrainNet::forward(self, mode).unwrap();
    }

    fn backward<'a>(&mut self, seeds: impl IntoIterator<Item = (LayerId, &'a [f32])>) {
        TrainNet::backward(self, seeds).unwrap();
    }
}

/// A network that candle computes.
pub struct ByCandle {
    net: TrainNet,
    passes: CandlePasses,
}

impl ByCandle {
    pub fn new(net: TrainNet) -> Self {
        let passes = CandlePasses { batch: net.batch(), mode: Mode::Train, values: Vec::new() };
        Self { net, passes }
    }
}

impl Passes for ByCandle {
    fn net(&mut self) -> &mut TrainNet {
        &mut self.net
    }

    fn forward(&mut self, mode: Mode) {
        let Self { net, passes } = self;
        for (index, of_batch) in passes.forward(&net.graph, &net.params, net.value(0), mode).unwrap() {
            net.params.convs[index].norm.as_mut().expect("it was normalised").running.follow(&of_batch);
        }
        net.values = (0..net.graph.layers.len()).map(|layer| passes.value(layer).unwrap()).collect();
    }

    fn backward<'a>(&mut self, seeds: impl IntoIterator<Item = (LayerId, &'a [f32])>) {
        let Self { net, passes } = self;
        for found in passes.backward(&net.graph, &net.params, &net.gradients.needed, seeds).unwrap() {
            let conv = &mut net.params.convs[found.conv];
            add_or_copy(&mut conv.weight.gradient, &found.weight, true);
            add_or_copy(&mut conv.bias.gradient, &found.bias, true);
            if let Some(norm) = &mut conv.norm {
                add_or_copy(&mut norm.gamma.gradient, &found.gamma, true);
            }
        }
    }
}

/// A network's tensors.
struct CandlePasses {
    batch: usize,
    mode: Mode,
    /// The tensor of each layer from the last forward pass.
    values: Vec<Tensor>,
}

/// The parameters of one convolution.
struct Parameters {
    /// `[out, in per group, kernel, kernel]`.
    weight: Tensor,
    /// `[out, 1]`, like those of the norm.
    bias: Tensor,
    norm: Option<Normalisation>,
}

struct Normalisation {
    gamma: Tensor,
    /// The running mean and variance; `None` for those of the batch.
    running: Option<(Tensor, Tensor)>,
}

/// The gradients of one convolution's parameters.
struct ConvGradients {
    /// Index in [`NetParams::convs`].
    conv: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// Empty without batch-norm.
    gamma: Vec<f32>,
}

impl CandlePasses {
    /// Runs the network over `input` (`[batch, channels, height, width]`). Returns the statistics
    /// of the batch for each convolution that is normalised by them, with its index in `params`.
    fn forward(
        &mut self,
        graph: &Graph,
        params: &NetParams,
        input: &[f32],
        mode: Mode,
    ) -> Result<Vec<(usize, BatchStatistics)>> {
        self.mode = mode;
        self.values.clear();
        self.values.push(self.upload(input, graph.input_shape())?);
        let mut statistics = Vec::new();
        for layer in &graph.layers[1..] {
            let id = self.values.len();
            let inputs: Vec<Tensor> = layer.inputs.iter().map(|&i| self.values[i].clone()).collect();
            let index = params.convs.iter().position(|c| c.layer == id);
            let parameters = index.map(|i| self.parameters(&params.convs[i], &layer.op)).transpose()?;
            let (value, of_batch) = apply(layer, &inputs, parameters.as_ref())?;
            statistics.extend(index.zip(of_batch));
            self.values.push(value);
        }
        let fetch = |(conv, (mean, variance)): (usize, (Tensor, Tensor))| {
            Ok((conv, BatchStatistics { mean: values(&mean)?, variance: values(&variance)? }))
        };
        statistics.into_iter().map(fetch).collect()
    }

    /// A layer's tensor of the last forward pass: `[batch, channels, height, width]`.
    fn value(&self, layer: LayerId) -> Result<Vec<f32>> {
        values(&self.values[layer].transpose(0, 1)?)
    }

    /// Runs the network backwards from the gradients of some layers' tensors, to the layers that
    /// `needs_gradient`.
    fn backward<'a>(
        &self,
        graph: &Graph,
        params: &NetParams,
        needs_gradient: &[bool],
        seeds: impl IntoIterator<Item = (LayerId, &'a [f32])>,
    ) -> Result<Vec<ConvGradients>> {
        let mut gradients: Vec<Option<Tensor>> = vec![None; graph.layers.len()];
        for (id, seed) in seeds.into_iter().filter(|(id, _)| needs_gradient[*id]) {
            add(&mut gradients[id], self.upload(seed, graph.layers[id].shape)?)?;
        }
        let mut found = Vec::new();
        for (id, layer) in graph.layers.iter().enumerate().skip(1).rev() {
            let Some(gradient) = gradients[id].take() else { continue };
            let input = |&i: &LayerId| {
                if needs_gradient[i] {
                    variable(&self.values[i])
                } else {
                    Ok(self.values[i].clone())
                }
            };
            let inputs: Vec<Tensor> = layer.inputs.iter().map(input).collect::<Result<_>>()?;
            let index = params.convs.iter().position(|c| c.layer == id);
            let mut parameters = index.map(|i| self.parameters(&params.convs[i], &layer.op)).transpose()?;
            if let Some(p) = parameters.as_mut().filter(|_| index.is_some_and(|i| !params.convs[i].frozen)) {
                (p.weight, p.bias) = (variable(&p.weight)?, variable(&p.bias)?);
                if let Some(norm) = &mut p.norm {
                    norm.gamma = variable(&norm.gamma)?;
                }
            }
            let (value, _) = apply(layer, &inputs, parameters.as_ref())?;
            let of = (value * gradient)?.sum_all()?.backward()?;
            for (&from, input) in layer.inputs.iter().zip(&inputs).filter(|(&i, _)| needs_gradient[i]) {
                if let Some(gradient) = of.get(input) {
                    add(&mut gradients[from], gradient.clone())?;
                }
            }
            if let Some((conv, p)) = index.zip(parameters).filter(|(i, _)| !params.convs[*i].frozen) {
                let gamma = p.norm.as_ref().and_then(|norm| of.get(&norm.gamma).cloned());
                found.push((conv, of.get(&p.weight).cloned(), of.get(&p.bias).cloned(), gamma));
            }
        }
        let fetch = |tensor: Option<Tensor>| tensor.map_or_else(|| Ok(Vec::new()), |tensor| values(&tensor));
        found
            .into_iter()
            .map(|(conv, w, b, g)| Ok(ConvGradients { conv, weight: fetch(w)?, bias: fetch(b)?, gamma: fetch(g)? }))
            .collect()
    }

    /// `[batch, …shape]` as `[channels, batch, height, width]`.
    fn upload(&self, values: &[f32], s: Shape) -> Result<Tensor> {
        let tensor = Tensor::from_slice(values, (self.batch, s.channels, s.height, s.width), &Device::Cpu)?;
        tensor.transpose(0, 1)?.contiguous()
    }

    fn parameters(&self, conv: &ConvParams, op: &Op) -> Result<Parameters> {
        let Op::Conv(Conv { kernel, .. }) = *op else { unreachable!("only convolutions have parameters") };
        let out = conv.bias.value.len();
        let per_group = conv.weight.value.len() / (out * kernel * kernel);
        let weight = Tensor::from_slice(&conv.weight.value, (out, per_group, kernel, kernel), &Device::Cpu)?;
        let column = |values: &[f32]| Tensor::from_slice(values, (out, 1), &Device::Cpu);
        let norm = conv.norm.as_ref().map(|norm| {
            let running = match self.mode {
                Mode::Train => None,
                Mode::Evaluate => Some((column(&norm.running.mean)?, column(&norm.running.variance)?)),
            };
            Result::Ok(Normalisation { gamma: column(&norm.gamma.value)?, running })
        });
        Ok(Parameters { weight, bias: column(&conv.bias.value)?, norm: norm.transpose()? })
    }
}

/// A layer's tensor, and the batch's mean and variance of each channel if it is normalised by them.
fn apply(
    layer: &Layer,
    inputs: &[Tensor],
    parameters: Option<&Parameters>,
) -> Result<(Tensor, Option<(Tensor, Tensor)>)> {
    let channels = layer.shape.channels;
    let value = match layer.op {
        Op::Conv(conv) => return convolve(&inputs[0], conv, parameters.expect("every convolution has parameters")),
        Op::Add => (&inputs[0] + &inputs[1])?,
        Op::Concat => Tensor::cat(inputs, 0)?,
        Op::Upsample2x(Interpolation::Bilinear) => bilinear(&inputs[0])?,
        Op::Upsample2x(Interpolation::Nearest) => {
            let (c, n, h, w) = inputs[0].dims4()?;
            let pixels = inputs[0].reshape((c, n, h, 1, w, 1))?;
            pixels.broadcast_as((c, n, h, 2, w, 2))?.reshape((c, n, 2 * h, 2 * w))?
        }
        Op::MaxPool(window) => {
            let mut taps = taps(&inputs[0], window, f32::NEG_INFINITY)?.into_iter();
            let first = taps.next().expect("a window has a tap");
            // The first of equals gets the gradient, as on the CPU; candle's maximum would divide
            // it.
            taps.try_fold(first, |most, tap| tap.le(&most)?.where_cond(&most, &tap))?
        }
        Op::AveragePool(window) => {
            let sum = |x: &Tensor| {
                let mut sum = None;
                taps(x, window, 0.0)?.into_iter().try_for_each(|tap| add(&mut sum, tap))?;
                Result::Ok(sum.expect("a window has a tap"))
            };
            (sum(&inputs[0])? / sum(&inputs[0].ones_like()?.detach())?)?
        }
        Op::GlobalAverage => inputs[0].mean_keepdim((2, 3))?,
        Op::Scale => inputs[0].broadcast_mul(&inputs[1])?,
        Op::Activate(activation) => activate(&inputs[0], activation)?,
        Op::Slice { first } => inputs[0].narrow(0, first, channels)?,
        Op::Shuffle { groups } => {
            let (c, n, h, w) = inputs[0].dims4()?;
            inputs[0].reshape((groups, c / groups, n, h, w))?.transpose(0, 1)?.reshape((c, n, h, w))?
        }
        Op::Input => unreachable!("is uploaded"),
    };
    Ok((value, None))
}

fn convolve(x: &Tensor, conv: Conv, parameters: &Parameters) -> Result<(Tensor, Option<(Tensor, Tensor)>)> {
    let Parameters { weight, bias, norm } = parameters;
    let (out, per_group, kernel, _) = weight.dims4()?;
    let mut sum: Option<Tensor> = None;
    let mut shape = (0, 0, 0);
    for (i, tap) in taps(x, conv.window(), 0.0)?.into_iter().enumerate() {
        let (channels, n, h, w) = tap.dims4()?;
        shape = (n, h, w);
        let (tap, weight) = (
            tap.reshape((channels, n * h * w))?,
            weight.narrow(2, i / kernel, 1)?.narrow(3, i % kernel, 1)?.reshape((out, per_group))?,
        );
        let product = if conv.depthwise { tap.broadcast_mul(&weight)? } else { weight.matmul(&tap)? };
        add(&mut sum, product)?;
    }
    let z = sum.expect("a window has a tap");
    let (y, statistics) = match norm {
        None => (z.broadcast_add(bias)?, None),
        Some(Normalisation { gamma, running }) => {
            let (mean, variance) = match running {
                Some((mean, variance)) => (mean.clone(), variance.clone()),
                None => {
                    let mean = z.mean_keepdim(1)?;
                    let variance = z.broadcast_sub(&mean)?.sqr()?.mean_keepdim(1)?;
                    (mean, variance)
                }
            };
            let scale = (gamma / (&variance + f64::from(EPSILON))?.sqrt()?)?;
            let y = z.broadcast_sub(&mean)?.broadcast_mul(&scale)?.broadcast_add(bias)?;
            (y, running.is_none().then_some((mean, variance)))
        }
    };
    let (n, h, w) = shape;
    Ok((activate(&y, conv.activation)?.reshape((out, n, h, w))?, statistics))
}

/// NaN stays NaN, and shows in the loss. At the kinks the gradient is 0, as on the CPU.
fn activate(y: &Tensor, activation: Activation) -> Result<Tensor> {
    let relu = || y.le(0f32)?.where_cond(&y.zeros_like()?, y);
    match activation {
        Activation::Identity => Ok(y.clone()),
        Activation::Relu => relu(),
        Activation::Relu6 => {
            let low = relu()?;
            low.ge(6f32)?.where_cond(&Tensor::full(6f32, low.shape(), low.device())?, &low)
        }
        Activation::LeakyRelu => y.gt(0f32)?.where_cond(y, &(y * f64::from(LEAK))?),
        Activation::Sigmoid => sigmoid(y),
        Activation::Silu => y * sigmoid(y)?,
        Activation::Hardsigmoid => hardsigmoid(y),
        Activation::Hardswish => y * hardsigmoid(y)?,
    }
}

/// By the hyperbolic tangent, which never overflows.
fn sigmoid(y: &Tensor) -> Result<Tensor> {
    ((y * 0.5)?.tanh()? + 1.0)? * 0.5
}

fn hardsigmoid(y: &Tensor) -> Result<Tensor> {
    activate(&(y + 3.0)?, Activation::Relu6)? / 6.0
}

/// Upsampling by two, one axis after the other: ¾ of the pixel that an output pixel lies in and ¼ of
/// the neighbour on its side, edges repeated.
fn bilinear(x: &Tensor) -> Result<Tensor> {
    let mut x = x.clone();
    for axis in [2, 3] {
        let n = x.dim(axis)?;
        let (first, last) = (x.narrow(axis, 0, 1)?, x.narrow(axis, n - 1, 1)?);
        let before = Tensor::cat(&[&first, &x.narrow(axis, 0, n - 1)?], axis)?;
        let after = Tensor::cat(&[&x.narrow(axis, 1, n - 1)?, &last], axis)?;
        let own = (&x * 0.75)?;
        let (even, odd) = ((&own + (before * 0.25)?)?, (&own + (after * 0.25)?)?);
        let mut dims = x.dims().to_vec();
        dims[axis] = 2 * n;
        x = Tensor::stack(&[even, odd], axis + 1)?.reshape(dims)?;
    }
    Ok(x)
}

/// The input of each tap of a window, row by row, at each place of the result; `outside` beyond the
/// map.
fn taps(x: &Tensor, window: Window, outside: f32) -> Result<Vec<Tensor>> {
    let Window { kernel, stride, .. } = window;
    let (channels, n, height, width) = x.dims4()?;
    // A map padded to whole strides is split into its phases by a reshape.
    let (rows, columns, reach) = (window.output(height), window.output(width), (kernel - 1) / stride);
    let mut x = x.clone();
    for (axis, size, strides) in [(2, height, rows + reach), (3, width, columns + reach)] {
        let (before, length) = (window.before(size), strides * stride);
        x = pad(&x, axis, before, length.saturating_sub(before + size), outside)?;
        // What no window reaches.
        x = x.narrow(axis, 0, length)?;
    }
    let phases = x.reshape((channels, n, rows + reach, stride, columns + reach, stride))?;
    let tap = |i: usize| {
        let (ky, kx) = (i / kernel, i % kernel);
        let of_row = phases.narrow(2, ky / stride, rows)?.narrow(3, ky % stride, 1)?;
        let of_both = of_row.narrow(4, kx / stride, columns)?.narrow(5, kx % stride, 1)?;
        of_both.reshape((channels, n, rows, columns))
    };
    (0..kernel * kernel).map(tap).collect()
}

fn add(sum: &mut Option<Tensor>, more: Tensor) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(sum) => (sum + more)?,
        None => more,
    });
    Ok(())
}

/// A variable of the same values.
fn variable(tensor: &Tensor) -> Result<Tensor> {
    Ok(Var::from_tensor(tensor)?.into_inner())
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

/// `x` with `before` and `after` cells of `value` added along an axis.
fn pad(x: &Tensor, axis: usize, before: usize, after: usize, value: f32) -> Result<Tensor> {
    let filling = |size: usize| {
        let mut dims = x.dims().to_vec();
        dims[axis] = size;
        Tensor::full(value, dims, x.device())
    };
    let mut parts = vec![x.clone()];
    if before > 0 {
        parts.insert(0, filling(before)?);
    }
    if after > 0 {
        parts.push(filling(after)?);
    }
    Tensor::cat(&parts, axis)
}
