//! From the nodes of an ONNX file to layers.
//!
//! Each tensor is followed as a `Value`: a constant, or a function of a layer's map. Elementwise
//! operations only lengthen that function; it becomes layers when an operation that is not
//! elementwise reads it. The network is converted at the size that the file was exported for, so
//! that shapes which the exporter has written into it hold; the layers do not depend on it.
//!
//! - `value`: what a tensor is. `elementwise`: arithmetic and activations. `convolution`: also
//!   groups, dilations and kernels that are not square. `window`: how padding is expressed;
//!   `pooling`. `movement`: concatenation, slices, resizing, rearrangements.

mod convolution;
mod elementwise;
mod movement;
mod pooling;
mod resize;
mod value;
mod window;

use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{bail, ensure, Context};
use peregrine_engine::{Activation, LayerId, Op, Shape};

use self::value::{Arrangement, Map, Value};
use super::constant::Constant;
use super::expression::{Binary, Expression, Recognised};
use super::fold::fold;
use super::model::{described, Attributes, OnnxFile};
use super::network::Network;
use crate::export::messages::Node;

/// Constants that folding may make in all (values).
const MAX_FOLDED_IN_ALL: usize = 1 << 26;

/// A conversion under way.
pub struct Converter<'a> {
    file: &'a OnnxFile,
    pub network: Network,
    values: HashMap<&'a str, Value>,
    /// Activations that stand alone already: of which layer, which, and where.
    activations: Vec<(LayerId, Activation, LayerId)>,
    folded: usize,
}

impl<'a> Converter<'a> {
    /// Of `file` at an input of `width` × `height` pixels.
    ///
    /// # Errors
    /// When the file's input is no image of three colours, or of another size.
    pub fn new(file: &'a OnnxFile, width: usize, height: usize) -> anyhow::Result<Self> {
        let network = Network::new(Shape::new(3, height, width));
        let fits = |expected: [usize; 4]| {
            file.input_dims.len() == 4 && file.input_dims.iter().zip(expected).all(|(d, e)| d.is_none_or(|d| d == e))
        };
        let planar = file.is_planar();
        ensure!(
            fits(if planar { [1, 3, height, width] } else { [1, height, width, 3] }),
            "input {:?} is {}, which is not one image of three colours, {width}x{height} pixels",
            file.input,
            dims_in_words(&file.input_dims)
        );
        let arrangement = if planar { Arrangement::Nchw } else { Arrangement::Nhwc };
        let image = Value::Map(Map::of(0).arranged(arrangement));
        let values = HashMap::from([(file.input.as_str(), image)]);
        Ok(Self { file, network, values, activations: Vec::new(), folded: 0 })
    }

    /// Converts the nodes that are in `needed`, in the file's order.
    ///
    /// # Errors
    /// Names the first node that cannot be converted, and why.
    pub fn convert(&mut self, needed: &[bool]) -> anyhow::Result<()> {
        let file = self.file;
        for (id, node) in file.nodes.iter().enumerate().filter(|(id, _)| needed[*id]) {
            let at = || format!("{} cannot be imported", described(node));
            let made = self.node(node).with_context(at)?;
            ensure!(made.len() <= node.output.len(), "{}: it makes {} tensors", at(), made.len());
            for (name, value) in file.nodes[id].output.iter().zip(made) {
                self.values.insert(name, value);
            }
        }
        Ok(())
    }

    /// The layer whose map is the tensor `name`, times `factor`.
    ///
    /// # Errors
    /// When it is not a map of a layer.
    pub fn layer_of(&mut self, name: &str, factor: f32) -> anyhow::Result<LayerId> {
        let Some(Value::Map(map)) = self.values.get(name).cloned() else { bail!("tensor {name:?} is no map") };
        let map = self.times(&map, factor)?.arranged(Arrangement::Nchw);
        self.plain(&map)
    }

