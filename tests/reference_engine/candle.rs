//! The oracle: candle, eager, one operation a layer, nothing fused and nothing reused.
//!
//! Slow and obvious on purpose. Every other engine is tested against it; nothing on a per-frame
//! path uses it.

use candle_core::{Device, Tensor};
use peregrine_engine::op::LEAK;
use peregrine_engine::{Activation, Conv, Engine, EngineError, Graph, Interpolation, Op, Weights, Window};

/// Runs a graph layer by layer, in f32.
pub struct Reference {
    graph: Graph,
    /// Weight and bias of each layer that is a convolution.
    parameters: Vec<Option<(Tensor, Tensor)>>,
    input: Vec<f32>,
    outputs: Vec<Vec<f32>>,
}

impl Reference {
    /// # Errors
    /// When `weights` do not fit `graph`.
    pub fn new(graph: &Graph, weights: &Weights) -> Result<Self, EngineError> {
        weights.check(graph)?;
        let mut parameters = vec![None; graph.layers.len()];
        let ids = (0..graph.layers.len()).filter(|&id| matches!(graph.layers[id].op, Op::Conv(_)));
        for (id, (layer, _, shape)) in ids.zip(graph.convs()) {
            let values = weights.of(&layer.name);
            let [out, per_group, kernel, _] = shape;
            let weight =
                Tensor::from_slice(&values.weight, (out, per_group, kernel, kernel), &Device::Cpu).map_err(refused)?;
            let bias = Tensor::from_slice(&values.bias, (1, out, 1, 1), &Device::Cpu).map_err(refused)?;
            parameters[id] = Some((weight, bias));
        }
        let input = vec![0.0; graph.input_shape().len()];
        let outputs = graph.outputs.iter().map(|&id| vec![0.0; graph.layers[id].shape.len()]).collect();
        Ok(Self { graph: graph.clone(), parameters, input, outputs })
    }

    /// The tensors of all layers, `[1, channels, height, width]` each.
    fn forward(&self) -> candle_core::Result<Vec<Tensor>> {
        let mut tensors: Vec<Tensor> = Vec::with_capacity(self.graph.layers.len());
        for (id, layer) in self.graph.layers.iter().enumerate() {
            let operand = |i: usize| &tensors[layer.inputs[i]];
            let tensor = match layer.op {
                Op::Input => {
                    let s = layer.shape;
                    Tensor::from_slice(&self.input, (1, s.channels, s.height, s.width), &Device::Cpu)?
                }
                Op::Conv(conv) => {
                    let (weight, bias) = self.parameters[id].as_ref().expect("set for every convolution by `new`");
                    convolve(operand(0), weight, bias, conv)?
                }
                Op::Add => (operand(0) + operand(1))?,
                Op::Upsample2x(Interpolation::Nearest) => {
                    operand(0).upsample_nearest2d(layer.shape.height, layer.shape.width)?
                }
                Op::Upsample2x(Interpolation::Bilinear) => bilinear(operand(0))?,
                Op::Concat => {
                    let parts: Vec<&Tensor> = layer.inputs.iter().map(|&i| &tensors[i]).collect();
                    Tensor::cat(&parts, 1)?
                }
                Op::MaxPool(window) => max_pool(operand(0), window)?,
                Op::AveragePool(window) => average_pool(operand(0), window)?,
                Op::GlobalAverage => operand(0).mean_keepdim((2, 3))?,
                Op::Scale => operand(0).broadcast_mul(operand(1))?,
                Op::Activate(activation) => activate(operand(0), activation)?,
                Op::Slice { first } => operand(0).narrow(1, first, layer.shape.channels)?,
                Op::Shuffle { groups } => {
                    let s = layer.shape;
                    let grouped = operand(0).reshape((groups, s.channels / groups, s.height, s.width))?;
                    grouped.transpose(0, 1)?.reshape((1, s.channels, s.height, s.width))?
                }
            };
            tensors.push(tensor);
        }
        Ok(tensors)
    }
}

impl Engine for Reference {
    fn input(&mut self) -> &mut [f32] {
        &mut self.input
    }

