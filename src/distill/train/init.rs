//! What a training may start from: a student package, a safetensors file, or an ImageNet classifier as ONNX.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{bail, Context};
use prost::Message;

use crate::distill::export::messages::{Model, Tensor};
use crate::engine::{ConvWeights, Weights};
use crate::student::package::{deserialize, sha256};
use crate::student::presets::Lite;
use crate::student::{Architecture, Student};

/// Reads the weights at `path`, and says in a line where they came from.
///
/// # Errors
/// Names the file, and what it is not.
pub fn weights(path: &Path) -> anyhow::Result<(Weights, String)> {
    let at = || path.display().to_string();
    if path.is_dir() {
        let student = Student::load(path)?;
        let origin = format!("{} (sha256 {})", student.manifest.name, student.manifest.weights.sha256);
        return Ok((student.weights, origin));
    }
    let bytes = fs::read(path).with_context(at)?;
    let weights = match path.extension().and_then(|e| e.to_str()) {
        Some("onnx") => backbone(&bytes).with_context(at)?,
        _ => deserialize(&bytes).map_err(anyhow::Error::msg).with_context(at)?,
    };
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    Ok((weights, format!("{file} (sha256 {})", sha256(&bytes))))
}

/// The backbone of an EfficientNet-Lite classifier in ONNX. Its convolutions appear in the order stem, then for each block
/// (expand,) depthwise, project, with batch-norm folded in, as exporters write them.
///
/// # Errors
/// When it is none of the family.
fn backbone(bytes: &[u8]) -> anyhow::Result<Weights> {
    let graph = Model::decode(bytes).context("not an ONNX file")?.graph.context("an ONNX file without a graph")?;
    let tensors: HashMap<&str, &Tensor> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let tensor = |name: Option<&String>| name.and_then(|n| tensors.get(n.as_str()).copied());
    let convs: Vec<(&Tensor, Option<&Tensor>)> = graph
        .node
        .iter()
        .filter(|node| node.op_type == "Conv")
        .filter_map(|node| Some((tensor(node.input.get(1))?, tensor(node.input.get(2)))))
        .collect();
    for lite in Lite::ALL {
        let network = Architecture { backbone: lite.backbone(), ..Architecture::default_student() }.graph(32, 32);
        let layers: Vec<_> = network.convs().filter(|(layer, ..)| layer.name.starts_with("backbone.")).collect();
        let fits = layers.len() <= convs.len()
            && layers.iter().zip(&convs).all(|((_, _, shape), (weight, _))| {
                weight.dims.len() == 4 && weight.dims.iter().zip(shape).all(|(&has, &wants)| has == wants as i64)
            });
        if !fits {
            continue;
        }
        let mut weights = Weights::default();
        for ((layer, ..), (weight, bias)) in layers.iter().zip(&convs) {
            let values = |tensor: &Tensor| {
                tensor.to_f32().with_context(|| format!("tensor {:?} is not of f32 in the file itself", tensor.name))
            };
            let bias = bias.with_context(|| format!("{} has no bias: fold batch-norm into it first", layer.name))?;
            weights.0.insert(layer.name.clone(), ConvWeights { weight: values(weight)?, bias: values(bias)? });
        }
        return Ok(weights);
    }
    let first = convs.first().map(|(weight, _)| format!("; its first convolution is {:?}", weight.dims));
    bail!("its convolutions are not those of an EfficientNet-Lite (0 to 4){}", first.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::export::onnx::{model, Labels};

    #[test]
    fn a_backbone_comes_back_from_onnx_by_its_layers_names() {
        let student = Architecture { backbone: Lite::Lite1.backbone(), ..Architecture::default_student() };
        let graph = student.graph(32, 32);
        let params = crate::distill::net::NetParams::random(&graph, 3).fold();
        let bytes = model(&graph, &params, &Labels::plain(&graph)).unwrap().encode_to_vec();
        let found = backbone(&bytes).unwrap();
        assert_eq!(found.0.len(), graph.convs().filter(|c| c.0.name.starts_with("backbone.")).count());
        assert!(found.0.iter().all(|(name, conv)| *conv == params.0[name]));
    }

    #[test]
    fn another_network_is_refused() {
        let mut student = Architecture::default_student();
        student.backbone.stem = 24;
        let graph = student.graph(32, 32);
        let params = crate::distill::net::NetParams::random(&graph, 3).fold();
        let bytes = model(&graph, &params, &Labels::plain(&graph)).unwrap().encode_to_vec();
        let error = backbone(&bytes).unwrap_err().to_string();
        assert!(error.contains("[24, 3, 3, 3]"), "{error}");
    }
}