    fn node(&mut self, node: &Node) -> anyhow::Result<Vec<Value>> {
        let name = if node.name.is_empty() { &node.output[0] } else { &node.name };
        if node.op_type == "Constant" {
            return Ok(vec![Value::Constant(Rc::new(constant(node)?))]);
        }
        let inputs: Vec<Option<Value>> =
            node.input.iter().map(|input| self.value(input)).collect::<anyhow::Result<_>>()?;
        if let Some(folded) = self.fold(node, &inputs)? {
            return Ok(vec![folded]);
        }
        ensure!(node.domain.is_empty() || node.domain == "ai.onnx", "it is not one of ONNX's own operations");
        let first = match inputs.first() {
            Some(Some(Value::Map(map))) => Some(map.clone()),
            _ => None,
        };
        let one = |map: anyhow::Result<Map>| map.map(|map| vec![Value::Map(map)]);
        let map = || first.as_ref().context("its first operand is a constant");
        match node.op_type.as_str() {
            "Identity" | "Dropout" | "Cast" => one(map().cloned()),
            "Shape" => self.dims(map()?).map(|dims| vec![Value::Constant(Rc::new(dims))]),
            "Add" | "Sub" | "Mul" | "Div" => one(self.arithmetic(node, name, &inputs)),
            "BatchNormalization" => one(self.batch_norm(node, name, map()?, &inputs)),
            "Conv" => one(self.convolution(node, name, map()?, &inputs)),
            "Gemm" | "MatMul" => one(self.matrix(node, name, map()?, &inputs)),
            "MaxPool" => one(self.max_pool(node, name, map()?)),
            "AveragePool" => one(self.average_pool(node, name, map()?)),
            "GlobalAveragePool" | "ReduceMean" => one(self.global_average(node, name, map()?, &inputs)),
            "Concat" => one(self.concat(node, name, &inputs)),
            "Split" => self.split(node, name, map()?, &inputs),
            "Slice" => one(self.slice(node, name, map()?, &inputs)),
            "Resize" | "Upsample" => one(self.resize(node, name, map()?, &inputs)),
            "Pad" => one(self.pad(node, map()?, &inputs)),
            "Transpose" => one(self.transpose(node, map()?)),
            "SpaceToDepth" => one(self.space_to_depth(node, map()?)),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => one(self.reshape(node, name, map()?, &inputs)),
            "QuantizeLinear" | "DequantizeLinear" | "QLinearConv" | "ConvInteger" => {
                bail!("the network is quantized; import it in floating point and quantize the package")
            }
            "ConvTranspose" => bail!("transposed convolutions are not supported; upsample by Resize instead"),
            "If" | "Loop" | "Scan" => bail!("networks with branches or loops are not supported"),
            _ => match first {
                Some(map) => one(self.unary(node, &map, &inputs)),
                None => bail!("this operation on constants is not known"),
            },
        }
    }

