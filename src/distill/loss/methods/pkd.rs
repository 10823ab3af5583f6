//! General distillation by Pearson correlation, PKD (Cao et al. 2022, eq. 4).

use candle_core::{Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::{pyramid, sum_over_layers, zero, Method};

/// `½ · mean (ŝ − t̂)²` over each layer, summed over layers, every channel being standardised to
/// mean 0 and deviation 1 over the valid pixels of the batch. That is one minus the correlation:
/// magnitudes do not have to match.
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

    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor> {
        let ranks = &inputs.ranks;
        let loss = sum_over_layers(inputs, &self.layers, |student, teacher, valid| {
            let (student, teacher) = (ranks.gather_images(student)?, ranks.gather_images(teacher)?);
            let valid = valid.map(|valid| ranks.gather_flags(valid));
            let places = valid.as_deref().map(places).transpose()?;
            if places.as_ref().is_some_and(|places| places.elem_count() == 0) {
                return zero();
            }
            let rows = |layer: &Tensor| {
                let rows = layer.transpose(0, 1)?.contiguous()?.flatten_from(1)?;
                places.as_ref().map_or(Ok(rows.clone()), |places| rows.index_select(places, 1))
            };
            (normalise(&rows(&student)?)? - normalise(&rows(&teacher)?)?)?.sqr()?.mean_all()? * 0.5
        })?;
        ranks.once(loss)
    }
}

/// The indices of the valid pixels.
fn places(valid: &[bool]) -> Result<Tensor> {
    let places = (0u32..).zip(valid).filter(|(_, valid)| **valid).map(|(place, _)| place);
    Tensor::from_vec(places.clone().collect(), places.count(), &Device::Cpu)
}

/// `rows` `[channels, values]`, each standardised to mean 0 and deviation 1.
fn normalise(rows: &Tensor) -> Result<Tensor> {
    let centred = rows.broadcast_sub(&rows.mean_keepdim(1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(1)? + 1e-6)?.sqrt()?;
    centred.broadcast_div(&deviation)
}
