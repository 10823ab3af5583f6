//! What a quantized network has besides its graph: 8-bit weights, and the scales of its tensors.
//!
//! A tensor between layers is unsigned, real = scale · (q − zero point); weights are signed and
//! symmetric, with a scale for each output channel (Jacob et al. 2018, "Quantization and Training
//! of Neural Networks for Efficient Integer-Arithmetic-Only Inference", section 2, and
//! Krishnamoorthi 2018, section 2). The arithmetic that every integer engine computes, bit by bit,
//! is written down in [`Requantization`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::op::LEAK;
use super::{Activation, EngineError, Graph, LayerId, Op};

/// The largest weight in magnitude: symmetric, so −128 is invalid.
pub const MAX_WEIGHT: i8 = 127;

/// How the bytes of a tensor become real numbers: scale · (q − zero_point).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorScale {
    /// Positive and finite.
    pub scale: f32,
    /// The byte that stands for zero.
    pub zero_point: u8,
}

impl TensorScale {
    /// The scale at which 0…255 spans `low` to `high`, widened to hold zero, which stays exact.
    pub fn spanning(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        // A tensor that is zero everywhere still needs a scale.
        let scale = ((high - low) / 255.0).max(1e-10);
        Self { scale, zero_point: (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8 }
    }

    /// The nearest byte, ties to even.
    pub fn quantize(self, real: f32) -> u8 {
        nearest_byte(real / self.scale + f32::from(self.zero_point))
    }

    /// The real value of a byte.
    pub fn dequantize(self, q: u8) -> f32 {
        (f32::from(q) - f32::from(self.zero_point)) * self.scale
    }
}

/// Round half to even, saturating; not-a-number is 0.
///
/// Adding 2²³ leaves no bits for a fraction, so that the addition itself rounds: without a call to
/// a library, and as vectors on every processor.
#[inline(always)]
pub fn nearest_byte(v: f32) -> u8 {
    (v.clamp(0.0, 255.0) + 8_388_608.0).to_bits() as u8
}

/// A convolution's weights in 8 bits, batch-norm folded in before.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedConv {
    /// `[out, in per group, kernel, kernel]`, row-major, −127…127.
    pub weight: Vec<i8>,
    /// `[out]`: real weight = scale · weight.
    pub scale: Vec<f32>,
    /// `[out]`, real.
    pub bias: Vec<f32>,
}

impl QuantizedConv {
    /// The real weights that the bytes stand for; NaN if a scale is missing.
    pub fn dequantized(&self) -> Vec<f32> {
        let per_channel = (self.weight.len() / self.scale.len().max(1)).max(1);
        let scale = |i: usize| self.scale.get(i / per_channel).copied().unwrap_or(f32::NAN);
        self.weight.iter().enumerate().map(|(i, &w)| f32::from(w) * scale(i)).collect()
    }
}

/// The quantized part of a network. A convolution that is not in `convs` is computed in f32.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quantization {
    /// By the name of the layer whose result it is.
    pub tensors: BTreeMap<String, TensorScale>,
    /// By the convolution's name.
    pub convs: BTreeMap<String, QuantizedConv>,
}

