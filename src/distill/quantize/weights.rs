//! Weights in 8 bits with one scale per output channel.

use clap::ValueEnum;
use peregrine_engine::quantization::QuantizedConv;
use peregrine_engine::ConvWeights;
use serde::{Deserialize, Serialize};

/// Calibration method of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightScale {
    /// The largest weight maps to the largest integer.
    Max,
    /// Least mean squared error; the largest weights may saturate.
    Mse,
}

/// Rounds a convolution's weights to integers of at most `largest` in magnitude.
///
/// `input_means` of each input channel correct the bias for the shift of each output's mean by
/// rounding (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
/// Correction", section 4.2; here with measured means); without them the bias stays.
pub fn quantize(
    values: &ConvWeights,
    method: WeightScale,
    largest: i8,
    depthwise: bool,
    input_means: Option<&[f32]>,
) -> QuantizedConv {
    let per_channel = values.weight.len() / values.bias.len();
    let mut conv = QuantizedConv { weight: vec![], scale: vec![], bias: values.bias.clone() };
    for (o, channel) in values.weight.chunks_exact(per_channel).enumerate() {
        let scale = channel_scale(channel, method, largest);
        let rounded = channel.iter().map(|&w| round(w, scale, largest));
        conv.weight.extend(rounded.clone());
        conv.scale.push(scale);
        if let Some(means) = input_means {
            // Depthwise: one input channel, the output's own. Dense: all, each with as many taps.
            let taps = if depthwise { per_channel } else { per_channel / means.len() };
            let mean = |i: usize| if depthwise { means[o] } else { means[i / taps] };
            let shift: f32 =
                rounded.zip(channel).enumerate().map(|(i, (q, &w))| (f32::from(q) * scale - w) * mean(i)).sum();
            conv.bias[o] -= shift;
        }
    }
    conv
}

fn round(weight: f32, scale: f32, largest: i8) -> i8 {
    (weight / scale).round_ties_even().clamp(-f32::from(largest), f32::from(largest)) as i8
}

fn channel_scale(channel: &[f32], method: WeightScale, largest: i8) -> f32 {
    let most = channel.iter().fold(0f32, |m, w| m.max(w.abs()));
    // A channel of zeros still needs a scale.
    let full = (most / f32::from(largest)).max(1e-12);
    let error = |scale: f32| -> f64 {
        channel.iter().map(|&w| f64::from(f32::from(round(w, scale, largest)) * scale - w).powi(2)).sum()
    };
    match method {
        WeightScale::Max => full,
        WeightScale::Mse => {
            let candidates = (50..=100).rev().map(|percent| full * percent as f32 / 100.0);
            let mut best = (f64::INFINITY, full);
            for scale in candidates {
                let e = error(scale);
                if e < best.0 {
                    best = (e, scale);
                }
            }
            best.1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv() -> ConvWeights {
        // Two outputs, three inputs, one tap.
        ConvWeights { weight: vec![1.0, -0.4, 0.26, 0.0, 0.02, -0.005], bias: vec![0.5, -1.0] }
    }

    #[test]
    fn the_largest_weight_of_each_channel_becomes_the_largest_integer() {
        let q = quantize(&conv(), WeightScale::Max, 127, false, None);
        assert_eq!(q.weight, [127, -51, 33, 0, 127, -32]);
        assert!((q.scale[0] - 1.0 / 127.0).abs() < 1e-9 && (q.scale[1] - 0.02 / 127.0).abs() < 1e-9);
    }

    #[test]
    fn the_least_square_error_is_no_larger_than_that_of_the_largest_weight() {
        let weight: Vec<f32> = (0..200).map(|i| (i as f32 * 0.7).sin() * if i == 7 { 4.0 } else { 1.0 }).collect();
        let values = ConvWeights { weight, bias: vec![0.0] };
        let error = |method| {
            let back = quantize(&values, method, 7, false, None).dequantized();
            back.iter().zip(&values.weight).map(|(a, b)| (a - b).powi(2)).sum::<f32>()
        };
        assert!(error(WeightScale::Mse) < 0.95 * error(WeightScale::Max));
    }

    #[test]
    fn the_corrected_bias_keeps_each_outputs_mean() {
        let (values, means) = (conv(), [2.0, -3.0, 5.0]);
        let q = quantize(&values, WeightScale::Max, 7, false, Some(&means));
        let mean = |weight: &[f32], bias: f32| weight.iter().zip(means).map(|(w, m)| w * m).sum::<f32>() + bias;
        for (o, back) in q.dequantized().chunks_exact(3).enumerate() {
            let expected = mean(&values.weight[3 * o..3 * o + 3], values.bias[o]);
            assert!((mean(back, q.bias[o]) - expected).abs() < 1e-5);
        }
    }
}
