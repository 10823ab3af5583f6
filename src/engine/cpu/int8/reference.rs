//! The integer reference: the arithmetic of [`Requantization`] in plain Rust, one value at a time.
//!
//! Slow and obvious on purpose. The kernels agree with it bit by bit; nothing on a per-frame path
//! uses it. It shares with them only the plan and which steps are integer (which fix where a value
//! is rounded to 8 bits), and the constants.

use crate::plan::{ChannelRange, Operand, Plan, PlanStep, TensorId, Work};
use crate::quantization::{activated, product_factor, relative_factor, Quantization, Requantization, TensorScale};
use crate::quantized_plan::Lowered;
use crate::{Conv, ConvWeights, Engine, EngineError, Graph, Shape, Weights, Window};

/// Runs a quantized graph step by step.
pub struct IntegerReference {
    graph: Graph,
    weights: Weights,
    quantization: Quantization,
    lowered: Lowered,
    input: Vec<f32>,
    outputs: Vec<Vec<f32>>,
}

/// A tensor as its step made it, planar.
#[derive(Clone)]
enum Values {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl IntegerReference {
    /// Prepares `graph`.
    ///
    /// # Errors
    /// When weights or quantization do not fit the graph.
    pub fn new(graph: &Graph, weights: &Weights, quantization: &Quantization) -> Result<Self, EngineError> {
        weights.check(graph)?;
        quantization.check(graph)?;
        let lowered = Lowered::new(graph, quantization)?;
        let input = vec![0.0; graph.input_shape().len()];
        let outputs = graph.outputs.iter().map(|&id| vec![0.0; graph.layers[id].shape.len()]).collect();
        let (graph, weights, quantization) = (graph.clone(), weights.clone(), quantization.clone());
        Ok(Self { graph, weights, quantization, lowered, input, outputs })
    }

    fn plan(&self) -> &Plan {
        &self.lowered.plan
    }

    fn shape(&self, tensor: TensorId) -> Shape {
        self.plan().tensors[tensor].shape
    }

    fn bytes(&self, tensors: &[Values], tensor: TensorId) -> Vec<u8> {
        match &tensors[tensor] {
            Values::Bytes(bytes) => bytes.clone(),
            Values::Floats(floats) => {
                let scale = self.lowered.scale(tensor);
                floats.iter().map(|&v| scale.quantize(v)).collect()
            }
        }
    }

    fn floats(&self, tensors: &[Values], tensor: TensorId) -> Vec<f32> {
        match &tensors[tensor] {
            Values::Bytes(bytes) => bytes.iter().map(|&q| self.lowered.scale(tensor).dequantize(q)).collect(),
            Values::Floats(floats) => floats.clone(),
        }
    }

    fn integer_step(&self, step: &PlanStep, tensors: &[Values]) -> Values {
        let out = self.shape(step.output);
        let output_scale = self.lowered.output_scale(step);
        match &step.work {
            Work::Conv { conv, layer, residual } => {
                let values = &self.quantization.convs[&self.graph.layers[*layer].name];
                let input_scale = self.lowered.scale(step.inputs[0]);
                let requantization = Requantization::new(values, conv.activation, input_scale, output_scale);
                let zero = i32::from(input_scale.zero_point);
                let x: Vec<i32> = self.bytes(tensors, step.inputs[0]).iter().map(|&q| i32::from(q) - zero).collect();
                let w: Vec<i32> = values.weight.iter().map(|&w| i32::from(w)).collect();
                let sums = convolve(&x, self.shape(step.inputs[0]), &w, *conv, out, 0);
                let mut v: Vec<f32> = sums
                    .iter()
                    .enumerate()
                    .map(|(i, &sum)| {
                        let c = i / out.pixels();
                        let v = sum as f32 * requantization.factor[c] + requantization.offset[c];
                        let v = requantization.bounds.map_or(v, |(low, high)| v.max(low).min(high));
                        requantization.late.map_or(v, |l| activated(l.activation, v) * l.factor + l.zero)
                    })
                    .collect();
                if let Some(residual) = residual {
                    let added = self.in_units_of(residual, output_scale, out, tensors);
                    v.iter_mut().zip(added).for_each(|(v, r)| *v += r);
                }
                match output_scale {
                    Some(_) => Values::Bytes(v.into_iter().map(to_byte).collect()),
                    None => Values::Floats(v),
                }
            }
            Work::Add([a, b]) => {
                let zero = f32::from(self.lowered.scale(step.output).zero_point);
                let a = self.in_units_of(a, output_scale, out, tensors);
                let b = self.in_units_of(b, output_scale, out, tensors);
                Values::Bytes(a.iter().zip(b).map(|(a, b)| to_byte(a + b + zero)).collect())
            }
            Work::Upsample2x => Values::Bytes(upsample(&self.bytes(tensors, step.inputs[0]), out)),
            Work::Concat(_) => Values::Bytes(step.inputs.iter().flat_map(|&part| self.bytes(tensors, part)).collect()),
            Work::Gather(channels) => Values::Bytes(self.gathered(channels, |t| self.bytes(tensors, t))),
            work => Values::Bytes(self.plain_step(work, step, tensors)),
        }
    }

