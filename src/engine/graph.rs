//! A network as a list of layers, in execution order: what every engine, the trainer and the
//! exporter read.
//!
//! The vocabulary is deliberately small: all that a student may contain folds into convolution +
//! bias + activation, an addition, an upsampling or a concatenation, so that each engine
//! needs few kernels. ReLU and pooling are there for ResNet teachers; slices, shuffles and
//! further activations for the networks that the CPU engine is compared on (`bench/engines`): no
//! student has them, and training refuses them.

use serde::{Deserialize, Serialize};

use super::EngineError;

/// Channels × height × width of one tensor; the batch is always implicit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

impl Shape {
    /// A shape of channels × height × width.
    pub fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.channels * self.pixels()
    }

    /// Whether there are no values.
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
    /// x itself.
    Identity,
    /// min(max(x, 0), 6): bounded, so that it quantizes well, and free of transcendental functions.
    Relu6,
    /// max(x, 0), as ResNets have it.
    Relu,
    /// x / (1 + e⁻ˣ) (Elfwing et al. 2017), as the YOLO family has it.
    Silu,
    /// x · min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, MobileNetV3).
    Hardswish,
    /// max(x, [`LEAK`] · x).
    LeakyRelu,
}

/// Slope of [`Activation::LeakyRelu`] below zero: NanoDet's and Darknet's.
pub const LEAK: f32 = 0.1;

impl Activation {
    /// The activation's definition; engines may approximate it as their documentation says.
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Relu => x.max(0.0),
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::Hardswish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Self::LeakyRelu => x.max(LEAK * x),
        }
    }
}

/// A convolution with "same" padding: output = ceil(input / stride).
///
/// Padding follows TensorFlow's rule, total = max((out − 1)·stride + kernel − in, 0) with the
/// smaller half first, since the ImageNet weights that backbones start from were trained with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// Side of the square kernel, at least 1.
    pub kernel: usize,
    /// From one output pixel to the next, in input pixels, both ways; at least 1.
    pub stride: usize,
    /// One filter a channel (groups = channels); otherwise dense (groups = 1).
    pub depthwise: bool,
    /// What follows the bias.
    pub activation: Activation,
}

impl Conv {
    /// Whether this is but a scale, an offset and an activation for each channel: how an activation
    /// by itself, after a sum, is written.
    pub fn is_channelwise(&self) -> bool {
        self.depthwise && self.kernel == 1 && self.stride == 1
    }

    /// Zeros before the first row (or column) of an input of `size` rows (or columns).
    pub fn pad_before(&self, size: usize) -> usize {
        padding(self.kernel, self.stride, size).0
    }
}

/// What "same" padding puts before and after `size` rows (or columns) under a window of `kernel`
/// moved by `stride`.
pub fn padding(kernel: usize, stride: usize, size: usize) -> (usize, usize) {
    let total = ((size.div_ceil(stride) - 1) * stride + kernel).saturating_sub(size);
    (total / 2, total - total / 2)
}

/// One operation; its operands are the layers that [`Layer::inputs`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// The normalised image, planar RGB. Always and only layer 0.
    Input,
    /// A convolution, its bias and its activation.
    Conv(Conv),
    /// Sum of two equal shapes.
    Add,
    /// Nearest-neighbour upsampling by two in both directions.
    Upsample2x,
    /// Concatenation along channels.
    Concat,
    /// The largest value under each window; padding as a convolution's, but it never wins.
    MaxPool {
        /// Side of the square window, at least 1.
        kernel: usize,
        /// From one window to the next, in input pixels; at least 1.
        stride: usize,
    },
    /// As many channels as the layer's shape says, from `first` on.
    Slice {
        /// The first channel.
        first: usize,
    },
    /// Channel c·groups + g is the input's channel g·(channels / groups) + c (Zhang et al. 2017,
    /// ShuffleNet).
    Shuffle {
        /// A divisor of the number of channels.
        groups: usize,
    },
}

/// Index of a layer in its graph, and so of the tensor that it makes.
pub type LayerId = usize;

/// One layer and the shape of the tensor that it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Dotted and unique, such as `backbone.2.0.depthwise`; a convolution's weights go by it.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Its operands, each an earlier layer.
    pub inputs: Vec<LayerId>,
    /// Of its result.
    pub shape: Shape,
}

