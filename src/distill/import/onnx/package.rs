//! The imported network as a student.

use std::collections::BTreeMap;

use anyhow::{ensure, Context};
use peregrine_engine::{Activation, Graph, LayerId, Op, Weights};
use peregrine_student::architecture::Input;
use peregrine_student::head::{BoxForm, HeadForm};
use peregrine_student::imported::{ImportedHead, ImportedLayer, ImportedLevel, ImportedNetwork};
use peregrine_student::manifest::{Training, WeightsFile};
use peregrine_student::{Architecture, Manifest, Student};

use super::description::{NetworkDescription, NetworkFamily};
use super::head::{bins, FoundLevel};
use super::network::Network;
use super::simplify::simplify;
use crate::teacher::description::Colours;

/// Strides of the layers that a segmentation head can be put on.
const MASK_STRIDES: [usize; 2] = [4, 8];

/// The student of `network`, whose head `levels` are.
///
/// # Errors
/// When it cannot be a package: colours that cannot be exchanged, or an input size that does not
/// suit its layers.
pub fn student(
    mut network: Network,
    levels: &[FoundLevel],
    d: &NetworkDescription,
    file_size: (usize, usize),
) -> anyhow::Result<Student> {
    let form = form(&network, levels, d)?;
    network.graph.outputs = levels.iter().flat_map(FoundLevel::parts).map(|part| part.layer).collect();
    let (mut graph, mut weights) = simplify(network);
    let (width, height) = d.input.map_or(file_size, |[width, height]| (width, height));
    let (mean, std) = normalisation(&mut graph, &mut weights, d)?;
    let input = Input { width, height, mean, std };
    let name = |id: LayerId| graph.layers[id].name.clone();
    let mut outputs = graph.outputs.iter().map(|&id| name(id));
    let mut next = || outputs.next().expect("an output for each part");
    let mut found = Vec::new();
    for level in levels {
        let (class, boxes) = (next(), next());
        found.push(ImportedLevel {
            stride: level.stride,
            class,
            boxes,
            objectness: level.objectness.as_ref().map(|_| next()),
        });
    }
    let imported = ImportedNetwork {
        layers: graph
            .layers
            .iter()
            .skip(1)
            .map(|layer| ImportedLayer {
                name: layer.name.clone(),
                op: layer.op,
                inputs: layer.inputs.iter().map(|&id| name(id)).collect(),
                channels: layer.shape.channels,
            })
            .collect(),
        head: ImportedHead { classes: d.classes.clone(), form, levels: found },
        mask_features: mask_features(&graph),
        scene_feature: None,
    };
    let architecture = Architecture::imported(input, imported);
    architecture.check().map_err(anyhow::Error::msg).with_context(|| format!("at an input of {width}x{height}"))?;
    let student = Student {
        manifest: Manifest {
            format_version: 0,
            name: d.name.clone(),
            architecture,
            weights: WeightsFile { file: String::new(), sha256: String::new(), cluster_bits: None },
            training: Training { command: "distill import".into(), ..Training::default() },
            quantization: None,
            accuracy: BTreeMap::new(),
            notice: d.notice.clone(),
        },
        weights,
        quantization: None,
    };
    student.weights.check(&student.graph())?;
    Ok(student)
}

fn form(network: &Network, levels: &[FoundLevel], d: &NetworkDescription) -> anyhow::Result<HeadForm> {
    let center = d.center.unwrap_or(0.5);
    let boxes = match d.family {
        NetworkFamily::Gfl | NetworkFamily::Yolov8 => BoxForm::Distribution { bins: bins(network, levels)?, center },
        NetworkFamily::Distances | NetworkFamily::Centernet => BoxForm::Distances { center },
        NetworkFamily::Yolox => BoxForm::CenterSize,
        NetworkFamily::Yolov5 => {
            ensure!(
                d.anchors.len() == levels.len(),
                "anchors are given for {} levels, of {}",
                d.anchors.len(),
                levels.len()
            );
            BoxForm::Anchors { anchors: d.anchors.clone() }
        }
    };
    Ok(HeadForm { boxes, peaks: d.family == NetworkFamily::Centernet })
}

/// Mean and standard deviation for red, green and blue. What the network itself does to the image
/// first goes into them; where it takes blue first, its first convolutions change.
fn normalisation(
    graph: &mut Graph,
    weights: &mut Weights,
    d: &NetworkDescription,
) -> anyhow::Result<([f32; 3], [f32; 3])> {
    let (mut mean, mut std) = (d.mean, d.std);
    let readers = |graph: &Graph, of: LayerId| -> Vec<LayerId> {
        (0..graph.layers.len()).filter(|&id| graph.layers[id].inputs.contains(&of)).collect()
    };
    if let [first] = readers(graph, 0)[..] {
        let alone =
            matches!(graph.layers[first].op, Op::Conv(c) if c.is_channelwise() && c.activation == Activation::Identity);
        let own = alone.then(|| weights.of(&graph.layers[first].name).clone());
        if let Some(own) = own.filter(|own| own.weight.iter().all(|&f| f > 0.0)) {
            for c in 0..3 {
                std[c] /= own.weight[c];
                mean[c] -= own.bias[c] * std[c];
            }
            weights.0.remove(&graph.layers[first].name);
            graph.layers.remove(first);
            let moved = |id: LayerId| if id == first { 0 } else { id - usize::from(id > first) };
            graph.layers.iter_mut().flat_map(|layer| &mut layer.inputs).for_each(|input| *input = moved(*input));
            graph.outputs.iter_mut().for_each(|output| *output = moved(*output));
        }
    }
    if d.colours == Colours::Bgr {
        for id in readers(graph, 0) {
            let Op::Conv(conv) = graph.layers[id].op else {
                anyhow::bail!("{} reads the image, so that blue and red cannot be exchanged", graph.layers[id].name);
            };
            ensure!(
                !conv.depthwise,
                "{} reads the image, so that blue and red cannot be exchanged",
                graph.layers[id].name
            );
            let filters = weights.0.get_mut(&graph.layers[id].name).context("a convolution without weights")?;
            let pixels = conv.kernel * conv.kernel;
            for filter in filters.weight.chunks_mut(3 * pixels) {
                let (blue, rest) = filter.split_at_mut(pixels);
                blue.swap_with_slice(&mut rest[pixels..]);
            }
        }
        mean.reverse();
        std.reverse();
    }
    Ok((mean, std))
}

/// The last layers of these strides that the head is not made of.
fn mask_features(graph: &Graph) -> Option<[String; 2]> {
    let input = graph.input_shape();
    let at = |stride: usize| {
        let of_stride = |id: &LayerId| {
            let shape = graph.layers[*id].shape;
            (shape.width * stride, shape.height * stride) == (input.width, input.height)
        };
        let read = |id: &LayerId| graph.layers.iter().any(|layer| layer.inputs.contains(id));
        let last = (1..graph.layers.len()).rev().find(|id| of_stride(id) && read(id) && !graph.outputs.contains(id))?;
        Some(graph.layers[last].name.clone())
    };
    let [fine, coarse] = MASK_STRIDES.map(at);
    fine.zip(coarse).map(|(fine, coarse)| [fine, coarse])
}
