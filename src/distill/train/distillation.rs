//! The distillation methods of a run, and their inputs at each step: the student's tensors and the
//! teacher's.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{ensure, Context};
use peregrine_engine::{LayerId, Shape};
use peregrine_student::{Architecture, DetectionLevel, Student};
use peregrine_vision::decode::mask::MASK_STRIDE;

use super::batches::Batch;
use super::config::StudentConfig;
use super::mean_teacher::MeanTeacher;
use super::online::OnlineTeacher;
use super::soft_view::{Grid, SoftView};
use crate::data::VOID;
use crate::loss::inputs::{DistillInputs, Tensors};
use crate::loss::methods::outputs::cells;
use crate::loss::methods::{Method, MethodConfig};
use crate::loss::schedule::Schedule;
use crate::loss::targets::DetectionTargets;
use crate::net::{Tape, TrainNet};
use crate::ranks::Ranks;
use crate::soften::SoftTargets;
use crate::teacher::logits::UNKNOWN_CLASS;
use crate::teacher::package::layer;
use crate::tensor::Tensor;

/// Where the teacher's outputs come from.
pub enum TeacherSource {
    /// A package that is run on each batch ahead of the training step.
    Package(OnlineTeacher),
    /// The student's own moving average, run within the step.
    Average(MeanTeacher),
    /// Soft targets of whole images: their masks and features come with each batch, the features
    /// for these layers.
    Offline(Vec<(String, Grid)>),
}

/// What a step is about.
pub struct OfStep<'a> {
    pub net: &'a TrainNet,
    pub batch: &'a Batch,
    pub targets: &'a DetectionTargets,
    pub config: &'a StudentConfig,
    /// Those that have the other images of the batch.
    pub ranks: &'a Ranks,
}

/// An inner layer that some method compares.
struct ComparedLayer {
    name: String,
    /// In the student's graph.
    id: LayerId,
    teacher_shape: Shape,
}

/// The distillation methods that a configuration names, with their weights.
pub struct Distillation {
    methods: Vec<(Schedule, Box<dyn Method>)>,
    layers: Vec<ComparedLayer>,
    /// Of the student's detection head.
    levels: Vec<DetectionLevel>,
    /// Index of the student's segmentation logits in the graph's outputs.
    segmentation_output: Option<usize>,
    /// Indices of the student's logits of each group of scenes there.
    scene_outputs: Range<usize>,
    /// Their names.
    scene_groups: Vec<String>,
}

