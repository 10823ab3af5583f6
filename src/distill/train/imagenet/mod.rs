//! ImageNet backbones: EfficientNet-Lite and ResNet classifiers in ONNX, and ResNets in safetensors
//! by the names that torchvision and timm give their tensors.

#[cfg(test)]
mod reference;

use std::collections::HashMap;

use anyhow::{bail, ensure, Context};
use peregrine_engine::{ConvWeights, Weights};
use peregrine_student::backbone::{BackboneFamily, StoredKernel};
use peregrine_student::presets::Preset;
use peregrine_student::tensors::to_f32;
use peregrine_student::Architecture;
use prost::Message;
use safetensors::SafeTensors;

use crate::export::messages::{Model, Tensor};

/// torch.nn.BatchNorm2d's.
const TORCH_EPSILON: f32 = 1e-5;

/// The backbone of a classifier in ONNX. Its convolutions appear in the order in which the network
/// is computed, as exporters write them (a shortcut's after the block's own), with batch-norm
/// folded in.
///
/// # Errors
/// When it is none of the [`Preset`]s.
pub fn from_onnx(bytes: &[u8]) -> anyhow::Result<Weights> {
    let graph = Model::decode(bytes).context("not an ONNX file")?.graph.context("an ONNX file without a graph")?;
    let tensors: HashMap<&str, &Tensor> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let tensor = |name: Option<&String>| name.and_then(|n| tensors.get(n.as_str()).copied());
    let convs: Vec<(&Tensor, Option<&Tensor>)> = graph
        .node
        .iter()
        .filter(|node| node.op_type == "Conv")
        .filter_map(|node| Some((tensor(node.input.get(1))?, tensor(node.input.get(2)))))
        .collect();
    for preset in Preset::LITE.into_iter().chain(Preset::RESNET) {
        let layers = layers(preset);
        let fits = layers.len() <= convs.len()
            && layers.iter().zip(&convs).all(|(layer, (weight, _))| {
                weight.dims.len() == 4 && weight.dims.iter().zip(layer.shape).all(|(&has, wants)| has == wants as i64)
            });
        if !fits {
            continue;
        }
        let mut weights = Weights::default();
        for (layer, (weight, bias)) in layers.iter().zip(&convs) {
            let values = |tensor: &Tensor| {
                tensor.to_f32().with_context(|| format!("tensor {:?} is not of f32 in the file itself", tensor.name))
            };
            let bias = bias.with_context(|| format!("{} has no bias: fold batch-norm into it first", layer.name))?;
            let weight = layer.store(values(weight)?);
            weights.0.insert(layer.name.clone(), ConvWeights { weight, bias: values(bias)? });
        }
        return Ok(weights);
    }
    let first = convs.first().map(|(weight, _)| format!("; its first convolution is {:?}", weight.dims));
    bail!(
        "its convolutions are not those of an EfficientNet-Lite (0 to 4) or a ResNet (18, 34, 50){}",
        first.unwrap_or_default()
    )
}

/// A convolution of a preset's backbone, and its shape in the file.
struct BackboneConv {
    name: String,
    shape: [usize; 4],
    /// Of a residual network.
    kernel: Option<StoredKernel>,
}

impl BackboneConv {
    fn store(&self, weight: Vec<f32>) -> Vec<f32> {
        self.kernel.map_or_else(|| weight.clone(), |kernel| kernel.store(&weight))
    }
}

fn layers(preset: Preset) -> Vec<BackboneConv> {
    let network = Architecture { backbone: preset.backbone(), ..Architecture::default_student() };
    let residual = network.backbone.family == BackboneFamily::Residual;
    let graph = network.graph(32, 32);
    let backbone = graph
        .convs()
        .filter(|(layer, conv, _)| layer.name.starts_with("backbone.") && !(residual && conv.is_channelwise()));
    backbone
        .map(|(layer, conv, shape)| {
            let kernel = residual.then(|| StoredKernel::of(&conv));
            let [out, from, side, _] = shape;
            let side = kernel.map_or(side, |k| k.kernel);
            BackboneConv { name: layer.name.clone(), shape: [out, from, side, side], kernel }
        })
        .collect()
}

/// Whether a safetensors file holds a ResNet by torchvision's names.
pub fn is_torch_resnet(file: &SafeTensors) -> bool {
    file.tensor("layer1.0.conv1.weight").is_ok()
}

