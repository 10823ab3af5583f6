//! The weights of a [`Graph`], checked against it when they are put together.

use std::collections::BTreeMap;

use super::{EngineError, Graph};

/// One convolution's weights, batch-norm already folded in.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvWeights {
    /// `[out, in per group, kernel, kernel]`, row-major.
    pub weight: Vec<f32>,
    /// `[out]`.
    pub bias: Vec<f32>,
}

/// A convolution's weights for each convolution's name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights(pub BTreeMap<String, ConvWeights>);

impl Weights {
    /// Checks that `graph` is sound, and that each of its convolutions has finite weights of its
    /// shape.
    ///
    /// # Errors
    /// [`EngineError::Graph`] or [`EngineError::Weights`] names the first layer at fault.
    pub fn check(&self, graph: &Graph) -> Result<(), EngineError> {
        graph.check()?;
        for (layer, _, shape) in graph.convs() {
            let fault = |why: String| EngineError::Weights { layer: layer.name.clone(), why };
            let found = self.0.get(&layer.name).ok_or_else(|| fault("is missing".into()))?;
            let expected = shape.iter().product::<usize>();
            if found.weight.len() != expected || found.bias.len() != shape[0] {
                let (w, b) = (found.weight.len(), found.bias.len());
                return Err(fault(format!("has {w} weights and {b} biases where {shape:?} is expected")));
            }
            if !found.weight.iter().chain(&found.bias).all(|v| v.is_finite()) {
                return Err(fault("holds a value that is not finite".into()));
            }
        }
        Ok(())
    }

    /// The weights of a layer that [`check`](Self::check) has seen.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn of(&self, layer: &str) -> &ConvWeights {
        &self.0[layer]
    }
}