impl Distillation {
    /// The methods of `config` for the student `net` of `architecture`, and the source of the
    /// teacher's outputs that they need; `None` if the configuration names no method.
    ///
    /// # Errors
    /// When the teacher cannot be loaded or does not fit the student, or the soft targets lack
    /// masks or features that a method needs.
    pub fn prepare(
        config: &StudentConfig,
        architecture: &Architecture,
        net: &TrainNet,
        soft_targets: Option<&SoftTargets>,
    ) -> anyhow::Result<Option<(Self, TeacherSource)>> {
        if config.methods.is_empty() {
            return Ok(None);
        }
        let classes = architecture.segmentation_classes();
        let groups = architecture.scene.iter().flat_map(|head| head.groups());
        let scene_groups: Vec<String> = groups.map(|(name, _)| name.to_owned()).collect();
        for MethodConfig { method, .. } in &config.methods {
            let (kind, [detection, segmentation, scene]) = (method.name(), method.needs_heads());
            ensure!(
                !detection || architecture.detects(),
                "[[method]] {kind} compares detection heads, and the student has none"
            );
            ensure!(
                !segmentation || architecture.segmentation.is_some(),
                "[[method]] {kind} compares segmentation heads, and the student has none"
            );
            ensure!(
                !scene || architecture.scene.is_some(),
                "[[method]] {kind} compares scene heads, and the student has none"
            );
            ensure!(
                method.scene_group().is_none_or(|group| scene_groups.iter().any(|known| known == group)),
                "[[method]] {kind} on = \"scene.{}\": the student's groups of scenes are {}",
                method.scene_group().unwrap_or_default(),
                scene_groups.join(", ")
            );
        }
        ensure!(
            !config.takes_masks() || soft_targets.and_then(|s| s.segmentation.as_deref()) == Some(classes),
            "[[method]] kd on the segmentation head, or cwd, needs a [teacher], or soft_targets of a segmenter for {}",
            classes.join(", ")
        );
        ensure!(
            !config.takes_scenes() || soft_targets.is_some_and(|s| s.scene == architecture.scene),
            "[[method]] on = \"scene\" needs a [teacher], or soft_targets of a classifier for {}",
            architecture.scene.as_ref().map_or_else(String::new, |head| head.classes().join(", "))
        );
        let package = config.teacher.as_ref().and_then(|teacher| teacher.package.as_deref());
        let package = package.map(Student::load).transpose().context("[teacher] package")?;
        let mut methods = Vec::new();
        let mut layers: Vec<ComparedLayer> = Vec::new();
        for method in &config.methods {
            let built = method.method.build(package.as_ref()).map_err(anyhow::Error::msg)?;
            for name in built.layers() {
                let at = || format!("[[method]] kind = {:?}", method.method.name());
                let compared = compared_layer(config, net, package.as_ref(), soft_targets, name).with_context(at)?;
                let (ours, theirs) = (net.graph.layers[compared.id].shape, compared.teacher_shape);
                let same_size = (ours.height, ours.width) == (theirs.height, theirs.width);
                ensure!(
                    same_size && (!built.needs_equal_width() || ours.channels == theirs.channels),
                    "{}: layer {} is {ours:?} in the student and {theirs:?} in the teacher",
                    at(),
                    compared.name
                );
                if !layers.iter().any(|l| l.name == compared.name) {
                    layers.push(compared);
                }
            }
            methods.push((method.weight, built));
        }
        let source = if let Some(package) = &package {
            let names: Vec<String> = layers.iter().map(|l| l.name.clone()).collect();
            TeacherSource::Package(OnlineTeacher::new(package, architecture, &names)?)
        } else if config.teacher.is_some() {
            let ids = layers.iter().map(|l| l.id);
            TeacherSource::Average(MeanTeacher::new(&net.graph, &net.params, net.batch(), ids))
        } else {
            let grid = |l: &ComparedLayer| {
                (l.name.clone(), Grid { columns: l.teacher_shape.width, rows: l.teacher_shape.height })
            };
            TeacherSource::Offline(layers.iter().map(grid).collect())
        };
        let (levels, segmentation_output) = (architecture.detection_levels(), architecture.segmentation_output());
        let scene_outputs = architecture.scene_outputs();
        let of_student = Self { methods, layers, levels, segmentation_output, scene_outputs, scene_groups };
        Ok(Some((of_student, source)))
    }

