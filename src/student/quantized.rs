//! The weights file of a quantized student.
//!
//! A quantized convolution is `<layer>.weight` (I8), `<layer>.scale` (F32, one an output channel)
//! and `<layer>.bias` (F32); one that the manifest lists under `quantization.float_layers` is
//! `<layer>.weight` and `<layer>.bias` (F16 or F32), as in a student that is not quantized.

use std::collections::BTreeMap;

use peregrine_engine::quantization::QuantizedConv;
use peregrine_engine::{ConvWeights, Graph, Quantization, Weights};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::manifest::QuantizationSection;
use super::tensors::{self, f16_bytes, f32_bytes, to_f32};

/// The file of `graph`; `weights` are those of layers that are not quantized.
pub fn serialize(graph: &Graph, weights: &Weights, quantization: &Quantization) -> Vec<u8> {
    let mut file = Vec::new();
    for (layer, _, shape) in graph.convs() {
        let mut push = |part: &str, dtype, shape: &[usize], bytes: Vec<u8>| {
            file.push((format!("{}.{part}", layer.name), dtype, shape.to_vec(), bytes));
        };
        if let Some(conv) = quantization.convs.get(&layer.name) {
            push("weight", Dtype::I8, &shape, conv.weight.iter().map(|&w| w as u8).collect());
            push("scale", Dtype::F32, &shape[..1], f32_bytes(&conv.scale));
            push("bias", Dtype::F32, &shape[..1], f32_bytes(&conv.bias));
        } else {
            let conv = weights.of(&layer.name);
            push("weight", Dtype::F16, &shape, f16_bytes(&conv.weight));
            push("bias", Dtype::F16, &shape[..1], f16_bytes(&conv.bias));
        }
    }
    tensors::serialize(&file)
}

/// Reads what [`serialize`] wrote; shapes are left to be checked against the graph.
///
/// # Errors
/// A sentence on what is wrong with the file.
pub fn deserialize(bytes: &[u8], section: &QuantizationSection) -> Result<(Weights, Quantization), String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let mut layers: BTreeMap<String, BTreeMap<String, TensorView>> = BTreeMap::new();
    for (name, tensor) in file.tensors() {
        let (layer, part) = name.rsplit_once('.').ok_or_else(|| format!("tensor {name:?} names no layer"))?;
        if !["weight", "scale", "bias"].contains(&part) {
            return Err(format!("tensor {name:?} is neither a weight nor a scale nor a bias"));
        }
        layers.entry(layer.to_owned()).or_default().insert(part.to_owned(), tensor);
    }
    if let Some(missing) = section.float_layers.iter().find(|l| !layers.contains_key(*l)) {
        return Err(format!("has no layer {missing}, which the manifest's quantization.float_layers names"));
    }
    let mut weights = Weights::default();
    let mut quantization = Quantization { tensors: section.tensors.clone(), ..Quantization::default() };
    for (layer, parts) in layers {
        let part = |name: &str| parts.get(name).ok_or_else(|| format!("{layer}.{name} is missing"));
        let real = |name: &str| {
            let tensor = part(name)?;
            to_f32(tensor).ok_or_else(|| format!("{layer}.{name} is {:?}; F16 or F32 is expected", tensor.dtype()))
        };
        let bias = real("bias")?;
        let weight = if section.float_layers.contains(&layer) {
            if parts.contains_key("scale") {
                return Err(format!("{layer}.scale belongs to a quantized layer, but the manifest keeps {layer} f32"));
            }
            real("weight")?
        } else {
            let bytes = part("weight")?;
            if bytes.dtype() != Dtype::I8 {
                let found = bytes.dtype();
                return Err(format!(
                    "{layer}.weight is {found:?}; I8 is expected, as quantization.float_layers does not name {layer}"
                ));
            }
            let weight: Vec<i8> = bytes.data().iter().map(|&b| b as i8).collect();
            let conv = QuantizedConv { weight, scale: real("scale")?, bias: bias.clone() };
            let dequantized = conv.dequantized();
            quantization.convs.insert(layer.clone(), conv);
            dequantized
        };
        weights.0.insert(layer, ConvWeights { weight, bias });
    }
    Ok((weights, quantization))
}