impl Quantization {
    /// Checks shapes, ranges and that no sum can overflow.
    ///
    /// # Errors
    /// [`EngineError::Weights`] names the first layer at fault.
    pub fn check(&self, graph: &Graph) -> Result<(), EngineError> {
        let positive = |v: f32| v.is_finite() && v > 0.0;
        for (layer, _, shape) in graph.convs() {
            let fault = |why: String| Err(EngineError::Weights { layer: layer.name.clone(), why });
            let Some(conv) = self.convs.get(&layer.name) else { continue };
            let per_channel = shape[1] * shape[2] * shape[3];
            let (w, s, b) = (conv.weight.len(), conv.scale.len(), conv.bias.len());
            if (w, s, b) != (shape[0] * per_channel, shape[0], shape[0]) {
                return fault(format!("has {w} 8-bit weights, {s} scales and {b} biases where {shape:?} is expected"));
            }
            if !conv.scale.iter().all(|&s| positive(s)) || !conv.bias.iter().all(|b| b.is_finite()) {
                return fault("has a scale that is not positive, or a bias that is not finite".into());
            }
            if conv.weight.contains(&i8::MIN) {
                return fault("holds the weight -128; quantized weights are -127 to 127".into());
            }
            if per_channel > i32::MAX as usize / (255 * 127 * 2) {
                return fault(format!("sums {per_channel} products, more than 32 bits hold"));
            }
        }
        for layer in &graph.layers {
            if self.tensors.get(&layer.name).is_some_and(|t| !positive(t.scale)) {
                let why = "has a tensor scale that is not positive and finite".into();
                return Err(EngineError::Weights { layer: layer.name.clone(), why });
            }
        }
        for group in scale_groups(graph) {
            let of = |&id: &LayerId| self.tensors.get(&graph.layers[id].name);
            if let Some(&odd) = group.iter().find(|id| of(id) != of(&group[0])) {
                let layer = graph.layers[odd].name.clone();
                let why =
                    format!("must have the scale of {}, which only moves its values", graph.layers[group[0]].name);
                return Err(EngineError::Weights { layer, why });
            }
        }
        Ok(())
    }

    /// The scale of a layer's result.
    ///
    /// # Errors
    /// When it has none.
    pub fn tensor(&self, layer: &str) -> Result<TensorScale, EngineError> {
        self.tensors.get(layer).copied().ok_or_else(|| EngineError::Weights {
            layer: layer.to_owned(),
            why: "has no tensor scale, and an integer step needs it; quantize the student again".into(),
        })
    }
}

/// Layers that must share one scale, since values pass between them unchanged: a concatenation and
/// its parts, an upsampling, a slice, a shuffle or a maximum and its source. Only groups of two and
/// more.
pub fn scale_groups(graph: &Graph) -> Vec<Vec<LayerId>> {
    let mut leader: Vec<LayerId> = (0..graph.layers.len()).collect();
    for (id, layer) in graph.layers.iter().enumerate() {
        let moves = |op| matches!(op, Op::Upsample2x(_) | Op::Slice { .. } | Op::Shuffle { .. } | Op::MaxPool(_));
        if layer.op == Op::Concat || moves(layer.op) {
            for &input in &layer.inputs {
                let (from, to) = (leader[id], leader[input]);
                leader.iter_mut().filter(|l| **l == from).for_each(|l| *l = to);
            }
        }
    }
    let mut groups: BTreeMap<LayerId, Vec<LayerId>> = BTreeMap::new();
    for (id, &leader) in leader.iter().enumerate() {
        groups.entry(leader).or_default().push(id);
    }
    groups.into_values().filter(|g| g.len() > 1).collect()
}

/// From the integer sum of a convolution to its result; the arithmetic that all integer engines
/// share, in f32, each operation rounded to nearest-even by itself (no fused multiply-add):
///
/// ```text
/// sum  = Σ (x − zero point of x) · w                          exact, 32 bits
/// v    = f32(sum) · factor + offset                           factor = sₓ·s_w / s_y,  offset = bias / s_y + zero point of y
/// v    = min(max(v, low), high)                               where the activation is ReLU or ReLU6
/// v    = v + (f32(r) − zero point of r) · (s_r / s_y)         where there is a residual
/// y    = round half even(min(max(v, 0), 255))
/// ```
///
/// A result that leaves the network stays real: then s_y is 1, its zero point 0, and v is the
/// result.
///
/// Another activation is computed in real numbers, with factor = sₓ·s_w and offset = bias:
///
/// ```text
/// v    = activated(v) · (1 / s_y) + zero point of y
/// ```
///
/// Steps without weights, from operands a and b (n: values under a window):
///
/// ```text
/// mean          v = f32(Σ (a − zero point of a)) · (1 / n) · (s_a / s_y) + zero point of y
/// scaling       v = f32((a − zero point of a) · (b − zero point of b)) · (s_a·s_b / s_y) + zero point of y
/// activation    v = activated(f32(a − zero point of a) · s_a) / s_y + zero point of y
/// bilinear      v = f32(9·a + 3·beside + 3·above + diagonal) · (1 / 16)         of one scale
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Requantization {
    /// For each output channel.
    pub factor: Vec<f32>,
    /// For each output channel.
    pub offset: Vec<f32>,
    /// The bounds of ReLU and ReLU6; `None` for other activations.
    pub bounds: Option<(f32, f32)>,
    /// An activation in real numbers, and what then brings its result to the output's scale.
    pub late: Option<LateActivation>,
}

