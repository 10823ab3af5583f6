//! The gradients of one training step: forward pass, targets, losses, backward pass.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use anyhow::bail;
use peregrine_engine::LayerId;
use peregrine_student::{Architecture, DetectionLevel};

use super::batches::Batch;
use super::config::StudentConfig;
use super::distillation::{Distillation, OfStep};
use crate::data::VOID;
use crate::defaults::is_default;
use crate::loss::assign::{self, Cell};
use crate::loss::detection::DetectionLoss;
use crate::loss::methods::outputs::cells;
use crate::loss::targets::{DetectionTargets, Positive};
use crate::loss::{detection, scene, segmentation};
use crate::net::{Tape, TrainNet};
use crate::ranks::Ranks;
use crate::tensor::Tensor;

/// Positives that a step on a device has room for at least.
const LEAST_ROOM: usize = 64;

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
    /// When candle or a device fails; the caller checks that the loss is finite.
    pub fn gradients(&self, net: &mut TrainNet, batch: &Batch, config: &StudentConfig) -> anyhow::Result<Losses> {
        net.show(&batch.input, &batch.pictures)?;
        let tape = &mut net.begin(&self.ranks)?;

        let detection = self.detection(net, tape)?;
        let targets = self.targets(batch, tape);
        let terms = match &detection {
            Some((class, boxes)) => detection::loss(class, boxes, &targets, &config.loss, &self.ranks)?,
            None => DetectionLoss::zero(),
        };
        let mask = (self.mask_loss(net, tape, batch, config)? * config.segmentation_weight)?;
        let scene = (self.scene_loss(net, tape, batch, config)? * config.scene_weight)?;
        let mut all = vec![terms.class, terms.teacher, terms.bbox, terms.box_distribution, mask, scene];
        let mut also = Vec::new();
        if let Some(distillation) = &self.distillation {
            let of = OfStep { net, batch, targets: &targets, config, ranks: &self.ranks };
            let inputs = distillation.inputs(&of, tape, detection)?;
            all.extend(distillation.losses(&inputs)?);
            also.extend(distillation.layers());
        }
        let mut total = Tensor::scalar(0.0);
        for term in &all {
            total = (total + term)?;
        }

        // The same layers take part in the backward pass of every rank: batch-norm there waits for all.
        also.extend(&net.graph.outputs);
        let also = if self.ranks.is_alone() { &[] } else { &also[..] };
        let mut values = net.differentiate(tape, &total, &all, also)?.into_iter();
        let mut next = || values.next().expect("one for each term");
        let losses = Losses {
            class: next(),
            teacher: next(),
            bbox: next(),
            box_distribution: next(),
            segmentation: next(),
            scene: next(),
            methods: values.collect(),
        };
        Ok(losses.of_all(&self.ranks))
    }

    /// The class logits and the box distributions, `[images · cells, channels]` each; `None` without a
    /// detection head.
    fn detection(&self, net: &TrainNet, tape: &mut Tape) -> candle_core::Result<Option<(Tensor, Tensor)>> {
        if self.levels.is_empty() {
            return Ok(None);
        }
        let class = rows(net, tape, self.levels.iter().map(|l| net.graph.outputs[l.class]))?;
        let boxes = rows(net, tape, self.levels.iter().map(|l| net.graph.outputs[l.box_distribution]))?;
        Ok(Some((class, boxes)))
    }

    /// That of the masks; images without one do not count.
    fn mask_loss(
        &self,
        net: &TrainNet,
        tape: &mut Tape,
        batch: &Batch,
        config: &StudentConfig,
    ) -> candle_core::Result<Tensor> {
        let Some(output) = self.mask_output else { return Ok(Tensor::scalar(0.0)) };
        if batch.masks.iter().all(Option::is_none) {
            // The other ranks add up the weights of their pixels.
            self.ranks.total(0.0);
            return Ok(Tensor::scalar(0.0));
        }
        let layer = net.graph.outputs[output];
        let void = vec![VOID; net.graph.layers[layer].shape.pixels()];
        let labels: Vec<u8> = batch.masks.iter().flat_map(|m| m.as_ref().unwrap_or(&void)).copied().collect();
        let logits = cells(&tape.layer(net, layer)?.flatten(2, 3)?)?;
        let smoothing = config.loss.label_smoothing as f32;
        segmentation::cross_entropy(&logits, &labels, &self.mask_weights, smoothing, &self.ranks)
    }

    /// That of the scene head; 0 without one.
    fn scene_loss(
        &self,
        net: &TrainNet,
        tape: &mut Tape,
        batch: &Batch,
        config: &StudentConfig,
    ) -> candle_core::Result<Tensor> {
        let logits = |output| tape.layer(net, net.graph.outputs[output])?.flatten_from(1);
        let logits = self.scene_outputs.clone().map(logits).collect::<candle_core::Result<Vec<_>>>()?;
        let labels: Vec<Vec<u8>> = (0..logits.len()).map(|group| batch.scene_labels(group)).collect();
        let groups = logits.iter().zip(&labels).map(|(logits, labels)| (logits, &labels[..]));
        scene::cross_entropy(groups, config.loss.label_smoothing as f32, &self.ranks)
    }

    fn targets(&self, batch: &Batch, tape: &Tape) -> DetectionTargets {
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
        if tape.is_on_device() {
            targets.room = targets.positives.len().next_power_of_two().max(LEAST_ROOM);
        }
        targets
    }
}

/// The outputs of all levels as `[images · cells, channels]`.
fn rows(net: &TrainNet, tape: &mut Tape, layers: impl Iterator<Item = LayerId>) -> candle_core::Result<Tensor> {
    let maps = layers.map(|layer| tape.layer(net, layer)?.flatten(2, 3));
    let maps = maps.collect::<candle_core::Result<Vec<_>>>()?;
    cells(&Tensor::cat(&maps, 2)?)
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
