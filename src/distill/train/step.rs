//! The gradients of one training step: forward pass, targets, losses, backward pass.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use anyhow::bail;
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use peregrine_engine::LayerId;
use peregrine_student::{Architecture, DetectionLevel};

use super::batches::Batch;
use super::config::StudentConfig;
use super::distillation::Distillation;
use crate::defaults::is_default;
use crate::loss::assign::{self, Cell};
use crate::loss::detection::DetectionLoss;
use crate::loss::targets::{DetectionTargets, Positive};
use crate::loss::{detection, scene, segmentation};
use crate::net::{Mode, TrainNet};
use crate::ranks::Ranks;

/// The loss of one step, term by term.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Losses {
    pub class: f32,
    pub teacher: f32,
    pub bbox: f32,
    pub box_distribution: f32,
    pub segmentation: f32,
    #[serde(skip_serializing_if = "is_default")]
    pub scene: f32,
    /// The weighted loss of each distillation method, in the configuration's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<f32>,
}

impl Losses {
    pub fn total(&self) -> f32 {
        let task = self.class + self.teacher + self.bbox + self.box_distribution + self.segmentation + self.scene;
        task + self.methods.iter().sum::<f32>()
    }
}

impl Losses {
    /// The sums over `ranks`.
    fn of_all(mut self, ranks: &Ranks) -> Self {
        if ranks.is_alone() {
            return self;
        }
        let Self { class, teacher, bbox, box_distribution, segmentation, scene, methods } = &mut self;
        let terms: Vec<&mut f32> =
            [class, teacher, bbox, box_distribution, segmentation, scene].into_iter().chain(methods).collect();
        let mut sums: Vec<f64> = terms.iter().map(|term| f64::from(**term)).collect();
        ranks.sum(&mut sums);
        terms.into_iter().zip(sums).for_each(|(term, sum)| *term = sum as f32);
        self
    }

    /// Stops the run at a `value` (the loss, or the norm of the gradient) that is NaN or infinite,
    /// before it spoils the weights.
    ///
    /// # Errors
    /// Names the step, the batch and the remedy.
    pub fn check_finite(&self, what: &str, value: f32, batch: &Batch, checkpoint: &Path) -> anyhow::Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        let remedy = if checkpoint.exists() {
            format!(
                "the checkpoint of an earlier step is in {}: lower learning_rate or clip and resume with --reconfigure",
                checkpoint.display()
            )
        } else {
            "lower learning_rate, clip or the loss's weights".into()
        };
        let (step, file) = (batch.step, batch.files[0].display());
        bail!("the {what} of step {step} is not finite ({self:?}), on a batch that begins with {file}; {remedy}");
    }
}

/// The line beside the progress bar.
impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { class, teacher, bbox, box_distribution: dfl, segmentation, scene, methods } = self;
        let total = self.total();
        write!(
            f,
            "loss {total:.2}: class {class:.2} teacher {teacher:.2} box {bbox:.2} DFL {dfl:.2} mask {segmentation:.2}"
        )?;
        if *scene != 0.0 {
            write!(f, " scene {scene:.2}")?;
        }
        methods.iter().try_for_each(|method| write!(f, " {method:.2}"))
    }
}

/// Computes the loss of a batch and its gradients; what every step needs is computed once.
pub struct LossComputer {
    cells: Vec<Cell>,
    mask_weights: Vec<f32>,
    classes: usize,
    levels: Vec<DetectionLevel>,
    /// Index of the segmentation logits in the graph's outputs.
    mask_output: Option<usize>,
    /// Indices of the logits of each group of scenes there.
    scene_outputs: Range<usize>,
    distillation: Option<Distillation>,
    ranks: Ranks,
}

impl LossComputer {
    /// `mask_weights`: the loss weight of each segmentation class.
    pub fn new(architecture: &Architecture, mask_weights: Vec<f32>) -> Self {
        let levels = architecture.detection_levels();
        Self {
            cells: assign::cells(architecture, architecture.input.width, architecture.input.height),
            mask_weights,
            classes: architecture.detection_classes().len(),
            levels,
            mask_output: architecture.segmentation_output(),
            scene_outputs: architecture.scene_outputs(),
            distillation: None,
            ranks: Ranks::alone(),
        }
    }

    /// The same with the run's distillation methods; its batches then need the teacher's outputs.
    pub fn with_distillation(self, distillation: Option<Distillation>) -> Self {
        Self { distillation, ..self }
    }

    /// The same for batches of which each of `ranks` has a part.
    pub fn with_ranks(self, ranks: &Ranks) -> Self {
        Self { ranks: ranks.clone(), ..self }
    }