/// An activation that is computed in real numbers: v ← activated(v) · factor + zero.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "the terms of the formula")]
pub struct LateActivation {
    pub activation: Activation,
    pub factor: f32,
    pub zero: f32,
}

impl Requantization {
    /// For a convolution that reads `input` and makes `output`; a real result where that is none.
    pub fn new(conv: &QuantizedConv, activation: Activation, input: TensorScale, output: Option<TensorScale>) -> Self {
        let (scale, zero) = output.map_or((1.0, 0.0), |o| (f64::from(o.scale), f64::from(o.zero_point)));
        let late = !matches!(activation, Activation::Identity | Activation::Relu6 | Activation::Relu);
        let late = late.then_some(LateActivation { activation, factor: (1.0 / scale) as f32, zero: zero as f32 });
        let (scale, zero) = if late.is_some() { (1.0, 0.0) } else { (scale, zero) };
        let factor = conv.scale.iter().map(|&s| (f64::from(input.scale) * f64::from(s) / scale) as f32).collect();
        let offset = conv.bias.iter().map(|&b| (f64::from(b) / scale + zero) as f32).collect();
        let bounds = match activation {
            Activation::Relu6 => Some((zero as f32, (zero + 6.0 / scale) as f32)),
            Activation::Relu => Some((zero as f32, f32::INFINITY)),
            _ => None,
        };
        Self { factor, offset, bounds, late }
    }
}

/// The activation of one value in the arithmetic that all integer engines share: each operation
/// rounded by itself, and `exp` for e^x.
#[allow(clippy::manual_clamp, reason = "it makes a number of not-a-number, as the vectors do")]
pub fn activated(activation: Activation, x: f32) -> f32 {
    let relu6 = |x: f32| x.max(0.0).min(6.0);
    match activation {
        Activation::Identity => x,
        Activation::Relu6 => relu6(x),
        Activation::Relu => x.max(0.0),
        Activation::LeakyRelu => x.max(x * LEAK),
        Activation::Silu => x / (1.0 + exp(0.0 - x)),
        Activation::Sigmoid => 1.0 / (1.0 + exp(0.0 - x)),
        Activation::Hardswish => relu6(x + 3.0) * (x * (1.0 / 6.0)),
        Activation::Hardsigmoid => relu6(x + 3.0) * (1.0 / 6.0),
    }
}

/// e^x for |x| ≤ 87, else e^±87, in the portable vectors' sequence of operations: 2ⁿ · e^r with n =
/// round(x / ln 2), ln 2 subtracted in two parts (Cody & Waite 1980), and the Taylor polynomial of
/// degree 6.
#[allow(clippy::manual_clamp, reason = "as above")]
fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let x = x.min(87.0).max(-87.0);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let high = 355.0 / 512.0;
    let low = (std::f64::consts::LN_2 - 355.0 / 512.0) as f32;
    let r = (x + n * -high) + n * -low;
    let coefficients = [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let sum = coefficients.iter().fold(1.0f32 / 720.0, |sum, c| c + sum * r);
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()))
}

