//! General distillation by Pearson correlation, PKD (Cao et al. 2022, eq. 4).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::super::scene::Scene;
use super::{pyramid, sum_over_layers, Method};

/// `½ · mean (ŝ − t̂)²` over each layer, summed over layers, every channel being brought to mean 0 and deviation 1 over
/// the batch and its pixels. That is one minus the correlation: magnitudes do not have to match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkd {
    #[serde(default = "pyramid")]
    pub layers: Vec<String>,
}

impl Method for Pkd {
    fn layers(&self) -> Vec<String> {
        self.layers.clone()
    }

    fn loss(&self, scene: &Scene) -> Result<Tensor> {
        sum_over_layers(scene, &self.layers, |student, teacher| {
            (normalise(student)? - normalise(teacher)?)?.sqr()?.mean_all()? * 0.5
        })
    }
}

/// `[channels, values]`, each row of mean 0 and deviation 1.
fn normalise(layer: &Tensor) -> Result<Tensor> {
    let rows = layer.transpose(0, 1)?.contiguous()?.flatten_from(1)?;
    let centred = rows.broadcast_sub(&rows.mean_keepdim(1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(1)? + 1e-6)?.sqrt()?;
    centred.broadcast_div(&deviation)
}
