//! An ONNX file, opened: its nodes by what they make and what they read.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use anyhow::{bail, ensure, Context};
use prost::Message;

use super::constant::Constant;
use crate::export::messages::{Attribute, Model, Node};

/// Larger files are refused: no network that this project could run has as many weights.
const MAX_BYTES: u64 = 2 << 30;
/// More nodes are refused.
const MAX_NODES: usize = 100_000;

/// An ONNX file.
#[derive(Debug)]
pub struct OnnxFile {
    pub nodes: Vec<Node>,
    /// Initializers, by name.
    pub constants: HashMap<String, Rc<Constant>>,
    /// The node that makes a tensor.
    pub producers: HashMap<String, usize>,
    /// The nodes that read a tensor.
    pub consumers: HashMap<String, Vec<usize>>,
    /// Name of the input.
    pub input: String,
    /// The input's dimensions; `None` for those that are free.
    pub input_dims: Vec<Option<usize>>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    /// Version of ONNX's operators.
    pub opset: i64,
    /// The file.
    pub bytes: Vec<u8>,
}

impl OnnxFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it is not an ONNX network, or has another number of inputs than one.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let at = || path.display().to_string();
        let size = std::fs::metadata(path).with_context(at)?.len();
        ensure!(size <= MAX_BYTES, "{}: has {size} bytes; at most {MAX_BYTES} are read", at());
        Self::parse(std::fs::read(path).with_context(at)?).with_context(at)
    }

    /// The network in `bytes`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(bytes: Vec<u8>) -> anyhow::Result<Self> {
        let model = Model::decode(&bytes[..]).context("not an ONNX file")?;
        let graph = model.graph.context("an ONNX file without a network")?;
        ensure!(!graph.node.is_empty(), "an ONNX file without a network");
        ensure!(graph.node.len() <= MAX_NODES, "has {} nodes; at most {MAX_NODES} are read", graph.node.len());
        let mut constants = HashMap::new();
        for tensor in &graph.initializer {
            constants.insert(tensor.name.clone(), Rc::new(Constant::read(tensor)?));
        }
        let inputs: Vec<_> = graph.input.iter().filter(|input| !constants.contains_key(&input.name)).collect();
        let [input] = inputs[..] else {
            let names: Vec<_> = inputs.iter().map(|input| input.name.as_str()).collect();
            bail!("has {} inputs ({}); a detector has one, the image", inputs.len(), names.join(", "));
        };
        let shape = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).and_then(|t| t.shape.as_ref());
        let shape = shape.with_context(|| format!("input {:?} has no shape", input.name))?;
        let dimension = |value: Option<i64>| value.and_then(|v| usize::try_from(v).ok()).filter(|&v| v > 0);
        let mut producers = HashMap::new();
        let mut consumers: HashMap<String, Vec<usize>> = HashMap::new();
        for (id, node) in graph.node.iter().enumerate() {
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                let twice = producers.insert(output.clone(), id).is_some();
                ensure!(!twice, "tensor {output:?} is made by two nodes");
            }
            for input in node.input.iter().filter(|name| !name.is_empty()) {
                consumers.entry(input.clone()).or_default().push(id);
            }
        }
        Ok(Self {
            constants,
            producers,
            consumers,
            input: input.name.clone(),
            input_dims: shape.dim.iter().map(|d| dimension(d.dim_value)).collect(),
            outputs: graph.output.iter().map(|output| output.name.clone()).collect(),
            opset: model.opset_import.iter().find(|o| own(o.domain.as_deref())).map_or(1, |o| o.version),
            nodes: graph.node,
            bytes,
        })
    }

    /// Whether the image is taken as `[1, 3, height, width]`, rather than with its colours last.
    pub fn is_planar(&self) -> bool {
        let three = |axis: usize| self.input_dims.get(axis) == Some(&Some(3));
        three(1) || !three(3)
    }

    /// The nodes that read `tensor`.
    pub fn readers(&self, tensor: &str) -> &[usize] {
        self.consumers.get(tensor).map_or(&[], Vec::as_slice)
    }
}

fn own(domain: Option<&str>) -> bool {
    matches!(domain, None | Some("" | "ai.onnx"))
}

/// A node in words, for messages: its operation and its name.
pub fn described(node: &Node) -> String {
    let domain = if own(Some(&node.domain)) { String::new() } else { format!("{}.", node.domain) };
    let name = if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name };
    format!("node {name:?} ({domain}{})", node.op_type)
}

/// Reading a node's attributes.
pub trait Attributes {
    fn attribute(&self, name: &str) -> Option<&Attribute>;

    fn int_or(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    fn float_or(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|a| a.f).unwrap_or(default)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.attribute(name).and_then(|a| std::str::from_utf8(a.s.as_deref()?).ok())
    }

    fn int_list(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }
}

impl Attributes for Node {
    fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attribute.iter().find(|a| a.name == name)
    }
}
