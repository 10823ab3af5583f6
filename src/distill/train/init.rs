//! The network that a training starts with, of random weights or of those of `init`: a student
//! package, a safetensors file, or an ImageNet classifier as ONNX.

use std::path::Path;

use anyhow::{ensure, Context, Error};
use peregrine_core::files::{read_at_most, sha256, MAX_WEIGHTS_FILE};
use peregrine_engine::Weights;
use peregrine_student::package::deserialize;
use peregrine_student::{Architecture, Student};
use safetensors::SafeTensors;
use tracing::info;

use super::config::StudentConfig;
use super::heads::TakenHeads;
use super::imagenet;
use super::quantized::Quantized;
use crate::net::fake::FakeQuantization;
use crate::net::{ConvParams, NetParams, TrainNet};
use crate::ranks::Ranks;

/// The network with its initial weights, for the part of a batch that each of `ranks` has, and a line
/// that says where those came from.
///
/// # Errors
/// When `init` cannot be read, has no layer in common with the network, or does not fit
/// `quantized`.
pub fn network(
    config: &StudentConfig,
    architecture: &Architecture,
    quantized: Option<&Quantized>,
    ranks: &Ranks,
) -> anyhow::Result<(TrainNet, String)> {
    let graph = architecture.graph(architecture.input.width, architecture.input.height);
    let mut params = NetParams::random(&graph, config.seed);
    if architecture.imported.is_some() {
        params.expect_few(architecture.detection_levels().iter().map(|level| graph.outputs[level.class]));
    }
    let mut initialised_from = "random".into();
    if let Some(path) = config.init.as_ref().or(config.quantized_as.as_ref()) {
        let (mut weights, origin, package) = weights(path)?;
        if let Some(other) = package.as_ref().filter(|package| package.head_form() != architecture.head_form()) {
            let from = if other.imported.is_some() { "the imported network's" } else { "the package's" };
            info!("{from} head has boxes of another form: its class and box layers are made anew, as distributions");
        }
        let heads = package.map(|package| TakenHeads::take_from(&mut weights, &package, architecture));
        let taken = params.adopt(&weights);
        if let Some(heads) = heads {
            heads.put_into(&mut params);
        }
        ensure!(taken > 0, "{}: holds no layer of this network's backbone", path.display());
        initialised_from = origin;
        for conv in params.convs.iter_mut().filter(|c| weights.0.contains_key(&c.name)) {
            conv.rate = config.backbone_rate;
            conv.frozen |= stage(conv).is_some_and(|stage| stage < config.frozen_stages);
        }
        ensure!(
            !config.segmentation_only || architecture.segmentation.is_some(),
            "segmentation_only is set, but the student has no masks"
        );
        ensure!(!config.scene_only || architecture.scene.is_some(), "scene_only is set, but the student has no scenes");
        let heads = [("segment.", config.segmentation_only), ("scene.", config.scene_only)];
        if heads.iter().any(|(_, only)| *only) {
            let learns = |name: &str| heads.iter().any(|(prefix, only)| *only && name.starts_with(prefix));
            params.convs.iter_mut().for_each(|conv| conv.frozen |= !learns(&conv.name));
        }
    }
    let images = config.batch / ranks.size();
    let Some(quantized) = quantized else {
        let net = TrainNet::new(graph, params, images);
        let net = if config.sync_batch_norm { net.normalising_with(ranks) } else { net };
        return Ok((net, initialised_from));
    };
    quantized.correct_biases(&mut params)?;
    let fake = FakeQuantization::new(&graph, quantized.quantization())?;
    Ok((TrainNet::new(graph, params, images).with_fake(fake), initialised_from))
}

/// The backbone stage of a convolution, counted from the stem; `None` outside the backbone's
/// stages.
fn stage(conv: &ConvParams) -> Option<usize> {
    let stage = conv.name.strip_prefix("backbone.")?.split('.').next()?;
    if stage == "stem" {
        Some(0)
    } else {
        stage.parse().ok().map(|stage: usize| stage + 1)
    }
}

/// Reads the weights at `path`, and says in a line where they came from; with the network that
/// they are of, where they are a package.
///
/// # Errors
/// Names the file and the format that it should have.
pub fn weights(path: &Path) -> anyhow::Result<(Weights, String, Option<Architecture>)> {
    let at = || path.display().to_string();
    if path.is_dir() {
        let student = Student::load(path)?;
        let origin = format!("{} (sha256 {})", student.manifest.name, student.manifest.weights.sha256);
        return Ok((student.weights, origin, Some(student.manifest.architecture)));
    }
    let bytes = read_at_most(path, MAX_WEIGHTS_FILE)?;
    let weights = match path.extension().and_then(|e| e.to_str()) {
        Some("onnx") => imagenet::from_onnx(&bytes),
        _ => from_safetensors(&bytes),
    };
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    Ok((weights.with_context(at)?, format!("{file} (sha256 {})", sha256(&bytes)), None))
}

/// Tensors by this project's names, or a ResNet by torchvision's.
fn from_safetensors(bytes: &[u8]) -> anyhow::Result<Weights> {
    let file = SafeTensors::deserialize(bytes).context("not a safetensors file")?;
    if imagenet::is_torch_resnet(&file) {
        return imagenet::from_torch_resnet(&file);
    }
    deserialize(bytes).map_err(Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segmentation_only_leaves_all_other_layers_as_they_were() {
        let lite = peregrine_support::lite();
        let architecture = Student::load(&lite).unwrap().manifest.architecture;
        let config = StudentConfig { init: Some(lite), segmentation_only: true, batch: 1, ..StudentConfig::default() };
        let (net, _) = network(&config, &architecture, None, &Ranks::alone()).unwrap();
        let learns: Vec<&str> = net.params.convs.iter().filter(|c| !c.frozen).map(|c| c.name.as_str()).collect();
        assert!(learns.len() > 3 && learns.iter().all(|name| name.starts_with("segment.")), "{learns:?}");
        let detector = Architecture { segmentation: None, ..architecture };
        assert!(network(&config, &detector, None, &Ranks::alone()).err().unwrap().to_string().contains("no masks"));
        let config = StudentConfig { segmentation_only: false, scene_only: true, ..config };
        assert!(network(&config, &detector, None, &Ranks::alone()).err().unwrap().to_string().contains("no scenes"));
        let scene = serde_json::from_str(r#"["day", "night"]"#).unwrap();
        let classifier = Architecture { scene: Some(scene), ..detector };
        let (net, _) = network(&config, &classifier, None, &Ranks::alone()).unwrap();
        let learns: Vec<&str> = net.params.convs.iter().filter(|c| !c.frozen).map(|c| c.name.as_str()).collect();
        assert_eq!(learns, ["scene.class.scene"]);
    }
}