/// A network: layers in an order in which each comes after its inputs, and those whose tensors
/// leave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// In execution order; the first is the input.
    pub layers: Vec<Layer>,
    /// Those whose results leave the network.
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

    /// Appends a maximum over windows of `kernel` × `kernel`.
    pub fn max_pool(&mut self, name: impl Into<String>, input: LayerId, kernel: usize, stride: usize) -> LayerId {
        let from = self.layers[input].shape;
        let shape = Shape::new(from.channels, from.height.div_ceil(stride), from.width.div_ceil(stride));
        self.push(name.into(), Op::MaxPool { kernel, stride }, vec![input], shape)
    }

    /// Appends a copy of the channels `range`.
    ///
    /// # Panics
    /// When the range is empty or not within the input's channels.
    pub fn slice(&mut self, name: impl Into<String>, input: LayerId, range: std::ops::Range<usize>) -> LayerId {
        let from = self.layers[input].shape;
        assert!(range.start < range.end && range.end <= from.channels, "{range:?} of {} channels", from.channels);
        let shape = Shape { channels: range.len(), ..from };
        self.push(name.into(), Op::Slice { first: range.start }, vec![input], shape)
    }

    /// Appends a channel shuffle.
    ///
    /// # Panics
    /// When the number of channels is not a multiple of `groups`.
    pub fn shuffle(&mut self, name: impl Into<String>, input: LayerId, groups: usize) -> LayerId {
        let shape = self.layers[input].shape;
        assert!(shape.channels.is_multiple_of(groups), "{} channels in {groups} groups", shape.channels);
        self.push(name.into(), Op::Shuffle { groups }, vec![input], shape)
    }

    fn push(&mut self, name: String, op: Op, inputs: Vec<LayerId>, shape: Shape) -> LayerId {
        self.layers.push(Layer { name, op, inputs, shape });
        self.layers.len() - 1
    }

    /// Checks that layers follow what they read, have the operands that they need and the shapes
    /// that follow from them. What the methods above put together passes; what was read from
    /// elsewhere, or changed by hand, may not.
    ///
    /// # Errors
    /// [`EngineError::Graph`] names the first layer at fault.
    pub fn check(&self) -> Result<(), EngineError> {
        for (id, layer) in self.layers.iter().enumerate() {
            let fault = |why: String| Err(EngineError::Graph { layer: layer.name.clone(), why });
            if (id == 0) != (layer.op == Op::Input) {
                return fault("is out of place: the first layer, and only that, is the input".into());
            }
            if layer.inputs.iter().any(|&input| input >= id) {
                return fault("reads a layer that does not come before it".into());
            }
            let operands = match layer.op {
                Op::Input => layer.inputs.is_empty(),
                Op::Add => layer.inputs.len() == 2,
                Op::Concat => !layer.inputs.is_empty(),
                _ => layer.inputs.len() == 1,
            };
            if !operands {
                return fault(format!("has {} operands, which do not suit {:?}", layer.inputs.len(), layer.op));
            }
            if layer.shape.is_empty() {
                return fault(format!("has the shape {}, which is empty", layer.shape));
            }
            let shapes: Vec<Shape> = layer.inputs.iter().map(|&input| self.layers[input].shape).collect();
            match expected_shape(layer, &shapes) {
                Ok(expected) if expected == layer.shape => {}
                Ok(expected) => return fault(format!("has the shape {}, but its inputs make {expected}", layer.shape)),
                Err(why) => return fault(why),
            }
        }
        match self.outputs.iter().find(|&&output| output >= self.layers.len()) {
            Some(output) => {
                let why = format!("is an output, but there are {} layers", self.layers.len());
                Err(EngineError::Graph { layer: output.to_string(), why })
            }
            None => Ok(()),
        }
    }

    /// Shape of the input image tensor.
    pub fn input_shape(&self) -> Shape {
        self.layers[0].shape
    }

    /// The convolutions, in execution order, with the shape `[out, in per group, kernel, kernel]`
    /// of their weights.
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

    /// Floating-point operations of one forward pass, a multiply-accumulate counted as two;
    /// convolutions only.
    pub fn flops(&self) -> usize {
        self.convs().map(|(layer, _, w)| 2 * w.iter().product::<usize>() * layer.shape.pixels()).sum()
    }
}

/// What a layer makes of operands of `inputs`; an error says why they do not fit.
fn expected_shape(layer: &Layer, inputs: &[Shape]) -> Result<Shape, String> {
    let Some(&from) = inputs.first() else { return Ok(layer.shape) };
    let window = |kernel: usize, stride: usize, channels: usize| match (kernel, stride) {
        (0, _) | (_, 0) => Err(format!("has a kernel of {kernel} and a stride of {stride}; both must be at least 1")),
        _ => Ok(Shape::new(channels, from.height.div_ceil(stride), from.width.div_ceil(stride))),
    };
    match layer.op {
        Op::Input => Ok(layer.shape),
        Op::Conv(conv) => {
            window(conv.kernel, conv.stride, if conv.depthwise { from.channels } else { layer.shape.channels })
        }
        Op::MaxPool { kernel, stride } => window(kernel, stride, from.channels),
        Op::Upsample2x => Ok(Shape::new(from.channels, from.height * 2, from.width * 2)),
        Op::Add => match inputs.iter().find(|&&shape| shape != from) {
            Some(other) => Err(format!("adds {from} and {other}")),
            None => Ok(from),
        },
        Op::Concat => match inputs.iter().find(|s| (s.height, s.width) != (from.height, from.width)) {
            Some(other) => Err(format!("concatenates {from} and {other}")),
            None => Ok(Shape { channels: inputs.iter().map(|s| s.channels).sum(), ..from }),
        },
        Op::Slice { first } => match first.checked_add(layer.shape.channels) {
            Some(past) if past <= from.channels => Ok(Shape { channels: layer.shape.channels, ..from }),
            _ => Err(format!("takes {} channels from {first} on, of {}", layer.shape.channels, from.channels)),
        },
        Op::Shuffle { groups } => {
            if groups != 0 && from.channels.is_multiple_of(groups) {
                Ok(from)
            } else {
                Err(format!("shuffles {} channels in {groups} groups", from.channels))
            }
        }
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