    /// The tensor `name`; `None` where it is left out.
    fn value(&self, name: &str) -> anyhow::Result<Option<Value>> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(constant) = self.file.constants.get(name) {
            return Ok(Some(Value::Constant(constant.clone())));
        }
        let value =
            self.values.get(name).with_context(|| format!("its operand {name:?} is made by no node before it"))?;
        Ok(Some(value.clone()))
    }

    fn fold(&mut self, node: &Node, inputs: &[Option<Value>]) -> anyhow::Result<Option<Value>> {
        let constants: Option<Vec<Option<&Constant>>> = inputs
            .iter()
            .map(|input| match input {
                None => Some(None),
                Some(Value::Constant(c)) => Some(Some(&**c)),
                Some(Value::Map(_)) => None,
            })
            .collect();
        let Some(constants) = constants else { return Ok(None) };
        let Some(made) = fold(node, &constants)? else { return Ok(None) };
        self.folded += made.values.len();
        ensure!(self.folded <= MAX_FOLDED_IN_ALL, "the constants that it makes are too large");
        Ok(Some(Value::Constant(Rc::new(made))))
    }

    fn dims(&self, map: &Map) -> anyhow::Result<Constant> {
        Ok(Constant::ints(map.dims(self.network.shape(map.layer)).into_iter().map(|d| d as i64).collect()))
    }

    /// The layer that holds `map` as a factor times a layer's map.
    fn scaled(&mut self, map: &Map) -> anyhow::Result<(LayerId, f32)> {
        ensure!(map.arrangement == Arrangement::Nchw, "its operand is not arranged as [1, channels, height, width]");
        let layer = map.layer;
        match map.expression.recognise() {
            Some(Recognised { activation, scale, offset: 0.0 }) => Ok((self.activated(layer, activation)?, scale)),
            Some(Recognised { activation, scale, offset }) => {
                let from = self.activated(layer, activation)?;
                let channels = self.network.shape(from).channels;
                let name = format!("{}.offset", self.network.graph.layers[from].name);
                Ok((self.network.affine(&name, from, vec![scale; channels], vec![offset; channels])?, 1.0))
            }
            None => self.sum_of(map),
        }
    }

    /// A function that is no activation may still be a sum of two.
    fn sum_of(&mut self, map: &Map) -> anyhow::Result<(LayerId, f32)> {
        let part = |expression: &Rc<Expression>| Map { expression: expression.clone(), ..map.clone() };
        if let Expression::Binary(Binary::Add, a, b) = &*map.expression {
            let (a, b) = (self.plain(&part(a))?, self.plain(&part(b))?);
            let shape = self.network.shape(a);
            let name = format!("{}.sum", self.network.graph.layers[map.layer].name);
            return Ok((self.network.push(&name, Op::Add, &[a, b], shape.channels)?, 1.0));
        }
        bail!(
            "what is computed of the map {:?} before it is none of the supported activations (ReLU, ReLU6, leaky ReLU \
             of slope 0.1, SiLU, hard-swish, sigmoid, hard-sigmoid)",
            self.network.graph.layers[map.layer].name
        )
    }

    /// The layer that holds `map`.
    fn plain(&mut self, map: &Map) -> anyhow::Result<LayerId> {
        let (layer, scale) = self.scaled(map)?;
        if scale == 1.0 {
            return Ok(layer);
        }
        let channels = self.network.shape(layer).channels;
        let name = format!("{}.scale", self.network.graph.layers[layer].name);
        self.network.affine(&name, layer, vec![scale; channels], vec![0.0; channels])
    }

    fn activated(&mut self, layer: LayerId, activation: Activation) -> anyhow::Result<LayerId> {
        if activation == Activation::Identity {
            return Ok(layer);
        }
        if let Some(known) = self.activations.iter().find(|known| (known.0, known.1) == (layer, activation)) {
            return Ok(known.2);
        }
        let name = format!("{}.activation", self.network.graph.layers[layer].name);
        let channels = self.network.shape(layer).channels;
        let id = self.network.push(&name, Op::Activate(activation), &[layer], channels)?;
        self.activations.push((layer, activation, id));
        Ok(id)
    }
}

/// The integers of operand `i`, or else of the attribute `name`, which older operator sets have
/// instead.
fn ints_of(node: &Node, inputs: &[Option<Value>], i: usize, name: &str) -> anyhow::Result<Option<Vec<i64>>> {
    match inputs.get(i) {
        Some(Some(Value::Constant(c))) => {
            Ok(Some(c.as_ints().with_context(|| format!("its {name} are no integers"))?.to_vec()))
        }
        Some(Some(Value::Map(_))) => bail!("its {name} are computed from the image"),
        _ => Ok(node.int_list(name).map(<[i64]>::to_vec)),
    }
}

/// Operand `i`, which must be a constant.
fn constant_of<'v>(inputs: &'v [Option<Value>], i: usize, what: &str) -> anyhow::Result<Option<&'v Constant>> {
    match inputs.get(i) {
        Some(Some(Value::Constant(c))) => Ok(Some(c)),
        Some(Some(Value::Map(_))) => bail!("its {what} is computed from the image; only constants are supported"),
        _ => Ok(None),
    }
}

fn constant(node: &Node) -> anyhow::Result<Constant> {
    use super::constant::Values;
    let scalar = |values| Constant { dims: vec![], values };
    for attribute in &node.attribute {
        match attribute.name.as_str() {
            "value" => return Constant::read(attribute.t.as_ref().context("it has no value")?),
            "value_float" => return Ok(scalar(Values::Floats(vec![attribute.f.unwrap_or(0.0)]))),
            "value_int" => return Ok(scalar(Values::Ints(vec![attribute.i.unwrap_or(0)]))),
            "value_ints" => return Ok(Constant::ints(attribute.ints.clone())),
            "value_floats" => {
                let values = attribute.floats.clone();
                return Ok(Constant { dims: vec![values.len()], values: Values::Floats(values) });
            }
            _ => {}
        }
    }
    bail!("it has no value that is a number")
}

fn dims_in_words(dims: &[Option<usize>]) -> String {
    let word = |d: &Option<usize>| d.map_or_else(|| "?".to_owned(), |d| d.to_string());
    format!("[{}]", dims.iter().map(word).collect::<Vec<_>>().join(", "))
}
