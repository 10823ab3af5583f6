//! General distillation by Pearson correlation, PKD (Cao et al. 2022, eq. 4).

use candle_core::{Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::super::scene::Scene;
use super::{pyramid, sum_over_layers, zero, Method};

/// `½ · mean (ŝ − t̂)²` over each layer, summed over layers, every channel being brought to mean 0 and deviation 1 over
/// the batch and those of its pixels that the teacher sees. That is one minus the correlation: magnitudes do not have to match.
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
        sum_over_layers(scene, &self.layers, |student, teacher, sees| {
            let seen = sees.map(seen).transpose()?;
            if seen.as_ref().is_some_and(|seen| seen.elem_count() == 0) {
                return zero();
            }
            let rows = |layer: &Tensor| {
                let rows = layer.transpose(0, 1)?.contiguous()?.flatten_from(1)?;
                seen.as_ref().map_or(Ok(rows.clone()), |seen| rows.index_select(seen, 1))
            };
            (normalise(&rows(student)?)? - normalise(&rows(teacher)?)?)?.sqr()?.mean_all()? * 0.5
        })
    }
}

/// The places of those that are seen.
fn seen(sees: &[bool]) -> Result<Tensor> {
    let places = (0u32..).zip(sees).filter(|(_, sees)| **sees).map(|(place, _)| place);
    Tensor::from_vec(places.clone().collect(), places.count(), &Device::Cpu)
}

/// `rows` `[channels, values]`, each brought to mean 0 and deviation 1.
fn normalise(rows: &Tensor) -> Result<Tensor> {
    let centred = rows.broadcast_sub(&rows.mean_keepdim(1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(1)? + 1e-6)?.sqrt()?;
    centred.broadcast_div(&deviation)
}