/// The byte that an activation by itself makes of each byte.
pub fn activation_table(activation: Activation, input: TensorScale, output: TensorScale) -> [u8; 256] {
    std::array::from_fn(|q| output.quantize(activated(activation, input.dequantize(q as u8))))
}

/// What a residual or an operand of an addition is multiplied by: its scale in units of the
/// result's.
pub fn relative_factor(operand: TensorScale, output: Option<TensorScale>) -> f32 {
    (f64::from(operand.scale) / output.map_or(1.0, |o| f64::from(o.scale))) as f32
}

/// What the product of two operands is multiplied by: their scales in units of the result's.
pub fn product_factor(operands: [TensorScale; 2], output: TensorScale) -> f32 {
    let [a, b] = operands.map(|operand| f64::from(operand.scale));
    (a * b / f64::from(output.scale)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Conv, Interpolation, Padding, Shape};

    #[test]
    fn zero_is_exact_whatever_the_range() {
        for (low, high) in [(-1.3, 2.9), (0.5, 3.0), (-2.0, -1.0), (0.0, 6.0), (0.0, 0.0)] {
            let scale = TensorScale::spanning(low, high);
            assert_eq!(scale.dequantize(scale.quantize(0.0)), 0.0, "{low} to {high}");
        }
    }

    #[test]
    fn a_tie_goes_to_the_even_byte_and_the_ends_saturate() {
        for i in -8..1040 {
            let v = i as f32 / 4.0;
            assert_eq!(nearest_byte(v), v.round_ties_even() as u8, "{v}");
        }
        assert_eq!([f32::NEG_INFINITY, -0.0, 1e9, f32::NAN].map(nearest_byte), [0, 0, 255, 0]);
    }

    #[test]
    fn quantizing_errs_by_at_most_half_a_step_within_the_range() {
        let scale = TensorScale::spanning(-1.0, 3.0);
        for i in 0..=400 {
            let real = -1.0 + i as f32 / 100.0;
            // The zero point is rounded, too: a whole step at the very ends.
            let allowed = if (5..395).contains(&i) { 0.501 } else { 1.001 };
            assert!((scale.dequantize(scale.quantize(real)) - real).abs() <= allowed * scale.scale, "{real}");
        }
    }

    #[test]
    fn activations_of_integer_engines_are_close_to_their_definitions() {
        use Activation::{Hardsigmoid, Hardswish, Identity, LeakyRelu, Relu, Relu6, Sigmoid, Silu};
        for activation in [Identity, Relu6, Relu, Silu, Hardswish, LeakyRelu, Sigmoid, Hardsigmoid] {
            for i in -9000..9000 {
                let x = i as f32 / 100.0;
                let (found, exact) = (activated(activation, x), activation.apply(x));
                assert!((found - exact).abs() <= 1e-6 * exact.abs().max(1.0), "{activation:?} of {x}: {found}");
            }
        }
    }

    #[test]
    fn concatenations_share_one_scale_through_upsamplings() {
        let conv =
            Conv { kernel: 1, stride: 1, depthwise: false, activation: Activation::Identity, padding: Padding::Same };
        let mut graph = Graph::new(Shape::new(3, 4, 4));
        let coarse = graph.conv("coarse", 0, 4, Conv { stride: 2, ..conv });
        let up = graph.upsample2x("up", coarse, Interpolation::Nearest);
        let fine = graph.conv("fine", 0, 4, conv);
        let cat = graph.concat("cat", &[up, fine]);
        assert_eq!(scale_groups(&graph), [vec![coarse, up, fine, cat]]);

        let mut quantization = Quantization::default();
        for (layer, scale) in [("coarse", 0.1), ("up", 0.1), ("fine", 0.2), ("cat", 0.1)] {
            quantization.tensors.insert(layer.into(), TensorScale { scale, zero_point: 3 });
        }
        let error = quantization.check(&graph).unwrap_err().to_string();
        assert!(error.contains("fine") && error.contains("coarse"), "{error}");
    }
}