    /// Runs `batch` through `net` and adds the gradients of its loss to those of the parameters. With
    /// several ranks the losses are those of the whole batch, and the gradients are to be added up over
    /// the ranks.
    ///
    /// # Errors
    /// When candle fails; the caller checks that the loss is finite.
    pub fn gradients(&self, net: &mut TrainNet, batch: &Batch, config: &StudentConfig) -> anyhow::Result<Losses> {
        net.input().copy_from_slice(&batch.input);
        net.forward(Mode::Train)?;

        let detection = self.detection(net)?;
        let targets = self.targets(batch);
        let terms = match &detection {
            Some((class, boxes)) => detection::loss(&class.rows, &boxes.rows, &targets, &config.loss, &self.ranks)?,
            None => DetectionLoss::zero()?,
        };
        let mask = self.mask(net, batch)?;

        let mask_loss = match &mask {
            Some(mask) => {
                let smoothing = config.loss.label_smoothing as f32;
                let (weights, ranks) = (&self.mask_weights, &self.ranks);
                let loss = segmentation::cross_entropy(&mask.logits, &mask.labels, weights, smoothing, ranks)?;
                (loss * config.segmentation_weight)?
            }
            None => {
                if self.mask_output.is_some() {
                    // The other ranks add up the weights of their pixels.
                    self.ranks.total(0.0);
                }
                Tensor::new(0.0f32, &Device::Cpu)?
            }
        };
        let total = ((&terms.class + &terms.teacher)? + (&terms.bbox + &terms.box_distribution)?)?;
        let scenes = self.scenes(net)?;
        let scene_loss = scene_loss(&scenes, batch, config, &self.ranks)?;
        let mut total = ((total + &mask_loss)? + &scene_loss)?;
        let mut taps = Vec::new();
        let mut methods = Vec::new();
        if let Some(distillation) = &self.distillation {
            let rows = detection.as_ref().map(|(class, boxes)| (&class.rows, &boxes.rows));
            let (inputs, inner) = distillation.inputs(net, batch, &targets, rows, config, &self.ranks)?;
            for loss in distillation.losses(&inputs)? {
                methods.push(loss.to_scalar::<f32>()?);
                total = (total + loss)?;
            }
            taps = inner;
        }
        let gradients = total.backward()?;

        let mut seeds: Vec<(LayerId, Vec<f32>)> = Vec::new();
        let outputs = detection.iter().flat_map(|(class, boxes)| class.outputs.iter().chain(&boxes.outputs));
        for (layer, var) in outputs.chain(&scenes).chain(&taps) {
            if let Some(gradient) = gradients.get(var) {
                seeds.push((*layer, gradient.flatten_all()?.to_vec1()?));
            }
        }
        seeds.extend(mask.map(|mask| mask.seed(net, &gradients)).transpose()?);
        if !self.ranks.is_alone() {
            // The same layers take part in the backward pass of every rank: batch-norm there waits for all.
            let all = net.graph.outputs.iter().copied().chain(taps.iter().map(|(layer, _)| *layer));
            let zeros = |layer: LayerId| (layer, vec![0.0; net.batch() * net.graph.layers[layer].shape.len()]);
            let missing = all.filter(|layer| seeds.iter().all(|(seeded, _)| seeded != layer)).map(zeros);
            seeds.extend(missing.collect::<Vec<_>>());
        }
        net.backward(seeds.iter().map(|(layer, seed)| (*layer, &seed[..])))?;
        let value = |t: &Tensor| t.to_scalar::<f32>();
        let losses = Losses {
            class: value(&terms.class)?,
            teacher: value(&terms.teacher)?,
            bbox: value(&terms.bbox)?,
            box_distribution: value(&terms.box_distribution)?,
            segmentation: value(&mask_loss)?,
            scene: value(&scene_loss)?,
            methods,
        };
        Ok(losses.of_all(&self.ranks))
    }

    /// The class logits and the box distributions; `None` without a detection head.
    fn detection(&self, net: &TrainNet) -> candle_core::Result<Option<(Rows, Rows)>> {
        if self.levels.is_empty() {
            return Ok(None);
        }
        let class = self.rows(net, self.levels.iter().map(|l| net.graph.outputs[l.class]))?;
        let boxes = self.rows(net, self.levels.iter().map(|l| net.graph.outputs[l.box_distribution]))?;
        Ok(Some((class, boxes)))
    }

    /// The outputs of all levels as `[images · cells, channels]`, and the variables to
    /// differentiate.
    fn rows(&self, net: &TrainNet, layers: impl Iterator<Item = LayerId>) -> candle_core::Result<Rows> {
        let mut outputs = Vec::new();
        for layer in layers {
            let shape = net.graph.layers[layer].shape;
            let dims = (net.batch(), shape.channels, shape.pixels());
            outputs.push((layer, Var::from_slice(net.value(layer), dims, &Device::Cpu)?));
        }
        let tensors: Vec<&Tensor> = outputs.iter().map(|(_, var)| var.as_tensor()).collect();
        let channels = tensors[0].dim(1)?;
        let rows = Tensor::cat(&tensors, 2)?.transpose(1, 2)?.contiguous()?.reshape(((), channels))?;
        Ok(Rows { rows, outputs })
    }