    /// The channels that a gathering copies.
    fn gathered<T: Copy>(&self, channels: &[ChannelRange], values: impl Fn(TensorId) -> Vec<T>) -> Vec<T> {
        let of = |c: &ChannelRange| {
            let pixels = self.shape(c.tensor).pixels();
            values(c.tensor)[c.first * pixels..(c.first + c.count) * pixels].to_vec()
        };
        channels.iter().flat_map(of).collect()
    }

    /// A step from one tensor to another, in bytes.
    fn plain_step(&self, work: &Work, step: &PlanStep, tensors: &[Values]) -> Vec<u8> {
        let (from, out) = (self.shape(step.inputs[0]), self.shape(step.output));
        let (input, output) = (self.lowered.scale(step.inputs[0]), self.lowered.scale(step.output));
        let (x, zero) = (self.bytes(tensors, step.inputs[0]), f32::from(output.zero_point));
        let above_zero = |q: u8, of: TensorScale| i32::from(q) - i32::from(of.zero_point);
        let mean = |under: Vec<u8>| {
            let sum: i32 = under.iter().map(|&q| above_zero(q, input)).sum();
            to_byte(sum as f32 * (1.0 / under.len() as f32) * relative_factor(input, Some(output)) + zero)
        };
        match *work {
            Work::MaxPool(window) => pooled(&x, from, out, window, |v| v.into_iter().max().expect("not empty")),
            Work::AveragePool(window) => pooled(&x, from, out, window, mean),
            Work::GlobalAverage => x.chunks(from.pixels()).map(|plane| mean(plane.to_vec())).collect(),
            Work::Scale => {
                let of_factors = self.lowered.scale(step.inputs[1]);
                let factors = self.bytes(tensors, step.inputs[1]);
                let factor = product_factor([input, of_factors], output);
                let one = |(i, &q): (usize, &u8)| {
                    let product = above_zero(q, input) * above_zero(factors[i / from.pixels()], of_factors);
                    to_byte(product as f32 * factor + zero)
                };
                x.iter().enumerate().map(one).collect()
            }
            Work::Activate(activation) => {
                x.iter().map(|&q| output.quantize(activated(activation, input.dequantize(q)))).collect()
            }
            Work::Bilinear2x => bilinear(&x, out, |[a, b, c, d]: [u8; 4]| {
                let [a, b, c, d] = [a, b, c, d].map(f32::from);
                to_byte((9.0 * a + 3.0 * b + 3.0 * c + d) / 16.0)
            }),
            Work::Conv { .. } | Work::Add(_) | Work::Upsample2x | Work::Concat(_) | Work::Gather(_) => {
                unreachable!("computed by the caller")
            }
        }
    }

    /// An operand's real values in steps of the result's scale.
    fn in_units_of(&self, operand: &Operand, output: Option<TensorScale>, out: Shape, tensors: &[Values]) -> Vec<f32> {
        let bytes = self.bytes(tensors, operand.tensor);
        let bytes = if operand.upsampled { upsample(&bytes, out) } else { bytes };
        let scale = self.lowered.scale(operand.tensor);
        let factor = relative_factor(scale, output);
        bytes.iter().map(|&q| (f32::from(q) - f32::from(scale.zero_point)) * factor).collect()
    }

    fn float_step(&self, step: &PlanStep, tensors: &[Values]) -> Values {
        let out = self.shape(step.output);
        let operand = |operand: &Operand| {
            let values = self.floats(tensors, operand.tensor);
            if operand.upsampled {
                upsample(&values, out)
            } else {
                values
            }
        };
        Values::Floats(match &step.work {
            Work::Conv { conv, layer, residual } => {
                let ConvWeights { weight, bias } = self.weights.of(&self.graph.layers[*layer].name);
                let x = self.floats(tensors, step.inputs[0]);
                let mut v = convolve(&x, self.shape(step.inputs[0]), weight, *conv, out, 0.0);
                for (i, v) in v.iter_mut().enumerate() {
                    *v += bias[i / out.pixels()];
                    *v = conv.activation.apply(*v);
                }
                if let Some(residual) = residual {
                    v.iter_mut().zip(operand(residual)).for_each(|(v, r)| *v += r);
                }
                v
            }
            Work::Add([a, b]) => operand(a).iter().zip(operand(b)).map(|(a, b)| a + b).collect(),
            Work::Upsample2x => upsample(&self.floats(tensors, step.inputs[0]), out),
            Work::Concat(_) => step.inputs.iter().flat_map(|&part| self.floats(tensors, part)).collect(),
            Work::Gather(channels) => self.gathered(channels, |t| self.floats(tensors, t)),
            work => self.plain_float_step(work, step, tensors),
        })
    }

