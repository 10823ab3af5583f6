//! A network under construction: a graph, and the widths that pruning has left to its layers.

use std::collections::BTreeMap;

use peregrine_engine::{Activation, Conv, Graph, LayerId, Padding, Shape};

/// Adds layers to a graph, dense convolutions with their pruned widths.
pub(crate) struct NetworkBuilder<'a> {
    pub graph: Graph,
    widths: &'a BTreeMap<String, usize>,
}

impl<'a> NetworkBuilder<'a> {
    /// A network of an input alone. `widths`: channels of the layers that are pruned.
    pub fn new(input: Shape, widths: &'a BTreeMap<String, usize>) -> Self {
        Self { graph: Graph::new(input), widths }
    }

    /// A network that is to be added to.
    pub fn of(graph: Graph, widths: &'a BTreeMap<String, usize>) -> Self {
        Self { graph, widths }
    }

    /// A dense convolution to `channels`, or to fewer where it was pruned.
    pub fn dense(&mut self, name: String, input: LayerId, channels: usize, conv: Conv) -> LayerId {
        let channels = self.widths.get(&name).copied().unwrap_or(channels);
        self.graph.conv(name, input, channels, conv)
    }

    /// A depthwise convolution, as wide as its input.
    pub fn depthwise(
        &mut self,
        name: String,
        input: LayerId,
        (kernel, stride): (usize, usize),
        activation: Activation,
    ) -> LayerId {
        self.graph.conv(name, input, 0, Conv { kernel, stride, depthwise: true, activation, padding: Padding::Same })
    }
}

/// The parameters of a dense convolution.
pub(crate) fn dense(kernel: usize, stride: usize, activation: Activation) -> Conv {
    Conv { kernel, stride, depthwise: false, activation, padding: Padding::Same }
}
