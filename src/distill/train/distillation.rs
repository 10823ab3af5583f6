//! The methods of a run, and what they are shown at each step: the student's tensors beside the teacher's.

use std::collections::BTreeMap;

use anyhow::{ensure, Context};
use candle_core::{Device, Tensor, Var};

use super::batches::Batch;
use super::config::StudentConfig;
use super::mean_teacher::MeanTeacher;
use super::online::{layer, OnlineTeacher};
use crate::decode::mask::MASK_STRIDE;
use crate::distill::data::VOID;
use crate::distill::loss::detection::DetectionTargets;
use crate::distill::loss::methods::Method;
use crate::distill::loss::scene::{Scene, Tensors};
use crate::distill::loss::schedule::Schedule;
use crate::distill::net::TrainNet;
use crate::distill::soften::SoftTargets;
use crate::engine::{LayerId, Shape};
use crate::student::{Architecture, Student};

/// Who looks at the views.
pub enum Teacher {
    /// A package, ahead of the training step.
    Package(OnlineTeacher),
    /// The student's own average, within the step.
    Average(MeanTeacher),
    /// A segmenter that saw the whole images; its soft targets come with each batch.
    Offline,
}

/// The methods that a configuration names, ready.
pub struct Distillation {
    methods: Vec<(Schedule, Box<dyn Method>)>,
    /// Inner layers that some method compares, by name, with their place in the student's graph and the teacher's shape.
    layers: Vec<(String, LayerId, Shape)>,
}

impl Distillation {
    /// The methods of `config` for the student `net`, and the teacher that they need; `None` where it names none.
    ///
    /// # Errors
    /// When the teacher cannot be loaded or does not fit the student, or is to be soft targets that hold no masks.
    pub fn prepare(
        config: &StudentConfig,
        net: &TrainNet,
        soft: Option<&SoftTargets>,
    ) -> anyhow::Result<Option<(Self, Teacher)>> {
        if config.methods.is_empty() {
            return Ok(None);
        }
        let classes = config.architecture().segmentation.classes;
        ensure!(
            config.teacher.is_some() || soft.and_then(|s| s.segmentation.as_ref()) == Some(&classes),
            "[[method]] kind = {:?} needs a [teacher], or soft_targets of a segmenter for {}",
            config.methods[0].method.name(),
            classes.join(", ")
        );
        let package = config.teacher.as_ref().and_then(|teacher| teacher.package.as_deref());
        let package = package.map(Student::load).transpose().context("[teacher] package")?;
        let graph = &net.graph;
        let input = graph.input_shape();
        let of_teacher = match &package {
            Some(package) => package.manifest.architecture.graph(input.width, input.height),
            None => graph.clone(),
        };
        let mut methods = Vec::new();
        let mut layers: Vec<(String, LayerId, Shape)> = Vec::new();
        for method in &config.methods {
            let built = method.method.build(package.as_ref()).map_err(anyhow::Error::msg)?;
            for name in built.layers() {
                let at = || format!("[[method]] kind = {:?}", method.method.name());
                let id = layer(graph, &name).context("the student").with_context(at)?;
                let theirs = layer(&of_teacher, &name).context("the teacher").with_context(at)?;
                let (ours, theirs) = (graph.layers[id].shape, of_teacher.layers[theirs].shape);
                let same_size = (ours.height, ours.width) == (theirs.height, theirs.width);
                ensure!(
                    same_size && (!built.needs_equal_width() || ours.channels == theirs.channels),
                    "{}: layer {name} is {ours:?} in the student and {theirs:?} in the teacher",
                    at()
                );
                if !layers.iter().any(|l| l.0 == name) {
                    layers.push((name, id, theirs));
                }
            }
            methods.push((method.weight, built));
        }
        let teacher = match &package {
            Some(package) => {
                let names: Vec<String> = layers.iter().map(|l| l.0.clone()).collect();
                Teacher::Package(OnlineTeacher::new(package, &config.architecture(), &names)?)
            }
            None if config.teacher.is_none() => Teacher::Offline,
            None => {
                let shown = layers.iter().map(|l| l.1);
                Teacher::Average(MeanTeacher::new(graph, &net.params, net.batch(), shown))
            }
        };
        Ok(Some((Self { methods, layers }, teacher)))
    }