    /// A step from one tensor to another, in f32.
    fn plain_float_step(&self, work: &Work, step: &PlanStep, tensors: &[Values]) -> Vec<f32> {
        let (from, out) = (self.shape(step.inputs[0]), self.shape(step.output));
        let x = self.floats(tensors, step.inputs[0]);
        let mean = |under: Vec<f32>| under.iter().sum::<f32>() / under.len() as f32;
        match *work {
            Work::MaxPool(window) => pooled(&x, from, out, window, |v| v.into_iter().fold(f32::NEG_INFINITY, f32::max)),
            Work::AveragePool(window) => pooled(&x, from, out, window, mean),
            Work::GlobalAverage => x.chunks(from.pixels()).map(|plane| mean(plane.to_vec())).collect(),
            Work::Scale => {
                let factors = self.floats(tensors, step.inputs[1]);
                x.iter().enumerate().map(|(i, v)| v * factors[i / from.pixels()]).collect()
            }
            Work::Activate(activation) => x.iter().map(|&v| activation.apply(v)).collect(),
            Work::Bilinear2x => bilinear(&x, out, |[a, b, c, d]| (9.0 * a + 3.0 * b + 3.0 * c + d) / 16.0),
            Work::Conv { .. } | Work::Add(_) | Work::Upsample2x | Work::Concat(_) | Work::Gather(_) => {
                unreachable!("computed by the caller")
            }
        }
    }
}

impl Engine for IntegerReference {
    fn input(&mut self) -> &mut [f32] {
        &mut self.input
    }

    fn run(&mut self) -> Result<(), EngineError> {
        // Tensor 0 is the input.
        let mut tensors = vec![Values::Floats(vec![]); self.plan().tensors.len()];
        tensors[0] = Values::Floats(self.input.clone());
        for (step, &integer) in self.plan().steps.iter().zip(&self.lowered.integer) {
            let made = if integer { self.integer_step(step, &tensors) } else { self.float_step(step, &tensors) };
            tensors[step.output] = made;
        }
        let outputs = self.plan().outputs.iter().map(|&tensor| self.floats(&tensors, tensor)).collect();
        self.outputs = outputs;
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        &self.outputs[index]
    }
}

fn to_byte(v: f32) -> u8 {
    v.clamp(0.0, 255.0).round_ties_even() as u8
}

fn upsample<T: Copy>(values: &[T], out: Shape) -> Vec<T> {
    let at = |c: usize, y: usize, x: usize| values[(c * out.height / 2 + y / 2) * (out.width / 2) + x / 2];
    let rows = (0..out.channels).flat_map(|c| (0..out.height).map(move |y| (c, y)));
    rows.flat_map(|(c, y)| (0..out.width).map(move |x| at(c, y, x))).collect()
}

/// What `of` makes of the values under each window.
fn pooled<T: Copy>(x: &[T], from: Shape, out: Shape, window: Window, of: impl Fn(Vec<T>) -> T) -> Vec<T> {
    let mut made = Vec::with_capacity(out.len());
    for plane in x.chunks(from.pixels()) {
        for y in 0..out.height {
            for column in 0..out.width {
                let under = window.span(y, from.height).flat_map(|row| {
                    window.span(column, from.width).map(move |column| plane[row * from.width + column])
                });
                made.push(of(under.collect()));
            }
        }
    }
    made
}

/// What `of` makes of the pixel that each pixel of `out` lies in, the one beside it, the one above or
/// below, and the one across.
fn bilinear<T: Copy>(x: &[T], out: Shape, of: impl Fn([T; 4]) -> T) -> Vec<T> {
    let (height, width) = (out.height / 2, out.width / 2);
    let neighbour = |at: usize, size: usize| match at % 2 {
        0 => (at / 2).saturating_sub(1),
        _ => (at / 2 + 1).min(size - 1),
    };
    let mut made = Vec::with_capacity(out.len());
    for plane in x.chunks(height * width) {
        for y in 0..out.height {
            for column in 0..out.width {
                let (row, beside) = (neighbour(y, height), neighbour(column, width));
                let at = |row: usize, column: usize| plane[row * width + column];
                made.push(of([at(y / 2, column / 2), at(y / 2, beside), at(row, column / 2), at(row, beside)]));
            }
        }
    }
    made
}

/// The sums of a convolution, planar; pixels outside the input count as zero.
fn convolve<T>(x: &[T], from: Shape, w: &[T], conv: Conv, out: Shape, zero: T) -> Vec<T>
where
    T: Copy + std::ops::Mul<Output = T> + std::ops::AddAssign,
{
    let (top, left) = (conv.pad_before(from.height), conv.pad_before(from.width));
    let per_group = if conv.depthwise { 1 } else { from.channels };
    let mut sums = Vec::with_capacity(out.len());
    for o in 0..out.channels {
        for y in 0..out.height {
            for column in 0..out.width {
                let mut sum = zero;
                for i in 0..per_group {
                    let channel = if conv.depthwise { o } else { i };
                    for ky in 0..conv.kernel {
                        for kx in 0..conv.kernel {
                            let (iy, ix) = (y * conv.stride + ky, column * conv.stride + kx);
                            if iy >= top && iy < from.height + top && ix >= left && ix < from.width + left {
                                let value = x[(channel * from.height + iy - top) * from.width + ix - left];
                                sum += value * w[((o * per_group + i) * conv.kernel + ky) * conv.kernel + kx];
                            }
                        }
                    }
                }
                sums.push(sum);
            }
        }
    }
    sums
}
