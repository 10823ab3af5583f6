//! Writes a network and an input as files for the peers.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use peregrine_distill::export::graph;
use peregrine_distill::export::onnx::{model, OnnxLabels};
use prost::Message;
use safetensors::tensor::{Dtype, TensorView};

use crate::networks::Network;

/// Writes `model.onnx`, `graph.json`, `weights.safetensors` and `input.f32` into `folder`.
pub fn export(network: &Network, input: &[f32], folder: &Path) -> Result<()> {
    let graph = &network.graph;
    fs::write(folder.join("graph.json"), graph::json(graph).to_string())?;
    fs::write(folder.join("input.f32"), bytes(input))?;

    let mut tensors = HashMap::new();
    for (layer, _, shape) in graph.convs() {
        let values = network.weights.of(&layer.name);
        tensors.insert(format!("{}.weight", layer.name), (shape.to_vec(), bytes(&values.weight)));
        tensors.insert(format!("{}.bias", layer.name), (vec![shape[0]], bytes(&values.bias)));
    }
    let views = tensors.iter().map(|(name, (shape, data))| {
        (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("sizes come from the graph"))
    });
    fs::write(folder.join("weights.safetensors"), safetensors::serialize(views, None)?)?;
    let labels = OnnxLabels { input: "t0".into(), ..OnnxLabels::plain(graph) };
    fs::write(folder.join("model.onnx"), model(graph, &network.weights, &labels)?.encode_to_vec())?;
    Ok(())
}

pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