    /// The logits of each group of scenes, `[images, classes]`, to differentiate.
    fn scenes(&self, net: &TrainNet) -> candle_core::Result<Vec<(LayerId, Var)>> {
        let variable = |output: usize| {
            let layer = net.graph.outputs[output];
            let dims = (net.batch(), net.graph.layers[layer].shape.channels);
            Ok((layer, Var::from_slice(net.value(layer), dims, &Device::Cpu)?))
        };
        self.scene_outputs.clone().map(variable).collect()
    }

    fn targets(&self, batch: &Batch) -> DetectionTargets {
        let mut targets = DetectionTargets::default();
        for (image, (objects, known)) in batch.objects.iter().zip(&batch.known).enumerate() {
            let boxes: Vec<_> = objects.iter().map(|o| o.bbox).collect();
            for (at, owner) in assign::assign(&self.cells, &boxes).into_iter().enumerate() {
                let Some(object) = owner.map(|owner| &objects[owner]) else { continue };
                targets.positives.push(Positive {
                    row: (image * self.cells.len() + at) as u32,
                    cell: self.cells[at],
                    bbox: object.bbox,
                    label: object.label,
                    teacher_logits: object.teacher_logits.clone(),
                    confidence: object.confidence,
                    share: object.share,
                });
            }
            let row: Vec<f32> = (0..self.classes).map(|c| f32::from(u8::from(known[c]))).collect();
            (0..self.cells.len()).for_each(|_| targets.known.extend(&row));
        }
        targets
    }

    /// The segmentation logits of the images that have a mask.
    fn mask(&self, net: &TrainNet, batch: &Batch) -> candle_core::Result<Option<Mask>> {
        let labelled = batch.masks.iter().enumerate().filter_map(|(i, mask)| mask.as_ref().map(|m| (i, m)));
        let (images, masks): (Vec<usize>, Vec<&Vec<u8>>) = labelled.unzip();
        let Some(output) = self.mask_output.filter(|_| !images.is_empty()) else { return Ok(None) };
        let layer = net.graph.outputs[output];
        let shape = net.graph.layers[layer].shape;
        let of = |&image: &usize| &net.value(layer)[image * shape.len()..][..shape.len()];
        let values: Vec<f32> = images.iter().flat_map(of).copied().collect();
        let var = Var::from_vec(values, (images.len(), shape.channels, shape.pixels()), &Device::Cpu)?;
        let logits = var.transpose(1, 2)?.contiguous()?.reshape(((), shape.channels))?;
        Ok(Some(Mask { layer, logits, var, images, labels: masks.into_iter().flatten().copied().collect() }))
    }
}

/// The weighted loss of the scene head; 0 without one.
fn scene_loss(
    scenes: &[(LayerId, Var)],
    batch: &Batch,
    config: &StudentConfig,
    ranks: &Ranks,
) -> candle_core::Result<Tensor> {
    let labels: Vec<Vec<u8>> = (0..scenes.len()).map(|group| batch.scene_labels(group)).collect();
    let groups = scenes.iter().zip(&labels).map(|((_, var), labels)| (var.as_tensor(), &labels[..]));
    scene::cross_entropy(groups, config.loss.label_smoothing as f32, ranks)? * config.scene_weight
}

/// One kind of detection output over all levels.
struct Rows {
    /// `[images · cells, channels]`.
    rows: Tensor,
    outputs: Vec<(LayerId, Var)>,
}

/// The segmentation output of the images that have a mask.
struct Mask {
    layer: LayerId,
    /// `[images · cells, classes]`.
    logits: Tensor,
    var: Var,
    images: Vec<usize>,
    labels: Vec<u8>,
}

impl Mask {
    /// The gradient of the segmentation output over the whole batch.
    fn seed(&self, net: &TrainNet, gradients: &GradStore) -> candle_core::Result<(LayerId, Vec<f32>)> {
        let layer = self.layer;
        let len = net.graph.layers[layer].shape.len();
        let mut seed = vec![0.0; net.batch() * len];
        if let Some(gradient) = gradients.get(&self.var) {
            let gradient: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
            for (&image, from) in self.images.iter().zip(gradient.chunks(len)) {
                seed[image * len..][..len].copy_from_slice(from);
            }
        }
        Ok((layer, seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gradient_that_is_not_finite_names_batch_and_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint.safetensors");
        let batch = Batch { step: 7, files: vec!["a/b.jpg".into()], ..Batch::default() };
        let check = |norm| Losses::default().check_finite("gradient", norm, &batch, &checkpoint);
        assert!(check(1.0).is_ok());
        let error = check(f32::NAN).unwrap_err().to_string();
        assert!(error.contains("the gradient of step 7") && error.contains("a/b.jpg"), "{error}");
        std::fs::write(&checkpoint, "").unwrap();
        let error = check(f32::INFINITY).unwrap_err().to_string();
        assert!(error.contains("checkpoint.safetensors"), "{error}");
    }
}
