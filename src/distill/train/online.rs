//! A teacher that is run on the same view as the student (Beyer et al. 2022, "A good teacher is
//! patient and consistent"): a Peregrine package, run by the CPU engine ahead of the training step.

use std::path::PathBuf;

use anyhow::{ensure, Context};
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::Engine;
#[cfg(feature = "cuda")]
use peregrine_engine::{Graph, Weights};
use peregrine_student::{Architecture, Student};
use serde::{Deserialize, Serialize};

use crate::defaults::is_default;
#[cfg(feature = "cuda")]
use crate::net::cuda::Teaching;
#[cfg(feature = "cuda")]
use crate::net::{NetParams, TrainNet};
use crate::teacher::package::layer;

/// `[teacher]`: the teacher that is run on each view: a package, or the student's own average.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// Folder of a package; it is run at the input size of the student in training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<PathBuf>,
    /// A mean teacher instead: the moving average (`ema`) of the student's own weights.
    #[serde(default, skip_serializing_if = "is_default")]
    pub average: bool,
}

/// The teacher, ready for batches.
pub struct OnlineTeacher {
    #[cfg(feature = "cuda")]
    graph: Graph,
    #[cfg(feature = "cuda")]
    weights: Weights,
    engine: CpuEngine,
    /// Length of each tensor for one image: the graph's outputs, then the requested inner layers.
    lengths: Vec<usize>,
    /// For each colour channel, factor and offset from the student's normalisation to the
    /// teacher's.
    renormalise: [(f32, f32); 3],
}

impl OnlineTeacher {
    /// A teacher for views of the student's input size, which gives its `layers` besides its
    /// outputs.
    ///
    /// # Errors
    /// When the teacher has other classes or bins than the student, or lacks one of `layers`.
    pub fn new(teacher: &Student, student: &Architecture, layers: &[String]) -> anyhow::Result<Self> {
        let of = &teacher.manifest.architecture;
        ensure!(
            of.detection_classes() == student.detection_classes()
                && of.segmentation_classes() == student.segmentation_classes()
                && of.scene == student.scene
                && of.bins() == student.bins(),
            "the teacher {} has other classes or bins than the student",
            teacher.manifest.name
        );
        let mut graph = of.graph(student.input.width, student.input.height);
        let layers = layers.iter().map(|name| layer(&graph, name)).collect::<anyhow::Result<Vec<_>>>();
        graph.outputs.extend(layers.with_context(|| format!("the teacher {}", teacher.manifest.name))?);
        let lengths = graph.outputs.iter().map(|&id| graph.layers[id].shape.len()).collect();
        let (from, to) = (&student.input, &of.input);
        let renormalise = std::array::from_fn(|c| {
            let scale = from.std[c] / to.std[c];
            (scale, (from.mean[c] - to.mean[c]) / to.std[c])
        });
        let engine = CpuEngine::new(&graph, &teacher.weights, 1)?;
        Ok(Self {
            engine,
            #[cfg(feature = "cuda")]
            weights: teacher.weights.clone(),
            #[cfg(feature = "cuda")]
            graph,
            lengths,
            renormalise,
        })
    }

    /// The same on the device that `net` is on, as a part of its steps.
    ///
    /// # Errors
    /// When the device has too little memory.
    #[cfg(feature = "cuda")]
    pub fn move_to(&self, net: &mut TrainNet) -> anyhow::Result<()> {
        let Some((cuda, _)) = net.cuda() else { return Ok(()) };
        let mut params = NetParams::random(&self.graph, 0);
        params.adopt(&self.weights);
        cuda.teach(&Teaching {
            graph: &self.graph,
            params: &params,
            given: &self.graph.outputs,
            renormalise: self.renormalise,
            is_average: false,
        })
    }

    /// Each of the teacher's tensors over the batch, for the `input` `[images, 3, height, width]`
    /// as normalised for the student.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn infer(&mut self, input: &[f32]) -> anyhow::Result<Vec<Vec<f32>>> {
        let len = self.engine.input().len();
        let images = input.len() / len;
        let mut tensors: Vec<Vec<f32>> = self.lengths.iter().map(|n| Vec::with_capacity(n * images)).collect();
        for image in input.chunks(len) {
            let planes = self.engine.input().chunks_exact_mut(len / 3).zip(image.chunks_exact(len / 3));
            for ((to, from), (scale, offset)) in planes.zip(self.renormalise) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = from * scale + offset);
            }
            self.engine.run()?;
            for (i, tensor) in tensors.iter_mut().enumerate() {
                tensor.extend_from_slice(self.engine.output(i));
            }
        }
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{check, Mode, NetParams, TrainNet};

    #[test]
    fn it_computes_what_the_training_net_does_inner_layers_included() {
        let teacher = Student::load(&peregrine_support::lite()).unwrap();
        let mut student = teacher.manifest.architecture.clone();
        (student.input.width, student.input.height) = (64, 32);
        let names = ["neck.8.add".to_owned(), "detect.16.0.pointwise".to_owned()];
        let mut online = OnlineTeacher::new(&teacher, &student, &names).unwrap();
        let input = check::values(2 * 3 * 64 * 32, 1);
        let found = online.infer(&input).unwrap();

        let graph = student.graph(64, 32);
        let mut params = NetParams::random(&graph, 1);
        params.adopt(&teacher.weights);
        let mut net = TrainNet::new(graph, params, 2);
        net.input().copy_from_slice(&input);
        net.forward(Mode::Evaluate).unwrap();
        let inner = names.iter().map(|n| layer(&net.graph, n).unwrap());
        let ids: Vec<_> = net.graph.outputs.iter().copied().chain(inner).collect();
        assert_eq!(found.len(), ids.len());
        for (tensor, id) in found.iter().zip(ids) {
            assert_eq!(tensor.len(), net.value(id).len());
            let close = tensor.iter().zip(net.value(id)).all(|(a, b)| (a - b).abs() < 1e-3 * (1.0 + b.abs()));
            assert!(close, "layer {}", net.graph.layers[id].name);
        }
    }

    #[test]
    fn an_input_is_renormalised_for_the_teacher() {
        let teacher = Student::load(&peregrine_support::lite()).unwrap();
        let student = teacher.manifest.architecture.clone();
        let mut other = student.clone();
        (other.input.mean, other.input.std) = ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4]);
        let image = check::values(3 * student.input.width * student.input.height, 1);
        let plane = image.len() / 3;
        let (from, to) = (&student.input, &other.input);
        let as_other: Vec<f32> = image
            .iter()
            .enumerate()
            .map(|(i, v)| (v * from.std[i / plane] + from.mean[i / plane] - to.mean[i / plane]) / to.std[i / plane])
            .collect();
        let plain = OnlineTeacher::new(&teacher, &student, &[]).unwrap().infer(&image).unwrap();
        let renormalised = OnlineTeacher::new(&teacher, &other, &[]).unwrap().infer(&as_other).unwrap();
        let all = plain.iter().flatten().zip(renormalised.iter().flatten());
        all.for_each(|(a, b)| assert!((a - b).abs() < 1e-3 * (1.0 + a.abs()), "{a} {b}"));
    }

    #[test]
    fn a_missing_layer_is_named() {
        let teacher = Student::load(&peregrine_support::lite()).unwrap();
        let architecture = teacher.manifest.architecture.clone();
        let error = OnlineTeacher::new(&teacher, &architecture, &["neck.7".to_owned()]).err().unwrap();
        assert!(format!("{error:#}").contains("neck.7"), "{error:#}");
    }
}
