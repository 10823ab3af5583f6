//! A network as ONNX, in the layout that [`gpt2`](super::gpt2) describes: for other runtimes, and
//! as a teacher.

use anyhow::Context;

use super::network::{CausalNetwork, NetworkSize};
use crate::export::messages::{
    Dimension, GraphBody, Model, Node, OperatorSet, Tensor, TensorShape, TensorType, Type, Value, FLOAT, INT64,
};

/// 17 has layer normalisation.
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// The network as an ONNX model with the inputs `input_ids`, `attention_mask` and `position_ids`
/// and the output `logits`, of any batch and length.
///
/// # Errors
/// When a weight cannot be read.
pub fn model(network: &CausalNetwork) -> anyhow::Result<Model> {
    let NetworkSize { width, layers, heads, vocabulary, .. } = network.size;
    let mut tensors = Vec::new();
    for (name, var) in network.params() {
        tensors.push(Tensor::f32(name.as_str(), var.dims(), &var.flatten_all()?.to_vec1::<f32>()?));
    }
    let embedding = network.params().get("wte.weight").context("has no embedding")?;
    tensors.push(Tensor::f32("head", &[width, vocabulary], &embedding.t()?.flatten_all()?.to_vec1::<f32>()?));
    let scale = ((width / heads) as f32).powf(-0.5);
    let root = (2.0 / std::f32::consts::PI).sqrt();
    for (name, value) in [
        ("scale", scale),
        ("unseen", -1e9),
        ("zero", 0.0),
        ("half", 0.5),
        ("one", 1.0),
        ("cubic", 0.044_715),
        ("root", root),
    ] {
        tensors.push(Tensor::f32(name, &[], &[value]));
    }
    tensors.push(Tensor::i64("split", &[0, 0, heads as i64, (width / heads) as i64]));
    tensors.push(Tensor::i64("merged", &[0, 0, width as i64]));
    tensors.push(Tensor::i64("axes.queries", &[1, 3]));
    tensors.push(Tensor::i64("axes.keys", &[1, 2]));
    let mut nodes = inputs();
    for layer in 0..layers {
        nodes.extend(attention(layer));
        nodes.extend(perceptron(layer));
    }
    nodes.extend([norm("ln_f", &sum(layers)), Node::new("MatMul", &["ln_f", "head"], "logits")]);
    let value = |name: &str, elem_type: i32, last: Option<usize>| {
        let named = |name: &str| Dimension { dim_value: None, dim_param: Some(name.to_owned()) };
        let mut dim = vec![named("batch"), named("sequence")];
        dim.extend(last.map(|n| Dimension { dim_value: Some(n as i64), dim_param: None }));
        let tensor_type = Some(TensorType { elem_type, shape: Some(TensorShape { dim }) });
        Value { name: name.to_owned(), r#type: Some(Type { tensor_type }), doc_string: String::new() }
    };
    Ok(Model {
        ir_version: IR_VERSION,
        producer_name: "peregrine".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: String::new(),
        graph: Some(GraphBody {
            node: nodes,
            name: "language-model".into(),
            initializer: tensors,
            input: ["input_ids", "attention_mask", "position_ids"].map(|name| value(name, INT64, None)).to_vec(),
            output: vec![value("logits", FLOAT, Some(vocabulary))],
        }),
        opset_import: vec![OperatorSet { domain: Some(String::new()), version: OPSET }],
        metadata_props: Vec::new(),
    })
}

/// The sum of the embeddings and of the first `layers` layers.
fn sum(layers: usize) -> String {
    format!("sum.{layers}")
}

/// The embeddings, and the mask of what each position sees: those at or before it that are text.
fn inputs() -> Vec<Node> {
    vec![
        Node::new("Gather", &["wte.weight", "input_ids"], "tokens"),
        Node::new("Gather", &["wpe.weight", "position_ids"], "positions"),
        Node::new("Add", &["tokens", "positions"], &sum(0)),
        Node::new("Unsqueeze", &["position_ids", "axes.queries"], "at.queries"),
        Node::new("Unsqueeze", &["position_ids", "axes.keys"], "at.keys"),
        Node::new("GreaterOrEqual", &["at.queries", "at.keys"], "before"),
        Node::new("Cast", &["attention_mask"], "text").int("to", 9),
        Node::new("Unsqueeze", &["text", "axes.keys"], "text.keys"),
        Node::new("And", &["before", "text.keys"], "seen"),
        Node::new("Where", &["seen", "zero", "unseen"], "mask"),
    ]
}

fn norm(name: &str, input: &str) -> Node {
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
    Node::new("LayerNormalization", &[input, &weight, &bias], name).int("axis", -1).float("epsilon", 1e-5)
}

fn linear(name: &str, input: &str) -> [Node; 2] {
    let product = format!("{name}.product");
    [
        Node::new("MatMul", &[input, &format!("{name}.weight")], &product),
        Node::new("Add", &[&product, &format!("{name}.bias")], name),
    ]
}

fn attention(layer: usize) -> Vec<Node> {
    let at = |name: &str| format!("h.{layer}.{name}");
    let (ln, attn, proj) = (at("ln_1"), at("attn.c_attn"), at("attn.c_proj"));
    let mut nodes = vec![norm(&ln, &sum(layer))];
    nodes.extend(linear(&attn, &ln));
    let mut parts = Node::new("Split", &[&attn], &at("q")).int("axis", 2);
    parts.output.extend([at("k"), at("v")]);
    nodes.push(parts);
    for (part, order) in [("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])] {
        let (heads, turned) = (at(&format!("{part}.heads")), at(&format!("{part}.turned")));
        nodes.push(Node::new("Reshape", &[&at(part), "split"], &heads));
        nodes.push(Node::new("Transpose", &[&heads], &turned).ints("perm", &order));
    }
    let mut push = |op: &str, inputs: &[&str], output: &str| nodes.push(Node::new(op, inputs, &at(output)));
    push("MatMul", &[&at("q.turned"), &at("k.turned")], "scores");
    push("Mul", &[&at("scores"), "scale"], "scaled");
    push("Add", &[&at("scaled"), "mask"], "masked");
    nodes.push(Node::new("Softmax", &[&at("masked")], &at("weights")).int("axis", -1));
    nodes.push(Node::new("MatMul", &[&at("weights"), &at("v.turned")], &at("seen")));
    nodes.push(Node::new("Transpose", &[&at("seen")], &at("seen.turned")).ints("perm", &[0, 2, 1, 3]));
    nodes.push(Node::new("Reshape", &[&at("seen.turned"), "merged"], &at("seen.merged")));
    nodes.extend(linear(&proj, &at("seen.merged")));
    nodes.push(Node::new("Add", &[&sum(layer), &proj], &at("sum")));
    nodes
}

/// The perceptron, with GELU by its approximation with tanh, as in GPT-2.
fn perceptron(layer: usize) -> Vec<Node> {
    let at = |name: &str| format!("h.{layer}.{name}");
    let (ln, fc, proj) = (at("ln_2"), at("mlp.c_fc"), at("mlp.c_proj"));
    let mut nodes = vec![norm(&ln, &at("sum"))];
    nodes.extend(linear(&fc, &ln));
    let mut push = |op: &str, inputs: &[&str], output: &str| nodes.push(Node::new(op, inputs, &at(output)));
    push("Mul", &[&fc, &fc], "square");
    push("Mul", &[&at("square"), &fc], "cube");
    push("Mul", &[&at("cube"), "cubic"], "cube.scaled");
    push("Add", &[&fc, &at("cube.scaled")], "inner");
    push("Mul", &[&at("inner"), "root"], "inner.scaled");
    push("Tanh", &[&at("inner.scaled")], "tanh");
    push("Add", &[&at("tanh"), "one"], "tanh.plus");
    push("Mul", &[&at("tanh.plus"), "half"], "gate");
    push("Mul", &[&fc, &at("gate")], "gelu");
    nodes.extend(linear(&proj, &at("gelu")));
    nodes.push(Node::new("Add", &[&at("sum"), &proj], &sum(layer + 1)));
    nodes
}
