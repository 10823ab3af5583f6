//! AdamW (Loshchilov & Hutter 2019, algorithm 2), with gradient clipping by global norm.

use std::collections::BTreeMap;

use crate::distill::net::NetParams;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f32 = 1e-8;

/// First and second moments of each trainable tensor, by its name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AdamW {
    pub moments: BTreeMap<String, [Vec<f32>; 2]>,
    /// Updates made.
    pub updates: u64,
}

impl AdamW {
    /// Scales the gradients down to a norm of `clip` where they exceed it, then updates every trainable tensor.
    /// Returns the norm before clipping.
    pub fn update(&mut self, params: &mut NetParams, rate: f64, decay: f64, clip: f32) -> f32 {
        self.updates += 1;
        let correction = |beta: f64| 1.0 - beta.powi(self.updates.min(i32::MAX as u64) as i32);
        let (c1, c2) = (correction(BETA1), correction(BETA2));
        let mut list = params.trainable();
        let squares = |g: &[f32]| g.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let norm = list.iter().map(|t| squares(&t.param.gradient)).sum::<f64>().sqrt() as f32;
        let scale = if norm > clip { clip / norm } else { 1.0 };
        for trainable in &mut list {
            let len = trainable.param.value.len();
            let [m, v] = self.moments.entry(trainable.name.clone()).or_insert_with(|| [vec![0.0; len], vec![0.0; len]]);
            let rate = rate * f64::from(trainable.rate);
            let step = (rate / c1) as f32;
            let shrink = if trainable.decay { 1.0 - (rate * decay) as f32 } else { 1.0 };
            let root = (1.0 / c2.sqrt()) as f32;
            let (b1, b2) = (BETA1 as f32, BETA2 as f32);
            let values = trainable.param.value.iter_mut().zip(&trainable.param.gradient);
            for ((value, &gradient), (m, v)) in values.zip(m.iter_mut().zip(v)) {
                let gradient = gradient * scale;
                *m = b1 * *m + (1.0 - b1) * gradient;
                *v = b2 * *v + (1.0 - b2) * gradient * gradient;
                *value = *value * shrink - step * *m / (v.sqrt() * root + EPSILON);
            }
        }
        norm
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Activation, Conv, Graph, Shape};

    fn params() -> NetParams {
        let mut graph = Graph::new(Shape::new(1, 1, 1));
        let conv = Conv { kernel: 1, stride: 1, depthwise: false, activation: Activation::Identity };
        let out = graph.conv("out", 0, 1, conv);
        graph.outputs.push(out);
        NetParams::random(&graph, 0)
    }

    #[test]
    fn two_updates_equal_torch_optim_adamw() {
        // torch.optim.AdamW([tensor(0.5)], lr=0.1, weight_decay=0.1) with gradients 0.3, then -0.2, worked out in f64.
        let mut params = params();
        let mut adam = AdamW::default();
        params.convs[0].weight.value[0] = 0.5;
        for (gradient, expected) in [(0.3f32, 0.395f64), (-0.2, 0.376598)] {
            params.zero_gradients();
            params.convs[0].weight.gradient[0] = gradient;
            adam.update(&mut params, 0.1, 0.1, 100.0);
            let value = f64::from(params.convs[0].weight.value[0]);
            assert!((value - expected).abs() < 1e-5, "{value} instead of {expected}");
        }
    }

    #[test]
    fn a_gradient_above_the_bound_is_scaled_to_it() {
        let mut params = params();
        let mut adam = AdamW::default();
        params.convs[0].weight.gradient[0] = 30.0;
        params.convs[0].bias.gradient[0] = 40.0;
        assert_eq!(adam.update(&mut params, 0.1, 0.0, 5.0), 50.0);
        assert!((adam.moments["out.weight"][0][0] - 0.1 * 3.0).abs() < 1e-6);
    }
}
