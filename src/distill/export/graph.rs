//! A graph in JSON, for programs that compute it in another framework (`bench/peers`).

use peregrine_engine::{Graph, Op};
use serde_json::{json, Value};

/// Layers and outputs of `graph`. A layer has `name`, `op`, `inputs` (numbers of layers), `shape` (channels, height,
/// width); one with a window also `pad_rows` and `pad_columns` (before, after), and a convolution the shape of its
/// `weight` (out, in per group, rows, columns).
pub fn json(graph: &Graph) -> Value {
    let mut layers: Vec<Value> = graph
        .layers
        .iter()
        .map(|layer| {
            let mut json = json!({
                "name": layer.name, "op": layer.op, "inputs": layer.inputs,
                "shape": [layer.shape.channels, layer.shape.height, layer.shape.width],
            });
            let window = match layer.op {
                Op::Conv(conv) => Some(conv.window()),
                Op::MaxPool(window) | Op::AveragePool(window) => Some(window),
                _ => None,
            };
            if let Some(window) = window {
                let from = graph.layers[layer.inputs[0]].shape;
                json["pad_rows"] = json!(window.around(from.height));
                json["pad_columns"] = json!(window.around(from.width));
            }
            json
        })
        .collect();
    let convs = layers.iter_mut().zip(&graph.layers).filter(|(_, layer)| matches!(layer.op, Op::Conv(_)));
    for ((json, _), (_, _, shape)) in convs.zip(graph.convs()) {
        json["weight"] = json!(shape);
    }
    json!({ "layers": layers, "outputs": graph.outputs })
}
