//! Hints (Romero et al. 2015, "FitNets", eq. 3).

use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::{pyramid, sum_over_layers, Method};
use crate::tensor::{Result, Tensor};

/// `½ · mean (teacher − student)²` over the values of each layer, summed over layers. The layers
/// have equal numbers of channels, so that the paper's regressor is the identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hint {
    #[serde(default = "pyramid")]
    pub layers: Vec<String>,
}

impl Method for Hint {
    fn layers(&self) -> Vec<String> {
        self.layers.clone()
    }

    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor> {
        let half = 0.5 * inputs.ranks.share();
        sum_over_layers(inputs, &self.layers, |student, teacher, _| (student - teacher)?.sqr()?.mean_all()? * half)
    }
}
