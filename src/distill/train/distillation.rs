//! The methods of a run, and what they are shown at each step: the student's tensors beside the teacher's.

use std::collections::BTreeMap;

use anyhow::{ensure, Context};
use candle_core::{Device, Tensor, Var};
use peregrine_engine::{LayerId, Shape};
use peregrine_student::{Architecture, Student};
use peregrine_vision::decode::mask::MASK_STRIDE;

use super::batches::Batch;
use super::config::StudentConfig;
use super::mean_teacher::MeanTeacher;
use super::online::OnlineTeacher;
use super::soft_view::{Grid, SoftView};
use crate::data::VOID;
use crate::loss::detection::DetectionTargets;
use crate::loss::methods::Method;
use crate::loss::scene::{Scene, Tensors};
use crate::loss::schedule::Schedule;
use crate::net::TrainNet;
use crate::soften::SoftTargets;
use crate::teacher::package::layer;

/// Who looks at the views.
pub enum Teacher {
    /// A package, ahead of the training step.
    Package(OnlineTeacher),
    /// The student's own average, within the step.
    Average(MeanTeacher),
    /// Some that saw the whole images; their masks and features come with each batch, the features for these layers.
    Offline(Vec<(String, Grid)>),
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
    /// When the teacher cannot be loaded or does not fit the student, or is to be soft targets that lack masks or features.
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
            !config.takes_masks() || soft.and_then(|s| s.segmentation.as_ref()) == Some(&classes),
            "[[method]] kd on the segmentation head, or cwd, needs a [teacher], or soft_targets of a segmenter for {}",
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
                let ours = graph.layers[id].shape;
                let theirs = match config.teacher {
                    // Features are brought to the student's cells.
                    None => Shape { channels: channels(soft, &name).with_context(at)?, ..ours },
                    Some(_) => {
                        of_teacher.layers[layer(&of_teacher, &name).context("the teacher").with_context(at)?].shape
                    }
                };
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
            None if config.teacher.is_none() => {
                let grid =
                    |(name, _, s): &(String, LayerId, Shape)| (name.clone(), Grid { columns: s.width, rows: s.height });
                Teacher::Offline(layers.iter().map(grid).collect())
            }
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
        let mut layer_sees = BTreeMap::new();
        let (teacher, teacher_sees) = match batch.teacher.is_empty() {
            true => {
                let (mut teacher, sees) = offline(batch, &student)?;
                for (i, (name, _, shape)) in self.layers.iter().enumerate() {
                    let (theirs, seen, mask) = feature(batch, i, *shape)?;
                    student.layers.insert(name.clone(), student.layers[name].broadcast_mul(&mask)?);
                    teacher.layers.insert(name.clone(), theirs);
                    layer_sees.insert(name.clone(), seen);
                }
                (teacher, sees)
            }
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
            layer_sees,
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
            sides: rows(levels.map(|l| l.box_distribution), student.sides.dim(1)?)?,
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
    let (segmentation, seen) = maps(batch.soft.iter().map(Option::as_ref), (images, classes, cells))?;
    let (class, sides) = (student.class.detach(), student.sides.detach());
    Ok((Tensors { class, sides, segmentation, layers: BTreeMap::new() }, seen))
}

/// The features of `batch` for the `layer`-th layer, of that shape; for each image and cell whether there are any, and the
/// same as ones and zeros, `[images, 1, height, width]`.
fn feature(batch: &Batch, layer: usize, s: Shape) -> candle_core::Result<(Tensor, Vec<bool>, Tensor)> {
    let images = batch.features.len();
    let views = batch.features.iter().map(|image| image[layer].as_ref());
    let (values, seen) = maps(views, (images, s.channels, s.pixels()))?;
    let mask = Tensor::from_iter(seen.iter().map(|&seen| f32::from(u8::from(seen))), &Device::Cpu)?;
    let values = values.reshape((images, s.channels, s.height, s.width))?;
    Ok((values, seen, mask.reshape((images, 1, s.height, s.width))?))
}

/// Views of so many (images, channels, cells) as one tensor of that shape; and for each image and cell whether it is seen.
fn maps<'a>(
    views: impl Iterator<Item = Option<&'a SoftView>>,
    (images, channels, cells): (usize, usize, usize),
) -> candle_core::Result<(Tensor, Vec<bool>)> {
    let mut values = vec![0.0; images * cells * channels];
    let mut seen = vec![false; images * cells];
    let places = values.chunks_mut(cells * channels).zip(seen.chunks_mut(cells));
    for ((values, seen), view) in places.zip(views) {
        if let Some(view) = view {
            values.copy_from_slice(&view.values);
            seen.copy_from_slice(&view.seen);
        }
    }
    let values = Tensor::from_vec(values, (images, cells, channels), &Device::Cpu)?;
    Ok((values.transpose(1, 2)?.contiguous()?, seen))
}

/// The channels of the soft targets' feature for `layer`.
fn channels(soft: Option<&SoftTargets>, layer: &str) -> anyhow::Result<usize> {
    let features = soft.map(|s| &s.features).context("there are no soft_targets")?;
    let those = features.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    features.get(layer).copied().with_context(|| {
        format!(
            "soft_targets hold no features for {layer} (but for: {those}); name it with --feature, or in [features] of the \
             teacher's description, and soften into another folder"
        )
    })
}
