//! Attention transfer (Zagoruyko & Komodakis 2017, eq. 2).

use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::{pyramid, sum_over_layers, Method};
use crate::tensor::{Result, Tensor};

/// `Σ_p (Q_S/‖Q_S‖ − Q_T/‖Q_T‖)²`, averaged over images and summed over layers, with the map `Q =
/// Σ_c |A_c|²`. (The paper's norm is squared here, as in its authors' code, which keeps the
/// gradient finite where the maps agree.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    #[serde(default = "pyramid")]
    pub layers: Vec<String>,
}

impl Method for Attention {
    fn layers(&self) -> Vec<String> {
        self.layers.clone()
    }

    fn needs_equal_width(&self) -> bool {
        false
    }

    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor> {
        sum_over_layers(inputs, &self.layers, |student, teacher, _| {
            let gap = (map(student)? - map(teacher)?)?;
            gap.sqr()?.sum(1)?.mean_all()? * inputs.ranks.share()
        })
    }
}

/// `[images, pixels]`, each row of norm 1.
fn map(layer: &Tensor) -> Result<Tensor> {
    let map = layer.flatten(2, 3)?.sqr()?.sum(1)?;
    let norm = (map.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?;
    map.broadcast_div(&norm)
}