    /// The student's inner layers that some method compares.
    pub fn layers(&self) -> impl Iterator<Item = LayerId> + '_ {
        self.layers.iter().map(|layer| layer.id)
    }

    /// The methods' inputs in a step. `detection`: the student's class and box distribution logits, if it
    /// detects.
    ///
    /// # Errors
    /// When candle fails.
    pub fn inputs(
        &self,
        of: &OfStep,
        tape: &mut Tape,
        detection: Option<(Tensor, Tensor)>,
    ) -> candle_core::Result<DistillInputs> {
        let &OfStep { net, batch, targets, config, ranks } = of;
        let images = net.batch();
        // No method compares the outputs of a head that is not there: `prepare` refuses it.
        let (class, box_distribution) = match detection {
            Some(both) => both,
            None => (nothing(1)?, nothing(1)?),
        };
        let segmentation = match self.segmentation_output {
            Some(output) => tape.layer(net, net.graph.outputs[output])?.flatten(2, 3)?,
            None => nothing(images)?.unsqueeze(1)?,
        };
        let scene =
            self.scene_outputs.clone().map(|output| tape.layer(net, net.graph.outputs[output])?.flatten_from(1));
        let scene = scene.collect::<candle_core::Result<_>>()?;
        let mut student = Tensors { class, box_distribution, segmentation, scene, layers: BTreeMap::new() };
        for layer in &self.layers {
            student.layers.insert(layer.name.clone(), tape.layer(net, layer.id)?);
        }

        let mut layer_valid = BTreeMap::new();
        let (mut mask_valid, mut scene_valid) =
            (vec![true; images * student.segmentation.dim(2)?], vec![vec![true; images]; student.scene.len()]);
        let is_online = !batch.teacher_outputs.is_empty() || tape.teacher(net, 0).is_some();
        let teacher = if !is_online {
            let mut teacher = offline(tape, batch, &student, &mut mask_valid, &mut scene_valid)?;
            for (i, layer) in self.layers.iter().enumerate() {
                let (theirs, valid, ones) = feature(tape, batch, i, layer.teacher_shape)?;
                let name = &layer.name;
                student.layers.insert(name.clone(), student.layers[name].broadcast_mul(&ones)?);
                teacher.layers.insert(name.clone(), theirs);
                layer_valid.insert(name.clone(), valid);
            }
            teacher
        } else {
            self.online(net, tape, batch, &student)?
        };
        let input = net.graph.input_shape();
        let void = vec![VOID; input.pixels() / (MASK_STRIDE * MASK_STRIDE)];
        Ok(DistillInputs {
            student,
            teacher,
            positives: targets.positives.iter().filter_map(|p| Some((p.row, p.label?))).collect(),
            room: targets.room,
            boxes: batch.objects.iter().map(|o| o.iter().map(|o| o.bbox).collect()).collect(),
            mask: batch.masks.iter().flat_map(|m| m.as_ref().unwrap_or(&void)).copied().collect(),
            mask_valid,
            scene_groups: self.scene_groups.clone(),
            scene_labels: (0..self.scene_outputs.len()).map(|group| batch.scene_labels(group)).collect(),
            scene_valid,
            layer_valid,
            input: (input.width, input.height),
            progress: batch.step as f64 / config.steps as f64,
            ranks: ranks.clone(),
        })
    }

    /// The outputs of a teacher that was run on the views of `batch`, or is run on the device.
    fn online(&self, net: &TrainNet, tape: &Tape, batch: &Batch, student: &Tensors) -> candle_core::Result<Tensors> {
        let images = net.batch();
        let outputs = &net.graph.outputs;
        let maps = |output: usize, channels: usize| match tape.teacher(net, output) {
            Some(tensor) => tensor.flatten(2, 3),
            None => {
                let values = &batch.teacher_outputs[output];
                tape.given(values, &[images, channels, values.len() / (images * channels)])
            }
        };
        let rows = |of: Vec<usize>, channels: usize| {
            if of.is_empty() {
                return nothing(1);
            }
            let levels = of.into_iter().map(|o| maps(o, channels)).collect::<candle_core::Result<Vec<_>>>()?;
            cells(&Tensor::cat(&levels, 2)?)
        };
        let levels = &self.levels;
        let segmentation = match self.segmentation_output {
            Some(output) => maps(output, student.segmentation.dim(1)?)?,
            None => student.segmentation.clone(),
        };
        let classes = student.scene.iter().map(|logits| logits.dim(1));
        let scene = self.scene_outputs.clone().zip(classes).map(|(output, classes)| maps(output, classes?)?.squeeze(2));
        let mut teacher = Tensors {
            class: rows(levels.iter().map(|l| l.class).collect(), student.class.dim(1)?)?,
            box_distribution: rows(
                levels.iter().map(|l| l.box_distribution).collect(),
                student.box_distribution.dim(1)?,
            )?,
            segmentation,
            scene: scene.collect::<candle_core::Result<_>>()?,
            layers: BTreeMap::new(),
        };
        for (i, ComparedLayer { name, teacher_shape: s, .. }) in self.layers.iter().enumerate() {
            let tensor = maps(outputs.len() + i, s.channels)?.reshape(&[images, s.channels, s.height, s.width])?;
            teacher.layers.insert(name.clone(), tensor);
        }
        Ok(teacher)
    }

    /// The weighted loss of each method; one whose weight is zero at this step is not computed.
    ///
    /// # Errors
    /// When candle fails.
    pub fn losses(&self, inputs: &DistillInputs) -> candle_core::Result<Vec<Tensor>> {
        let loss = |(weight, method): &(Schedule, Box<dyn Method>)| {
            let weight = weight.at(inputs.progress);
            if weight == 0.0 {
                Ok(Tensor::scalar(0.0))
            } else {
                method.loss(inputs)? * weight
            }
        };
        self.methods.iter().map(loss).collect()
    }
}

/// What stands for the outputs of a head that is not there.
fn nothing(rows: usize) -> candle_core::Result<Tensor> {
    Tensor::from_vec(vec![0.0; rows], &[rows, 1])
}

/// The layer `name` of the student, with the shape of the teacher's tensor for it.
fn compared_layer(
    config: &StudentConfig,
    net: &TrainNet,
    package: Option<&Student>,
    soft_targets: Option<&SoftTargets>,
    name: String,
) -> anyhow::Result<ComparedLayer> {
    let id = layer(&net.graph, &name).context("the student")?;
    let ours = net.graph.layers[id].shape;
    let teacher_shape = match (package, &config.teacher) {
        (Some(package), _) => {
            let input = net.graph.input_shape();
            let graph = package.manifest.architecture.graph(input.width, input.height);
            graph.layers[layer(&graph, &name).context("the teacher")?].shape
        }
        (None, Some(_)) => ours,
        // Features of soft targets are resampled to the student's cells.
        (None, None) => Shape { channels: channels(soft_targets, &name)?, ..ours },
    };
    Ok(ComparedLayer { name, id, teacher_shape })
}