/// The backbone of a ResNet by torchvision's names (`conv1`, `bn1`, `layer2.0.downsample.0` …),
/// batch-norm folded in.
///
/// # Errors
/// Names the tensor that is missing or does not fit.
pub fn from_torch_resnet(file: &SafeTensors) -> anyhow::Result<Weights> {
    let has = |name: &str| file.tensor(name).is_ok();
    let preset = match (has("layer1.0.conv3.weight"), has("layer1.2.conv1.weight")) {
        (true, _) => Preset::Resnet50,
        (false, true) => Preset::Resnet34,
        (false, false) => Preset::Resnet18,
    };
    let values = |name: &str, len: usize| -> anyhow::Result<Vec<f32>> {
        let tensor = file.tensor(name).with_context(|| format!("as a {preset:?}, it lacks {name}"))?;
        let values =
            to_f32(&tensor).with_context(|| format!("{name} is {:?}; F16 or F32 is expected", tensor.dtype()))?;
        ensure!(values.len() == len, "as a {preset:?}, its {name} should hold {len} values; it holds {}", values.len());
        Ok(values)
    };
    let mut weights = Weights::default();
    for layer in layers(preset) {
        let (conv, norm) = torch_names(&layer.name);
        let out = layer.shape[0];
        let mut weight = values(&format!("{conv}.weight"), layer.shape.iter().product())?;
        let norm = |part: &str| values(&format!("{norm}.{part}"), out);
        let (gamma, beta, mean, variance) =
            (norm("weight")?, norm("bias")?, norm("running_mean")?, norm("running_var")?);
        let scale = |c: usize| gamma[c] / (variance[c] + TORCH_EPSILON).sqrt();
        let filter = weight.len() / out;
        weight
            .chunks_exact_mut(filter)
            .enumerate()
            .for_each(|(c, filter)| filter.iter_mut().for_each(|w| *w *= scale(c)));
        let bias = (0..out).map(|c| beta[c] - mean[c] * scale(c)).collect();
        weights.0.insert(layer.name.clone(), ConvWeights { weight: layer.store(weight), bias });
    }
    Ok(weights)
}

/// torchvision's names of a convolution and of its batch-norm.
fn torch_names(layer: &str) -> (String, String) {
    let parts: Vec<&str> = layer.split('.').collect();
    let [_, stage, block, part] = parts[..] else { return ("conv1".into(), "bn1".into()) };
    let stage: usize = stage.parse().expect("stages are numbered");
    let at = format!("layer{}.{block}", stage + 1);
    match part.strip_prefix("conv") {
        Some(number) => (format!("{at}.conv{number}"), format!("{at}.bn{number}")),
        None => (format!("{at}.downsample.0"), format!("{at}.downsample.1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::onnx::{model, OnnxLabels};
    use crate::net::NetParams;

    fn exported(architecture: &Architecture) -> (Weights, Vec<u8>) {
        let graph = architecture.graph(32, 32);
        let weights = NetParams::random(&graph, 3).fold();
        let bytes = model(&graph, &weights, &OnnxLabels::plain(&graph)).unwrap().encode_to_vec();
        (weights, bytes)
    }

    #[test]
    fn a_backbone_comes_back_from_onnx_by_its_layers_names() {
        let architecture = Architecture { backbone: Preset::Lite1.backbone(), ..Architecture::default_student() };
        let (weights, bytes) = exported(&architecture);
        let found = from_onnx(&bytes).unwrap();
        assert_eq!(found.0.len(), layers(Preset::Lite1).len());
        assert!(found.0.iter().all(|(name, conv)| *conv == weights.0[name]));
    }

    #[test]
    fn another_network_is_refused() {
        let mut student = Architecture::default_student();
        student.backbone.stem = 24;
        let error = from_onnx(&exported(&student).1).unwrap_err().to_string();
        assert!(error.contains("[24, 3, 3, 3]"), "{error}");
    }

    #[test]
    fn layers_have_torchvision_s_names() {
        let both = |layer| torch_names(layer);
        assert_eq!(both("backbone.stem"), ("conv1".into(), "bn1".into()));
        assert_eq!(both("backbone.0.1.conv2"), ("layer1.1.conv2".into(), "layer1.1.bn2".into()));
        assert_eq!(both("backbone.3.0.shortcut"), ("layer4.0.downsample.0".into(), "layer4.0.downsample.1".into()));
    }
}
