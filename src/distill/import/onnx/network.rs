//! The network under construction: a graph, and the weights of its convolutions.

use std::collections::HashSet;

use anyhow::ensure;
use peregrine_engine::{Activation, Conv, ConvWeights, Graph, LayerId, Op, Shape, Weights};

/// A network whose layers have unique names, and whose convolutions have weights.
#[derive(Debug, Clone)]
pub struct Network {
    pub graph: Graph,
    pub weights: Weights,
    names: HashSet<String>,
}

/// A map larger than this is refused (values): 4 GiB of them would be.
const MAX_VALUES: usize = 1 << 28;

/// The longest name of a layer, in bytes.
const MAX_NAME: usize = 100;

impl Network {
    /// A network of an input alone.
    pub fn new(input: Shape) -> Self {
        Self { graph: Graph::new(input), weights: Weights::default(), names: HashSet::from(["input".to_owned()]) }
    }

    pub fn shape(&self, layer: LayerId) -> Shape {
        self.graph.layers[layer].shape
    }

    /// Appends a layer, whose shape must follow from its operands.
    ///
    /// # Errors
    /// When the operands do not fit the operation.
    pub fn push(&mut self, name: &str, op: Op, inputs: &[LayerId], channels: usize) -> anyhow::Result<LayerId> {
        let name = self.unique(name);
        let id = self.graph.append(name, op, inputs.to_vec(), channels)?;
        let shape = self.shape(id);
        ensure!(shape.len() <= MAX_VALUES, "makes a map of {shape}, which is too large");
        Ok(id)
    }

    /// Appends a convolution with its weights, `[out, in per group, kernel, kernel]` and `[out]`.
    ///
    /// # Errors
    /// When the weights are not as many as that.
    pub fn conv(&mut self, name: &str, input: LayerId, conv: Conv, weights: ConvWeights) -> anyhow::Result<LayerId> {
        let channels = weights.bias.len();
        let per_group = if conv.depthwise { 1 } else { self.shape(input).channels };
        let expected = channels * per_group * conv.kernel * conv.kernel;
        ensure!(
            weights.weight.len() == expected && (!conv.depthwise || channels == self.shape(input).channels),
            "has {} weights where {expected} are needed for its input {}",
            weights.weight.len(),
            self.shape(input)
        );
        let id = self.push(name, Op::Conv(conv), &[input], channels)?;
        self.weights.0.insert(self.graph.layers[id].name.clone(), weights);
        Ok(id)
    }

    /// Appends factor · x + offset for each channel.
    ///
    /// # Errors
    /// When there are not as many of them as channels.
    pub fn affine(
        &mut self,
        name: &str,
        input: LayerId,
        factor: Vec<f32>,
        offset: Vec<f32>,
    ) -> anyhow::Result<LayerId> {
        self.conv(name, input, channelwise(), ConvWeights { weight: factor, bias: offset })
    }

    /// A name that no layer has yet: `name`, made readable, or that with a number.
    fn unique(&mut self, name: &str) -> String {
        let base = readable(name);
        let mut unique = base.clone();
        let mut number = 2;
        while !self.names.insert(unique.clone()) {
            unique = format!("{base}.{number}");
            number += 1;
        }
        unique
    }
}

/// A convolution that is a factor and an offset for each channel.
pub fn channelwise() -> Conv {
    Conv { kernel: 1, stride: 1, depthwise: true, activation: Activation::Identity, padding: Default::default() }
}

/// An exporter's name without slashes and repetitions: `/model.2/cv1/conv/Conv` becomes
/// `model.2.cv1.conv`.
fn readable(name: &str) -> String {
    let mut parts: Vec<&str> = name.split(['/', '.', ':']).filter(|part| !part.is_empty()).collect();
    if parts.len() > 1 && parts.last().is_some_and(|last| *last == "Conv") {
        parts.pop();
    }
    let joined = parts.join(".");
    let clean: String = joined.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    // The end tells layers apart that the beginning does not.
    let cut = &clean[clean.len().saturating_sub(MAX_NAME)..];
    if cut.is_empty() {
        "layer".into()
    } else {
        cut.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable_and_unique() {
        let mut network = Network::new(Shape::new(3, 4, 4));
        let mut name = |text: &str| network.unique(text);
        assert_eq!(name("/model.2/cv1/conv/Conv"), "model.2.cv1.conv");
        assert_eq!(name("/model.2/cv1/conv/Conv"), "model.2.cv1.conv.2");
        assert_eq!(name("Conv__140"), "Conv__140");
        assert_eq!(name("input"), "input.2");
        assert_eq!(name(""), "layer");
        assert_eq!(name(&"ä".repeat(300)).len(), MAX_NAME);
    }
}