    fn run(&mut self) -> Result<(), EngineError> {
        let tensors = self.forward().map_err(refused)?;
        for (output, &id) in self.outputs.iter_mut().zip(&self.graph.outputs) {
            *output = tensors[id].flatten_all().and_then(|tensor| tensor.to_vec1()).map_err(refused)?;
        }
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        &self.outputs[index]
    }
}

fn refused(error: candle_core::Error) -> EngineError {
    EngineError::Unsupported { device: "candle", why: error.to_string() }
}

fn convolve(x: &Tensor, weight: &Tensor, bias: &Tensor, conv: Conv) -> candle_core::Result<Tensor> {
    let channels = x.dim(1)?;
    let groups = if conv.depthwise { channels } else { 1 };
    let x = padded(x, conv.window(), 0.0)?.conv2d(weight, 0, conv.stride, 1, groups)?.broadcast_add(bias)?;
    activate(&x, conv.activation)
}

fn activate(x: &Tensor, activation: Activation) -> candle_core::Result<Tensor> {
    let sigmoid = || (x.neg()?.exp()? + 1.0)?.recip();
    match activation {
        Activation::Identity => Ok(x.clone()),
        Activation::Relu6 => x.clamp(0f32, 6f32),
        Activation::Relu => x.relu(),
        Activation::Silu => x.silu(),
        Activation::Hardswish => (x * ((x + 3.0)?.clamp(0f32, 6f32)? / 6.0)?)?.contiguous(),
        Activation::LeakyRelu => x.maximum(&(x * f64::from(LEAK))?),
        Activation::Sigmoid => sigmoid(),
        Activation::Hardsigmoid => ((x / 6.0)? + 0.5)?.clamp(0f32, 1f32),
    }
}

fn max_pool(x: &Tensor, window: Window) -> candle_core::Result<Tensor> {
    padded(x, window, f32::NEG_INFINITY)?.max_pool2d_with_stride(window.kernel, window.stride)
}

/// The sum of each window over the number of its pixels within the map.
fn average_pool(x: &Tensor, window: Window) -> candle_core::Result<Tensor> {
    let mean = |x: &Tensor| padded(x, window, 0.0)?.avg_pool2d_with_stride(window.kernel, window.stride);
    mean(x)? / mean(&x.ones_like()?)?
}

/// Upsampling by two, one axis after the other: pixel 2i of the result is ¼ of pixel i − 1 and ¾ of
/// pixel i, pixel 2i + 1 ¾ of pixel i and ¼ of pixel i + 1, the edges repeated.
fn bilinear(x: &Tensor) -> candle_core::Result<Tensor> {
    let mut x = x.clone();
    for axis in [2, 3] {
        let n = x.dim(axis)?;
        let (first, last) = (x.narrow(axis, 0, 1)?, x.narrow(axis, n - 1, 1)?);
        let before = Tensor::cat(&[&first, &x.narrow(axis, 0, n - 1)?], axis)?;
        let after = Tensor::cat(&[&x.narrow(axis, 1, n - 1)?, &last], axis)?;
        let own = (&x * 0.75)?;
        let (even, odd) = ((&own + before * 0.25)?, (&own + after * 0.25)?);
        let mut dims = x.dims().to_vec();
        dims[axis] = 2 * n;
        x = Tensor::stack(&[even, odd], axis + 1)?.reshape(dims)?;
    }
    Ok(x)
}

/// `x` with the padding of a window: by hand, since candle pads both sides alike and no more than a
/// kernel.
fn padded(x: &Tensor, window: Window, value: f32) -> candle_core::Result<Tensor> {
    let mut x = x.clone();
    for axis in [2, 3] {
        let (before, after) = window.around(x.dim(axis)?);
        x = pad(&x, axis, before, after, value)?;
    }
    x.contiguous()
}

