//! A graph and its weights as an ONNX model: every operation maps to ONNX's own operators.

use peregrine_engine::op::LEAK;
use peregrine_engine::{Activation, Conv, EngineError, Graph, Interpolation, LayerId, Op, Shape, Weights, Window};

use super::messages::{Entry, GraphBody, Model, Node, OperatorSet, Tensor, Value};

/// Operator set; 17 is supported by every runtime since 2022.
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// Names of a model's tensors, and its metadata.
#[derive(Debug, Clone, Default)]
pub struct OnnxLabels {
    /// Of the graph.
    pub name: String,
    /// Of the input.
    pub input: String,
    /// Name and documentation of each of the graph's outputs.
    pub outputs: Vec<(String, String)>,
    /// `metadata_props`.
    pub metadata: Vec<(String, String)>,
    /// Dynamic batch size instead of 1.
    pub any_batch: bool,
}

impl OnnxLabels {
    /// Default names: `input`, `output0`, `output1` …
    pub fn plain(graph: &Graph) -> Self {
        let outputs = (0..graph.outputs.len()).map(|i| (format!("output{i}"), String::new())).collect();
        Self { name: "student".into(), input: "input".into(), outputs, ..Self::default() }
    }
}

/// The model. Batch-norm is folded into `weights`, as always in a package.
///
/// # Errors
/// When `weights` do not fit `graph`.
pub fn model(graph: &Graph, weights: &Weights, labels: &OnnxLabels) -> Result<Model, EngineError> {
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
        match layer.op {
            Op::Input => {}
            Op::Conv(conv) => {
                let from = graph.layers[layer.inputs[0]].shape;
                nodes.extend(convolution(&layer.name, inputs[0], &output, conv, from, layer.shape));
            }
            Op::Add => nodes.push(Node::new("Add", &inputs, &output)),
            Op::Concat => nodes.push(Node::new("Concat", &inputs, &output).int("axis", 1)),
            Op::Upsample2x(Interpolation::Nearest) => nodes.push(
                Node::new("Resize", &[inputs[0], "", "upsample2x.scales"], &output)
                    .text("mode", "nearest")
                    .text("coordinate_transformation_mode", "asymmetric")
                    .text("nearest_mode", "floor"),
            ),
            Op::Upsample2x(Interpolation::Bilinear) => nodes.push(
                Node::new("Resize", &[inputs[0], "", "upsample2x.scales"], &output)
                    .text("mode", "linear")
                    .text("coordinate_transformation_mode", "half_pixel"),
            ),
            Op::MaxPool(over) => {
                let from = graph.layers[layer.inputs[0]].shape;
                nodes.push(window(Node::new("MaxPool", &inputs, &output), over, from));
            }
            Op::AveragePool(over) => {
                let from = graph.layers[layer.inputs[0]].shape;
                nodes.push(window(Node::new("AveragePool", &inputs, &output).int("count_include_pad", 0), over, from));
            }
            Op::GlobalAverage => nodes.push(Node::new("GlobalAveragePool", &inputs, &output)),
            Op::Scale => nodes.push(Node::new("Mul", &inputs, &output)),
            Op::Activate(activation) => nodes.extend(activate(&layer.name, inputs[0], &output, activation)),
            Op::Slice { .. } => {
                let [first, past] = [".first", ".past"].map(|end| format!("{}{end}", layer.name));
                nodes.push(Node::new("Slice", &[inputs[0], &first, &past, "slice.axis"], &output));
            }
            Op::Shuffle { .. } => {
                let part = |end: &str| format!("{}{end}", layer.name);
                let (groups, swapped) = (part(".groups"), part(".swapped"));
                nodes.push(Node::new("Reshape", &[inputs[0], &part(".split")], &groups));
                nodes.push(Node::new("Transpose", &[&groups], &swapped).ints("perm", &[0, 2, 1, 3, 4]));
                nodes.push(Node::new("Reshape", &[&swapped, &part(".merged")], &output));
            }
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
            initializer: initializers(graph, weights, labels.any_batch),
            input: vec![value(&labels.input, graph.input_shape(), "")],
            output: outputs.map(|(&id, (name, doc))| value(name, graph.layers[id].shape, doc)).collect(),
        }),
        opset_import: vec![OperatorSet { domain: Some(String::new()), version: OPSET }],
        metadata_props: labels.metadata.iter().cloned().map(|(key, value)| Entry { key, value }).collect(),
    })
}

