//! A graph and its weights as an ONNX model: every operation has its counterpart among ONNX's own operators.

use super::messages::{Entry, GraphBody, Model, Node, OperatorSet, Tensor, Value};
use crate::engine::{Activation, Conv, EngineError, Graph, LayerId, Op, Shape, Weights};

/// Of ONNX's operators; 17 is read by every runtime since 2022.
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// Names of a model's tensors, and what a reader is told of it.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    /// Of the graph.
    pub name: String,
    /// Of the input.
    pub input: String,
    /// One name for each of the graph's outputs, and a sentence on what it holds.
    pub outputs: Vec<(String, String)>,
    /// `metadata_props`.
    pub metadata: Vec<(String, String)>,
    /// Leave the number of images open instead of 1.
    pub any_batch: bool,
}

impl Labels {
    /// Plain names: `input`, `output0`, `output1` …
    pub fn plain(graph: &Graph) -> Self {
        let outputs = (0..graph.outputs.len()).map(|i| (format!("output{i}"), String::new())).collect();
        Self { name: "student".into(), input: "input".into(), outputs, ..Self::default() }
    }
}

/// The model. `weights` have batch-norm folded in, as they always do in a package.
///
/// # Errors
/// When `weights` do not fit `graph`, or it has what no student has.
pub fn model(graph: &Graph, weights: &Weights, labels: &Labels) -> Result<Model, EngineError> {
    weights.check(graph)?;
    let name_of = |id: LayerId| match graph.outputs.iter().position(|&o| o == id) {
        Some(index) => labels.outputs[index].0.clone(),
        None if id == 0 => labels.input.clone(),
        None => graph.layers[id].name.clone(),
    };
    let mut nodes = Vec::new();
    for (id, layer) in graph.layers.iter().enumerate() {
        let inputs: Vec<String> = layer.inputs.iter().map(|&i| name_of(i)).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let output = name_of(id);
        let unsupported = || {
            let why = format!("{}: no student has {:?}", layer.name, layer.op);
            Err(EngineError::Unsupported { device: "ONNX", why })
        };
        match layer.op {
            Op::Input => {}
            Op::Conv(conv) if !matches!(conv.activation, Activation::Identity | Activation::Relu6) => {
                return unsupported();
            }
            Op::Conv(conv) => {
                let from = graph.layers[layer.inputs[0]].shape;
                nodes.extend(convolution(&layer.name, inputs[0], &output, conv, from, layer.shape));
            }
            Op::Add => nodes.push(Node::new("Add", &inputs, &output)),
            Op::Concat => nodes.push(Node::new("Concat", &inputs, &output).int("axis", 1)),
            Op::Upsample2x => nodes.push(
                Node::new("Resize", &[inputs[0], "", "upsample2x.scales"], &output)
                    .text("mode", "nearest")
                    .text("coordinate_transformation_mode", "asymmetric")
                    .text("nearest_mode", "floor"),
            ),
            Op::MaxPool { .. } | Op::Slice { .. } | Op::Shuffle { .. } => return unsupported(),
        }
    }
    let value = |name: &str, s: Shape, doc: &str| {
        let batch = (!labels.any_batch).then_some(1);
        Value::f32(name, &[batch, Some(s.channels), Some(s.height), Some(s.width)], doc)
    };
    let outputs = graph.outputs.iter().zip(&labels.outputs);
    Ok(Model {
        ir_version: IR_VERSION,
        producer_name: "peregrine".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: String::new(),
        graph: Some(GraphBody {
            node: nodes,
            name: labels.name.clone(),
            initializer: initializers(graph, weights),
            input: vec![value(&labels.input, graph.input_shape(), "")],
            output: outputs.map(|(&id, (name, doc))| value(name, graph.layers[id].shape, doc)).collect(),
        }),
        opset_import: vec![OperatorSet { domain: Some(String::new()), version: OPSET }],
        metadata_props: labels.metadata.iter().cloned().map(|(key, value)| Entry { key, value }).collect(),
    })
}

/// A convolution, and a `Clip` where ReLU6 follows.
fn convolution(name: &str, input: &str, output: &str, conv: Conv, from: Shape, to: Shape) -> Vec<Node> {
    let (top, bottom) = padding(conv, from.height);
    let (left, right) = padding(conv, from.width);
    let relu6 = conv.activation == Activation::Relu6;
    let sum = if relu6 { format!("{name}.sum") } else { output.to_owned() };
    let node = Node::new("Conv", &[input, &format!("{name}.weight"), &format!("{name}.bias")], &sum)
        .ints("kernel_shape", &[conv.kernel; 2])
        .ints("strides", &[conv.stride; 2])
        .ints("pads", &[top, left, bottom, right])
        .ints("dilations", &[1, 1])
        .int("group", if conv.depthwise { to.channels as i64 } else { 1 });
    let clip = relu6.then(|| Node::new("Clip", &[&sum, "relu6.low", "relu6.high"], output));
    std::iter::once(node).chain(clip).collect()
}

/// Zeros before and after an axis of `size` values.
fn padding(conv: Conv, size: usize) -> (usize, usize) {
    let total = ((size.div_ceil(conv.stride) - 1) * conv.stride + conv.kernel).saturating_sub(size);
    (conv.pad_before(size), total - conv.pad_before(size))
}

fn initializers(graph: &Graph, weights: &Weights) -> Vec<Tensor> {
    let mut tensors = Vec::new();
    for (layer, _, shape) in graph.convs() {
        let values = weights.of(&layer.name);
        tensors.push(Tensor::f32(format!("{}.weight", layer.name), &shape, &values.weight));
        tensors.push(Tensor::f32(format!("{}.bias", layer.name), &shape[..1], &values.bias));
    }
    if graph.convs().any(|(_, conv, _)| conv.activation == Activation::Relu6) {
        tensors.push(Tensor::f32("relu6.low", &[], &[0.0]));
        tensors.push(Tensor::f32("relu6.high", &[], &[6.0]));
    }
    if graph.layers.iter().any(|layer| layer.op == Op::Upsample2x) {
        tensors.push(Tensor::f32("upsample2x.scales", &[4], &[1.0, 1.0, 2.0, 2.0]));
    }
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn strided_padding_is_split_as_the_engines_split_it() {
        let conv = Conv { kernel: 3, stride: 2, depthwise: false, activation: Activation::Identity };
        assert_eq!(padding(conv, 8), (0, 1));
        assert_eq!(padding(conv, 7), (1, 1));
    }

    #[test]
    fn an_attribute_of_zero_is_written() {
        // Readers that follow proto2 take an attribute without its field for a damaged one.
        let bytes = Node::new("Concat", &["a"], "b").int("axis", 0).encode_to_vec();
        assert_eq!(Node::decode(&bytes[..]).unwrap().attribute[0].i, Some(0));
    }
}