/// The soft targets of `batch` as a teacher's tensors, and for which cells and which groups' images there
/// are any. They hold no boxes, for which the student's own stand in: no method that is permitted here
/// compares those.
fn offline(
    tape: &Tape,
    batch: &Batch,
    student: &Tensors,
    mask_valid: &mut Vec<bool>,
    scene_valid: &mut [Vec<bool>],
) -> candle_core::Result<Tensors> {
    let segmentation;
    let masks = batch.soft_masks.iter().map(Option::as_ref);
    (segmentation, *mask_valid) = maps(tape, masks, student.segmentation.dims3()?)?;
    let (class, box_distribution) = (student.class.detach(), student.box_distribution.detach());
    let scene = soft_scenes(batch, student, scene_valid)?;
    Ok(Tensors { class, box_distribution, segmentation, scene, layers: BTreeMap::new() })
}

/// The soft targets' logits of each group of scenes, as wide as the student's; zeros for an image
/// of which the teacher knows nothing, which is not valid then.
fn soft_scenes(batch: &Batch, student: &Tensors, valid: &mut [Vec<bool>]) -> candle_core::Result<Vec<Tensor>> {
    let mut first = 0;
    let mut group = |(logits, valid): (&Tensor, &mut Vec<bool>)| {
        let (images, classes) = logits.dims2()?;
        let mut values = vec![0.0; images * classes];
        for ((to, from), valid) in values.chunks_mut(classes).zip(&batch.soft_scenes).zip(valid) {
            let from = from.as_ref().map(|from| &from[first..first + classes]);
            let known = from.filter(|from| from.iter().any(|&logit| logit > UNKNOWN_CLASS));
            *valid = known.is_some();
            if let Some(known) = known {
                to.copy_from_slice(known);
            }
        }
        first += classes;
        Tensor::from_vec(values, &[images, classes])
    };
    student.scene.iter().zip(valid).map(&mut group).collect()
}

/// The features of `batch` for the `layer`-th layer, of shape `s`; for each image and cell whether
/// there are any, and the same as ones and zeros, `[images, 1, height, width]`.
fn feature(tape: &Tape, batch: &Batch, layer: usize, s: Shape) -> candle_core::Result<(Tensor, Vec<bool>, Tensor)> {
    let images = batch.features.len();
    let views = batch.features.iter().map(|image| image[layer].as_ref());
    let (values, valid) = maps(tape, views, (images, s.channels, s.pixels()))?;
    let ones = Tensor::vector(valid.iter().map(|&valid| f32::from(u8::from(valid))))?;
    let values = values.reshape(&[images, s.channels, s.height, s.width])?;
    Ok((values, valid, ones.reshape(&[images, 1, s.height, s.width])?))
}

/// The views as one tensor `[images, channels, cells]`, and for each image and cell whether it is
/// valid.
fn maps<'a>(
    tape: &Tape,
    views: impl Iterator<Item = Option<&'a SoftView>>,
    (images, channels, cells): (usize, usize, usize),
) -> candle_core::Result<(Tensor, Vec<bool>)> {
    let mut values = vec![0.0; images * cells * channels];
    let mut valid = vec![false; images * cells];
    let places = values.chunks_mut(cells * channels).zip(valid.chunks_mut(cells));
    for ((values, valid), view) in places.zip(views) {
        if let Some(view) = view {
            values.copy_from_slice(&view.values);
            valid.copy_from_slice(&view.valid);
        }
    }
    Ok((tape.given(&values, &[images, cells, channels])?.transpose(1, 2)?, valid))
}

/// The channels of the soft targets' features for `layer`.
fn channels(soft_targets: Option<&SoftTargets>, layer: &str) -> anyhow::Result<usize> {
    let features = soft_targets.map(|s| &s.features).context("there are no soft_targets")?;
    let those = features.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    features.get(layer).copied().with_context(|| {
        format!(
            "soft_targets hold no features for {layer} (only for: {those}); name it with --feature, or in [features] of \
             the teacher's description, and soften into another folder"
        )
    })
}
