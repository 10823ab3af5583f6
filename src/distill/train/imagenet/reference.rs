//! ResNet backbones beside PyTorch's (tests/reference/resnet.py), by every way that this crate
//! computes them.

use std::collections::BTreeMap;

use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::{Engine, Graph};
use peregrine_student::presets::Preset;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::net::{Mode, NetParams, TrainNet};
use crate::train::init;

/// As tests/reference/resnet.py has it.
fn uniform(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let seed = name.bytes().map(u64::from).sum::<u64>() * 7919;
    (0..count as u64).map(move |i| {
        let x = ((i + seed) * 2_654_435_761) % (1 << 32);
        let x = ((x ^ (x >> 15)) * 2_246_822_519) % (1 << 32);
        ((x ^ (x >> 13)) as f64 / 4_294_967_296.0) as f32
    })
}

/// The tensors of a torchvision ResNet, by the reference's formula.
fn torch_file(graph: &Graph) -> Vec<u8> {
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    let mut put = |name: String, shape: Vec<usize>, value: &dyn Fn(f32) -> f32| {
        let bytes = uniform(&name, shape.iter().product()).flat_map(|u| value(u).to_le_bytes()).collect();
        tensors.insert(name, (shape, bytes));
    };
    for (layer, conv, [out, from, side, _]) in graph.convs() {
        let parts: Vec<&str> = layer.name.split('.').collect();
        let (weight, norm) = match parts[..] {
            ["backbone", "stem"] => ("conv1".to_owned(), "bn1".to_owned()),
            ["backbone", stage, block, part] if part != "relu" => {
                let at = format!("layer{}.{block}", stage.parse::<usize>().unwrap() + 1);
                match part.strip_prefix("conv") {
                    Some(n) => (format!("{at}.conv{n}"), format!("{at}.bn{n}")),
                    None => (format!("{at}.downsample.0"), format!("{at}.downsample.1")),
                }
            }
            _ => continue,
        };
        let side = if conv.stride == 2 && side > 1 { side - 1 } else { side };
        let spread = (24.0 / (from * side * side) as f64).sqrt() as f32;
        put(format!("{weight}.weight"), vec![out, from, side, side], &|u| (u - 0.5) * spread);
        put(format!("{norm}.weight"), vec![out], &|u| u * 0.5 + 0.5);
        put(format!("{norm}.running_var"), vec![out], &|u| u * 0.5 + 0.5);
        put(format!("{norm}.bias"), vec![out], &|u| u - 0.5);
        put(format!("{norm}.running_mean"), vec![out], &|u| u - 0.5);
    }
    let views =
        tensors.iter().map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// The last layer of each stage.
fn ends(graph: &Graph) -> Vec<usize> {
    let last = |stage| graph.layers.iter().rposition(|l| l.name.starts_with(&format!("backbone.{stage}."))).unwrap();
    (0..4).map(last).collect()
}

fn assert_close(values: &[f32], expected: &Value, what: &str) {
    let every = expected["every"].as_u64().unwrap() as usize;
    let wanted: Vec<f64> = expected["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let most = wanted.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
    assert_eq!(values.len().div_ceil(every), wanted.len(), "{what}");
    for (i, (&v, w)) in values.iter().step_by(every).zip(wanted).enumerate() {
        assert!((f64::from(v) - w).abs() < 2e-4 * most, "{what}, value {}: {v}, PyTorch has {w}", i * every);
    }
}

#[test]
fn resnets_from_torchvision_tensors_compute_what_pytorch_does() {
    let reference: Value = serde_json::from_str(include_str!("../../../../tests/reference/resnet.json")).unwrap();
    let size = |key: &str| reference[key].as_u64().unwrap() as usize;
    let folder = tempfile::tempdir().unwrap();
    for (preset, name) in Preset::RESNET.into_iter().zip(["resnet18", "resnet34", "resnet50"]) {
        let mut graph = preset.teacher().graph(size("width"), size("height"));
        graph.outputs = ends(&graph);
        // What lies behind the backbone is not needed.
        graph.layers.truncate(graph.outputs[3] + 1);
        let path = folder.path().join(format!("{name}.safetensors"));
        std::fs::write(&path, torch_file(&graph)).unwrap();
        let mut params = NetParams::random(&graph, 1);
        let (weights, origin, _) = init::weights(&path).unwrap();
        assert!(origin.contains(name));
        assert_eq!(params.adopt(&weights), weights.0.len());
        let image: Vec<f32> = uniform("image", graph.input_shape().len()).map(|u| u * 4.0 - 2.0).collect();

        let mut engine = CpuEngine::new(&graph, &params.fold(), 1).unwrap();
        engine.input().copy_from_slice(&image);
        engine.run().unwrap();
        for stage in 0..4 {
            assert_close(engine.output(stage), &reference[name][stage], &format!("{name}, engine, stage {stage}"));
        }
        let mut net = TrainNet::new(graph.clone(), params, 1);
        net.input().copy_from_slice(&image);
        net.forward(Mode::Evaluate).unwrap();
        for (stage, &layer) in graph.outputs.iter().enumerate() {
            assert_close(net.value(layer), &reference[name][stage], &format!("{name}, training, stage {stage}"));
        }
    }
}

#[test]
fn a_resnet_s_file_that_lacks_a_tensor_is_refused_by_its_name() {
    let graph = Preset::Resnet18.teacher().graph(32, 32);
    let bytes = torch_file(&graph);
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let rest: Vec<_> =
        file.tensors().into_iter().filter(|(name, _)| name != "layer2.0.downsample.1.running_var").collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    std::fs::write(&path, safetensors::serialize(rest, None).unwrap()).unwrap();
    let error = format!("{:#}", init::weights(&path).unwrap_err());
    assert!(error.contains("half.safetensors") && error.contains("layer2.0.downsample.1.running_var"), "{error}");
}
