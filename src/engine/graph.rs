//! A network as a list of layers, in execution order: what every engine, the trainer and the exporter read.
//!
//! The vocabulary is deliberately small: all that a student may contain folds into convolution + bias +
//! activation, an addition, an upsampling or a concatenation, so that each engine has few kernels to make fast.

use serde::{Deserialize, Serialize};

/// Channels × height × width of one tensor; the batch is always implicit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl Shape {
    pub fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.channels * self.pixels()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Height × width.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }
}

/// What follows a convolution's bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    Identity,
    /// min(max(x, 0), 6): bounded, so that it quantizes well, and free of transcendental functions.
    Relu6,
}

/// A convolution with "same" padding: output = ceil(input / stride).
///
/// Padding follows TensorFlow's rule, total = max((out − 1)·stride + kernel − in, 0) with the smaller half
/// first, since the ImageNet weights that backbones start from were trained with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    pub kernel: usize,
    pub stride: usize,
    /// One filter a channel (groups = channels); otherwise dense (groups = 1).
    pub depthwise: bool,
    pub activation: Activation,
}

impl Conv {
    /// Zeros before the first row (or column) of an input of `size` rows (or columns).
    pub fn pad_before(&self, size: usize) -> usize {
        let out = size.div_ceil(self.stride);
        ((out - 1) * self.stride + self.kernel).saturating_sub(size) / 2
    }
}

/// One operation; its operands are the layers that [`Layer::inputs`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// The normalised image, planar RGB. Always and only layer 0.
    Input,
    Conv(Conv),
    /// Sum of two equal shapes.
    Add,
    /// Nearest-neighbour upsampling by two in both directions.
    Upsample2x,
    /// Concatenation along channels.
    Concat,
}

/// Index of a layer in its graph, and so of the tensor that it makes.
pub type LayerId = usize;

/// One layer and the shape of the tensor that it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Dotted and unique, such as `backbone.2.0.depthwise`; a convolution's weights go by it.
    pub name: String,
    pub op: Op,
    pub inputs: Vec<LayerId>,
    pub shape: Shape,
}

/// A network: layers in an order in which each comes after its inputs, and those whose tensors leave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    pub layers: Vec<Layer>,
    pub outputs: Vec<LayerId>,
}

impl Graph {
    /// A graph of the input alone.
    pub fn new(input: Shape) -> Self {
        let layer = Layer { name: "input".into(), op: Op::Input, inputs: vec![], shape: input };
        Self { layers: vec![layer], outputs: vec![] }
    }

    /// Appends a convolution to `out_channels` (ignored, and equal to the input's, when depthwise).
    pub fn conv(&mut self, name: impl Into<String>, input: LayerId, out_channels: usize, conv: Conv) -> LayerId {
        let from = self.layers[input].shape;
        let shape = Shape {
            channels: if conv.depthwise { from.channels } else { out_channels },
            height: from.height.div_ceil(conv.stride),
            width: from.width.div_ceil(conv.stride),
        };
        self.push(name.into(), Op::Conv(conv), vec![input], shape)
    }

    /// Appends the sum of two layers of equal shape.
    ///
    /// # Panics
    /// When the shapes differ: a mistake of the code that builds the graph, not of its data.
    pub fn add(&mut self, name: impl Into<String>, a: LayerId, b: LayerId) -> LayerId {
        let shape = self.layers[a].shape;
        assert_eq!(shape, self.layers[b].shape, "added layers differ in shape");
        self.push(name.into(), Op::Add, vec![a, b], shape)
    }

    /// Appends a nearest-neighbour upsampling by two.
    pub fn upsample2x(&mut self, name: impl Into<String>, input: LayerId) -> LayerId {
        let from = self.layers[input].shape;
        let shape = Shape::new(from.channels, from.height * 2, from.width * 2);
        self.push(name.into(), Op::Upsample2x, vec![input], shape)
    }

    /// Appends a concatenation along channels.
    ///
    /// # Panics
    /// When `inputs` is empty or the maps differ in size.
    pub fn concat(&mut self, name: impl Into<String>, inputs: &[LayerId]) -> LayerId {
        let first = self.layers[inputs[0]].shape;
        let same = |&&i: &&LayerId| {
            let s = self.layers[i].shape;
            (s.height, s.width) == (first.height, first.width)
        };
        assert!(inputs.iter().all(|i| same(&i)), "concatenated maps differ in size");
        let channels = inputs.iter().map(|&i| self.layers[i].shape.channels).sum();
        self.push(name.into(), Op::Concat, inputs.to_vec(), Shape { channels, ..first })
    }

    fn push(&mut self, name: String, op: Op, inputs: Vec<LayerId>, shape: Shape) -> LayerId {
        self.layers.push(Layer { name, op, inputs, shape });
        self.layers.len() - 1
    }

    /// Shape of the input image tensor.
    pub fn input_shape(&self) -> Shape {
        self.layers[0].shape
    }

    /// The convolutions, in execution order, with the shape `[out, in per group, kernel, kernel]` of their weights.
    pub fn convs(&self) -> impl Iterator<Item = (&Layer, Conv, [usize; 4])> {
        self.layers.iter().filter_map(|layer| match layer.op {
            Op::Conv(conv) => {
                let from = self.layers[layer.inputs[0]].shape.channels;
                let per_group = if conv.depthwise { 1 } else { from };
                Some((layer, conv, [layer.shape.channels, per_group, conv.kernel, conv.kernel]))
            }
            _ => None,
        })
    }

    /// Weights and biases, in values.
    pub fn parameters(&self) -> usize {
        self.convs().map(|(_, _, w)| w.iter().product::<usize>() + w[0]).sum()
    }

    /// Floating-point operations of one forward pass, a multiply-accumulate counted as two; convolutions only.
    pub fn flops(&self) -> usize {
        self.convs().map(|(layer, _, w)| 2 * w.iter().product::<usize>() * layer.shape.pixels()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_puts_the_smaller_half_first() {
        let conv = |kernel, stride| Conv { kernel, stride, depthwise: false, activation: Activation::Identity };
        assert_eq!(conv(3, 1).pad_before(7), 1);
        assert_eq!(conv(3, 2).pad_before(8), 0);
        assert_eq!(conv(3, 2).pad_before(7), 1);
        assert_eq!(conv(5, 2).pad_before(8), 1);
        assert_eq!(conv(1, 1).pad_before(8), 0);
    }

    #[test]
    fn flops_and_parameters_of_a_hand_counted_graph() {
        let mut graph = Graph::new(Shape::new(3, 8, 8));
        let conv = Conv { kernel: 3, stride: 2, depthwise: false, activation: Activation::Relu6 };
        let stem = graph.conv("stem", 0, 4, conv);
        graph.conv("depthwise", stem, 0, Conv { stride: 1, depthwise: true, ..conv });
        assert_eq!(graph.parameters(), (4 * 3 * 9 + 4) + (4 * 9 + 4));
        assert_eq!(graph.flops(), 2 * 16 * (4 * 3 * 9 + 4 * 9));
    }
}
