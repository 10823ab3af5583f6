//! The activations and their derivatives.

use peregrine_engine::op::LEAK;
use peregrine_engine::Activation;

/// Whether the derivative follows from the activated value alone.
pub fn is_known_by_result(activation: Activation) -> bool {
    !matches!(activation, Activation::Silu | Activation::Hardswish)
}

/// The derivative where the activated value is `y`. At a kink it is that of the flatter side.
///
/// # Panics
/// When it does not follow from that value.
pub fn slope_at_result(activation: Activation, y: f32) -> f32 {
    let inside = |within: bool, slope: f32| if within { slope } else { 0.0 };
    match activation {
        Activation::Identity => 1.0,
        Activation::Relu => inside(y > 0.0, 1.0),
        Activation::Relu6 => inside(y > 0.0 && y < 6.0, 1.0),
        Activation::LeakyRelu if y > 0.0 => 1.0,
        Activation::LeakyRelu => LEAK,
        Activation::Sigmoid => y * (1.0 - y),
        Activation::Hardsigmoid => inside(y > 0.0 && y < 1.0, 1.0 / 6.0),
        Activation::Silu | Activation::Hardswish => unreachable!("two values have this result"),
    }
}

/// The derivative at `x`.
pub fn slope(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => {
            let sigmoid = Activation::Sigmoid.apply(x);
            sigmoid * (1.0 + x * (1.0 - sigmoid))
        }
        Activation::Hardswish if x <= -3.0 => 0.0,
        Activation::Hardswish if x >= 3.0 => 1.0,
        Activation::Hardswish => (2.0 * x + 3.0) / 6.0,
        other => slope_at_result(other, other.apply(x)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn slopes_agree_with_finite_differences() {
        use Activation::{Hardsigmoid, Hardswish, Identity, LeakyRelu, Relu, Relu6, Sigmoid, Silu};
        for activation in [Identity, Relu, Relu6, LeakyRelu, Silu, Hardswish, Sigmoid, Hardsigmoid] {
            // None within a step of a kink: 0, 3 and 6.
            let at: Vec<f32> = (-80..80).map(|i| i as f32 / 10.0 + 0.05).collect();
            let slopes: Vec<f32> = at.iter().map(|&x| slope(activation, x)).collect();
            let sum = |x: &[f32]| x.iter().map(|&x| f64::from(activation.apply(x))).sum();
            check::gradient(&at, &slopes, sum);
        }
    }
}