/// A convolution and its activation, if any.
fn convolution(name: &str, input: &str, output: &str, conv: Conv, from: Shape, to: Shape) -> Vec<Node> {
    let sum = if conv.activation == Activation::Identity { output.to_owned() } else { format!("{name}.sum") };
    let node = Node::new("Conv", &[input, &format!("{name}.weight"), &format!("{name}.bias")], &sum);
    let mut nodes = vec![window(node, conv.window(), from)
        .ints("dilations", &[1, 1])
        .int("group", if conv.depthwise { to.channels as i64 } else { 1 })];
    if conv.activation != Activation::Identity {
        nodes.extend(activate(name, &sum, output, conv.activation));
    }
    nodes
}

/// An activation of the tensor `input`.
fn activate(name: &str, input: &str, output: &str, activation: Activation) -> Vec<Node> {
    let node = |operator: &str| vec![Node::new(operator, &[input], output)];
    match activation {
        Activation::Identity => node("Identity"),
        Activation::Relu6 => vec![Node::new("Clip", &[input, "relu6.low", "relu6.high"], output)],
        Activation::Relu => node("Relu"),
        Activation::Silu => {
            let sigmoid = format!("{name}.sigmoid");
            vec![Node::new("Sigmoid", &[input], &sigmoid), Node::new("Mul", &[input, &sigmoid], output)]
        }
        Activation::Hardswish => node("HardSwish"),
        Activation::LeakyRelu => vec![Node::new("LeakyRelu", &[input], output).float("alpha", LEAK)],
        Activation::Sigmoid => node("Sigmoid"),
        Activation::Hardsigmoid => vec![Node::new("HardSigmoid", &[input], output).float("alpha", 1.0 / 6.0)],
    }
}

/// A node with the attributes of a sliding window over maps of shape `from`.
fn window(node: Node, window: Window, from: Shape) -> Node {
    let ((top, bottom), (left, right)) = (window.around(from.height), window.around(from.width));
    node.ints("kernel_shape", &[window.kernel; 2])
        .ints("strides", &[window.stride; 2])
        .ints("pads", &[top, left, bottom, right])
}

fn initializers(graph: &Graph, weights: &Weights, any_batch: bool) -> Vec<Tensor> {
    let mut tensors = Vec::new();
    for (layer, _, shape) in graph.convs() {
        let values = weights.of(&layer.name);
        tensors.push(Tensor::f32(format!("{}.weight", layer.name), &shape, &values.weight));
        tensors.push(Tensor::f32(format!("{}.bias", layer.name), &shape[..1], &values.bias));
    }
    let caps = |op: Op| match op {
        Op::Conv(conv) => conv.activation == Activation::Relu6,
        op => op == Op::Activate(Activation::Relu6),
    };
    if graph.layers.iter().any(|layer| caps(layer.op)) {
        tensors.push(Tensor::f32("relu6.low", &[], &[0.0]));
        tensors.push(Tensor::f32("relu6.high", &[], &[6.0]));
    }
    if graph.layers.iter().any(|layer| matches!(layer.op, Op::Upsample2x(_))) {
        tensors.push(Tensor::f32("upsample2x.scales", &[4], &[1.0, 1.0, 2.0, 2.0]));
    }
    for layer in &graph.layers {
        let mut push = |end: &str, values: &[usize]| {
            let values: Vec<i64> = values.iter().map(|&v| v as i64).collect();
            tensors.push(Tensor::i64(format!("{}{end}", layer.name), &values));
        };
        // In a reshape, zero keeps the input's dimension.
        let (images, s) = (usize::from(!any_batch), layer.shape);
        match layer.op {
            Op::Slice { first } => {
                push(".first", &[first]);
                push(".past", &[first + s.channels]);
            }
            Op::Shuffle { groups } => {
                push(".split", &[images, groups, s.channels / groups, s.height, s.width]);
                push(".merged", &[images, s.channels, s.height, s.width]);
            }
            _ => {}
        }
    }
    if graph.layers.iter().any(|layer| matches!(layer.op, Op::Slice { .. })) {
        tensors.push(Tensor::i64("slice.axis", &[1]));
    }
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn an_attribute_of_zero_is_written() {
        // Readers that follow proto2 reject an attribute without its field.
        let bytes = Node::new("Concat", &["a"], "b").int("axis", 0).encode_to_vec();
        assert_eq!(Node::decode(&bytes[..]).unwrap().attribute[0].i, Some(0));
    }
}