/// `x` padded along an axis with `before` and `after` copies of `value`.
fn pad(x: &Tensor, axis: usize, before: usize, after: usize, value: f32) -> candle_core::Result<Tensor> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_engine::{ConvWeights, Padding, Shape};

    fn run(graph: &Graph, weights: Weights, input: &[f32]) -> Vec<f32> {
        let mut engine = Reference::new(graph, &weights).unwrap();
        engine.input().copy_from_slice(input);
        engine.run().unwrap();
        engine.output(0).to_vec()
    }

    #[test]
    fn stride_2_on_an_even_map_pads_only_the_end() {
        let mut graph = Graph::new(Shape::new(1, 2, 4));
        let conv =
            Conv { kernel: 3, stride: 2, depthwise: false, activation: Activation::Relu6, padding: Padding::Same };
        let id = graph.conv("c", 0, 1, conv);
        graph.outputs.push(id);
        let ones = ConvWeights { weight: vec![1.0; 9], bias: vec![-20.0] };
        // Sums of the windows at columns 0…2 and 2…4: 24 and 22; less 20, the first is capped at 6
        // and the second is not.
        let input = [1.0, 3.0, 5.0, 4.0, 2.0, 6.0, 9.0, 4.0];
        assert_eq!(run(&graph, Weights([("c".to_string(), ones)].into()), &input), [6.0, 2.0]);
    }

    #[test]
    fn upsampling_repeats_each_pixel_and_concat_keeps_its_order() {
        let mut graph = Graph::new(Shape::new(1, 1, 2));
        let up = graph.upsample2x("up", 0, Interpolation::Nearest);
        let sum = graph.add("sum", up, up);
        let cat = graph.concat("cat", &[sum, up]);
        graph.outputs.push(cat);
        let expected = [2.0, 2.0, 4.0, 4.0, 2.0, 2.0, 4.0, 4.0, 1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0];
        assert_eq!(run(&graph, Weights::default(), &[1.0, 2.0]), expected);
    }

    #[test]
    fn pooling_ignores_what_is_outside_and_a_shuffle_interleaves() {
        let mut graph = Graph::new(Shape::new(4, 1, 2));
        let pooled = graph.max_pool("pool", 0, Window::same(3, 1));
        let shuffled = graph.shuffle("shuffle", pooled, 2);
        let part = graph.slice("part", shuffled, 1..3);
        graph.outputs.push(part);
        // Channels 0 to 3 pool to -1, -3, -5, -7; interleaved: 0, 2, 1, 3.
        let input = [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0];
        assert_eq!(run(&graph, Weights::default(), &input), [-5.0, -5.0, -3.0, -3.0]);
    }

    #[test]
    fn even_padding_begins_before_the_first_pixel() {
        let mut graph = Graph::new(Shape::new(1, 1, 4));
        let activation = Activation::Hardsigmoid;
        let conv = Conv { kernel: 3, stride: 2, depthwise: true, activation, padding: Padding::Even };
        let id = graph.conv("c", 0, 1, conv);
        graph.outputs.push(id);
        let ones = ConvWeights { weight: vec![1.0; 9], bias: vec![-3.0] };
        // Windows at columns -1…1 and 1…3: sums 3 and 9, less 3; hard-sigmoid of 0 and 6.
        assert_eq!(run(&graph, Weights([("c".to_string(), ones)].into()), &[1.0, 2.0, 3.0, 4.0]), [0.5, 1.0]);
    }

    #[test]
    fn means_leave_padding_out_and_scale_channels() {
        let mut graph = Graph::new(Shape::new(2, 1, 3));
        let mean = graph.average_pool("mean", 0, Window::even(3, 2));
        let whole = graph.global_average("whole", mean);
        let scaled = graph.scale("scaled", mean, whole);
        graph.outputs.push(scaled);
        // Channel 0: means 2 and 5, their mean 3.5; channel 1: -2 and -5, -3.5.
        let input = [1.0, 3.0, 7.0, -1.0, -3.0, -7.0];
        assert_eq!(run(&graph, Weights::default(), &input), [7.0, 17.5, 7.0, 17.5]);
    }

    #[test]
    fn bilinear_upsampling_lies_between_pixel_centres() {
        let mut graph = Graph::new(Shape::new(1, 2, 2));
        let up = graph.upsample2x("up", 0, Interpolation::Bilinear);
        let id = graph.activate("leaky", up, Activation::LeakyRelu);
        graph.outputs.push(id);
        // Along rows 0, 1, 3, 4 and 8, 9, 11, 12; then between them.
        let rows = [[0.0, 1.0, 3.0, 4.0], [2.0, 3.0, 5.0, 6.0], [6.0, 7.0, 9.0, 10.0], [8.0, 9.0, 11.0, 12.0]];
        assert_eq!(run(&graph, Weights::default(), &[0.0, 4.0, 8.0, 12.0]), rows.as_flattened());
    }
}
