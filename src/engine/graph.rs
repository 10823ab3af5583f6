//! A network as a list of layers, in execution order: what every engine, the trainer and the
//! exporter read.
//!
//! [`crate::op`] has the operations of the layers.

use serde::{Deserialize, Serialize};

use super::op::{Activation, Conv, Interpolation, Op, Window};
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
        let channels = if conv.depthwise { from.channels } else { out_channels };
        let shape = self.under(input, conv.window(), channels);
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

    /// Appends an upsampling by two.
    pub fn upsample2x(&mut self, name: impl Into<String>, input: LayerId, by: Interpolation) -> LayerId {
        let from = self.layers[input].shape;
        let shape = Shape::new(from.channels, from.height * 2, from.width * 2);
        self.push(name.into(), Op::Upsample2x(by), vec![input], shape)
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

    /// Appends a maximum over windows.
    pub fn max_pool(&mut self, name: impl Into<String>, input: LayerId, window: Window) -> LayerId {
        let shape = self.under(input, window, self.layers[input].shape.channels);
        self.push(name.into(), Op::MaxPool(window), vec![input], shape)
    }

    /// Appends a mean over windows.
    pub fn average_pool(&mut self, name: impl Into<String>, input: LayerId, window: Window) -> LayerId {
        let shape = self.under(input, window, self.layers[input].shape.channels);
        self.push(name.into(), Op::AveragePool(window), vec![input], shape)
    }

    /// Appends the mean of each channel.
    pub fn global_average(&mut self, name: impl Into<String>, input: LayerId) -> LayerId {
        let shape = Shape::new(self.layers[input].shape.channels, 1, 1);
        self.push(name.into(), Op::GlobalAverage, vec![input], shape)
    }

    /// Appends `input` with each channel multiplied by its value in `factors`, a map of one pixel.
    ///
    /// # Panics
    /// When `factors` is not one pixel of as many channels.
    pub fn scale(&mut self, name: impl Into<String>, input: LayerId, factors: LayerId) -> LayerId {
        let shape = self.layers[input].shape;
        let expected = Shape::new(shape.channels, 1, 1);
        assert_eq!(self.layers[factors].shape, expected, "factors are one pixel of as many channels");
        self.push(name.into(), Op::Scale, vec![input, factors], shape)
    }

    /// Appends an activation that stands alone.
    pub fn activate(&mut self, name: impl Into<String>, input: LayerId, activation: Activation) -> LayerId {
        self.push(name.into(), Op::Activate(activation), vec![input], self.layers[input].shape)
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

    /// Appends a layer that comes as data: `op` of `inputs`, to `channels` where the operation leaves
    /// them open (a dense convolution, a slice).
    ///
    /// # Errors
    /// [`EngineError::Graph`] when the operands do not exist or do not fit.
    pub fn append(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: Vec<LayerId>,
        channels: usize,
    ) -> Result<LayerId, EngineError> {
        let shapes: Option<Vec<Shape>> = inputs.iter().map(|&id| self.layers.get(id).map(|l| l.shape)).collect();
        let mut layer = Layer { name: name.into(), op, inputs, shape: Shape::new(channels, 1, 1) };
        let fault = |layer: &Layer, why: String| EngineError::Graph { layer: layer.name.clone(), why };
        let shapes = shapes.ok_or_else(|| fault(&layer, "reads a layer that does not come before it".into()))?;
        if op == Op::Input || !has_operands(&layer) {
            let count = layer.inputs.len();
            return Err(fault(&layer, format!("has {count} operands, which do not suit {op:?}")));
        }
        layer.shape = expected_shape(&layer, &shapes).map_err(|why| fault(&layer, why))?;
        if layer.shape.is_empty() {
            return Err(fault(&layer, format!("has the shape {}, which is empty", layer.shape)));
        }
        self.layers.push(layer);
        Ok(self.layers.len() - 1)
    }

    /// What a window over `input` makes, with the given channels.
    fn under(&self, input: LayerId, window: Window, channels: usize) -> Shape {
        let from = self.layers[input].shape;
        Shape::new(channels, window.output(from.height), window.output(from.width))
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
            if !has_operands(layer) {
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
        self.flops_where(|_| true)
    }

    /// Those of some of the convolutions.
    pub fn flops_where(&self, picked: impl Fn(Conv) -> bool) -> usize {
        let picked = self.convs().filter(|&(_, conv, _)| picked(conv));
        picked.map(|(layer, _, w)| 2 * w.iter().product::<usize>() * layer.shape.pixels()).sum()
    }
}

/// Whether a layer has as many operands as its operation needs.
fn has_operands(layer: &Layer) -> bool {
    match layer.op {
        Op::Input => layer.inputs.is_empty(),
        Op::Add | Op::Scale => layer.inputs.len() == 2,
        Op::Concat => !layer.inputs.is_empty(),
        _ => layer.inputs.len() == 1,
    }
}

/// What a layer makes of operands of `inputs`; an error says why they do not fit.
fn expected_shape(layer: &Layer, inputs: &[Shape]) -> Result<Shape, String> {
    let Some(&from) = inputs.first() else { return Ok(layer.shape) };
    let under = |window: Window, channels: usize| {
        let Window { kernel, stride, .. } = window;
        if kernel == 0 || stride == 0 {
            return Err(format!("has a kernel of {kernel} and a stride of {stride}; both must be at least 1"));
        }
        let shape = Shape::new(channels, window.output(from.height), window.output(from.width));
        if shape.pixels() == 0 {
            return Err(format!("has a kernel of {kernel}, larger than its input {from} with the padding"));
        }
        Ok(shape)
    };
    match layer.op {
        Op::Input => Ok(layer.shape),
        Op::Conv(conv) => under(conv.window(), if conv.depthwise { from.channels } else { layer.shape.channels }),
        Op::MaxPool(window) | Op::AveragePool(window) => under(window, from.channels),
        Op::GlobalAverage => Ok(Shape::new(from.channels, 1, 1)),
        Op::Scale => match inputs[1] {
            factors if factors == Shape::new(from.channels, 1, 1) => Ok(from),
            factors => Err(format!("scales {from} by {factors}, which must be one pixel of as many channels")),
        },
        Op::Activate(_) => Ok(from),
        Op::Upsample2x(_) => Ok(Shape::new(from.channels, from.height * 2, from.width * 2)),
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
    use crate::Padding;

    #[test]
    fn flops_and_parameters_of_a_hand_counted_graph() {
        let mut graph = Graph::new(Shape::new(3, 8, 8));
        let conv =
            Conv { kernel: 3, stride: 2, depthwise: false, activation: Activation::Relu6, padding: Padding::Same };
        let stem = graph.conv("stem", 0, 4, conv);
        graph.conv("depthwise", stem, 0, Conv { stride: 1, depthwise: true, ..conv });
        assert_eq!(graph.parameters(), (4 * 3 * 9 + 4) + (4 * 9 + 4));
        assert_eq!(graph.flops(), 2 * 16 * (4 * 3 * 9 + 4 * 9));
    }
}
