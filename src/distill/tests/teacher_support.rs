//! Shared by the tests of teachers: small ONNX networks.

use peregrine_distill::export::messages::{GraphBody, Model, Node, OperatorSet, Tensor, Value};
use prost::Message;

/// A network with constant outputs, with an input and outputs of these names and shapes.
pub fn constant(input: (&str, [usize; 4]), outputs: &[(&str, impl AsRef<[usize]>, Vec<f32>)]) -> Vec<u8> {
    let (mut node, mut initializer, mut output) = (Vec::new(), Vec::new(), Vec::new());
    for (name, dims, values) in outputs {
        let (constant, dims) = (format!("{name}.constant"), dims.as_ref());
        initializer.push(Tensor::f32(&constant, dims, values));
        node.push(Node::new("Identity", &[&constant], name));
        output.push(Value::f32(name, &dims.iter().map(|&d| Some(d)).collect::<Vec<_>>(), ""));
    }
    let input = vec![Value::f32(input.0, &input.1.map(Some), "")];
    Model {
        ir_version: 8,
        graph: Some(GraphBody { node, name: "teacher".into(), initializer, input, output }),
        opset_import: vec![OperatorSet { domain: Some(String::new()), version: 17 }],
        ..Model::default()
    }
    .encode_to_vec()
}