    /// The student's inner layers that some method compares.
    pub fn layers(&self) -> impl Iterator<Item = LayerId> + '_ {
        self.layers.iter().map(|(_, id, _)| *id)
    }

    /// What the methods see of a step, and the variables of the student's layers to ask gradients of, besides those that
    /// `rows` (class and side logits of the student) come from.
    ///
    /// # Errors
    /// When candle fails.
    pub fn scene(
        &self,
        net: &TrainNet,
        batch: &Batch,
        targets: &DetectionTargets,
        (class, sides): (&Tensor, &Tensor),
        config: &StudentConfig,
    ) -> candle_core::Result<(Scene, Vec<(LayerId, Var)>)> {
        let images = net.batch();
        let outputs = &net.graph.outputs;
        let mut taps = Vec::new();
        let mut tap = |layer: LayerId| {
            let s = net.graph.layers[layer].shape;
            let var = Var::from_slice(net.value(layer), (images, s.channels, s.height, s.width), &Device::Cpu)?;
            let tensor = var.as_tensor().clone();
            taps.push((layer, var));
            candle_core::Result::Ok(tensor)
        };
        let mut student = Tensors {
            class: class.clone(),
            sides: sides.clone(),
            segmentation: tap(outputs[Architecture::SEGMENTATION_OUTPUT])?.flatten(2, 3)?,
            layers: BTreeMap::new(),
        };
        for (name, id, _) in &self.layers {
            student.layers.insert(name.clone(), tap(*id)?);
        }

        let cells = student.segmentation.dim(2)?;
        let (teacher, teacher_sees) = match batch.teacher.is_empty() {
            true => offline(batch, &student)?,
            false => (self.shown(net, batch, &student)?, vec![true; images * cells]),
        };
        let input = net.graph.input_shape();
        let void = vec![VOID; input.pixels() / (MASK_STRIDE * MASK_STRIDE)];
        let scene = Scene {
            student,
            teacher,
            positives: targets.positives.iter().filter_map(|p| Some((p.row, p.label?))).collect(),
            boxes: batch.objects.iter().map(|o| o.iter().map(|o| o.bbox).collect()).collect(),
            mask: batch.masks.iter().flat_map(|m| m.as_ref().unwrap_or(&void)).copied().collect(),
            teacher_sees,
            input: (input.width, input.height),
            progress: batch.step as f64 / config.steps as f64,
        };
        Ok((scene, taps))
    }

    /// The tensors of a teacher that saw the views of `batch`.
    fn shown(&self, net: &TrainNet, batch: &Batch, student: &Tensors) -> candle_core::Result<Tensors> {
        let images = net.batch();
        let outputs = &net.graph.outputs;
        let maps = |output: usize, channels: usize| {
            let values = &batch.teacher[output];
            Tensor::from_slice(values, (images, channels, values.len() / (images * channels)), &Device::Cpu)
        };
        let rows = |of: [usize; 3], channels: usize| {
            let levels = of.into_iter().map(|o| maps(o, channels)).collect::<candle_core::Result<Vec<_>>>()?;
            Tensor::cat(&levels, 2)?.transpose(1, 2)?.contiguous()?.reshape(((), channels))
        };
        let levels = Architecture::detection_levels();
        let mut teacher = Tensors {
            class: rows(levels.map(|l| l.class), student.class.dim(1)?)?,
            sides: rows(levels.map(|l| l.sides), student.sides.dim(1)?)?,
            segmentation: maps(Architecture::SEGMENTATION_OUTPUT, student.segmentation.dim(1)?)?,
            layers: BTreeMap::new(),
        };
        for ((name, _, s), values) in self.layers.iter().zip(&batch.teacher[outputs.len()..]) {
            let tensor = Tensor::from_slice(values, (images, s.channels, s.height, s.width), &Device::Cpu)?;
            teacher.layers.insert(name.clone(), tensor);
        }
        Ok(teacher)
    }

    /// Each method's loss, weighted; those whose weight is zero by now cost nothing.
    ///
    /// # Errors
    /// When candle fails.
    pub fn losses(&self, scene: &Scene) -> candle_core::Result<Vec<Tensor>> {
        let loss = |(weight, method): &(Schedule, Box<dyn Method>)| match weight.at(scene.progress) {
            0.0 => Tensor::zeros((), candle_core::DType::F32, &Device::Cpu),
            weight => method.loss(scene)? * weight,
        };
        self.methods.iter().map(loss).collect()
    }
}

/// The soft targets of `batch` as a teacher's tensors, and for each image and cell whether there are any. They say nothing
/// of boxes, for which the student's own stand in: no method that is permitted here looks at those.
fn offline(batch: &Batch, student: &Tensors) -> candle_core::Result<(Tensors, Vec<bool>)> {
    let (images, classes, cells) = student.segmentation.dims3()?;
    let mut logits = vec![0.0; images * cells * classes];
    let mut seen = vec![false; images * cells];
    let places = logits.chunks_mut(cells * classes).zip(seen.chunks_mut(cells));
    for ((logits, seen), soft) in places.zip(&batch.soft) {
        if let Some(soft) = soft {
            logits.copy_from_slice(&soft.logits);
            seen.copy_from_slice(&soft.seen);
        }
    }
    let segmentation =
        Tensor::from_vec(logits, (images, cells, classes), &Device::Cpu)?.transpose(1, 2)?.contiguous()?;
    let (class, sides) = (student.class.detach(), student.sides.detach());
    Ok((Tensors { class, sides, segmentation, layers: BTreeMap::new() }, seen))
}
