//! One training step's gradients: forward, targets, losses, backward.

use candle_core::{Device, Tensor, Var};
use peregrine_engine::LayerId;
use peregrine_student::Architecture;

use super::batches::Batch;
use super::config::StudentConfig;
use super::distillation::Distillation;
use crate::loss::assign;
use crate::loss::assign::Cell;
use crate::loss::detection;
use crate::loss::detection::{DetectionTargets, Positive};
use crate::loss::segmentation;
use crate::net::{Mode, TrainNet};

/// The loss of one step, term by term.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Losses {
    pub class: f32,
    pub teacher: f32,
    pub bbox: f32,
    pub sides: f32,
    pub segmentation: f32,
    /// Each distillation method's, weighted; in the configuration's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<f32>,
}

impl Losses {
    pub fn total(&self) -> f32 {
        self.class + self.teacher + self.bbox + self.sides + self.segmentation + self.methods.iter().sum::<f32>()
    }
}

/// What every step needs, worked out once.
pub struct Teaching {
    cells: Vec<Cell>,
    mask_weights: Vec<f32>,
    classes: usize,
    distillation: Option<Distillation>,
}

impl Teaching {
    /// `mask_weights`: one for each segmentation class.
    pub fn new(architecture: &Architecture, mask_weights: Vec<f32>) -> Self {
        let cells = assign::cells(architecture.input.width, architecture.input.height);
        Self { cells, mask_weights, classes: architecture.detection.classes.len(), distillation: None }
    }

    /// The same, with the methods of a run; its batches then need the teacher's tensors.
    pub fn with_distillation(self, distillation: Option<Distillation>) -> Self {
        Self { distillation, ..self }
    }

    /// Runs `batch` through `net` and adds the gradients of its loss to the parameters'.
    ///
    /// # Errors
    /// When candle fails; a loss that is not finite is the caller's to notice.
    pub fn gradients(&self, net: &mut TrainNet, batch: &Batch, config: &StudentConfig) -> anyhow::Result<Losses> {
        net.input().copy_from_slice(&batch.input);
        net.forward(Mode::Train)?;

        let levels = Architecture::detection_levels();
        let class = self.rows(net, levels.map(|l| net.graph.outputs[l.class]))?;
        let sides = self.rows(net, levels.map(|l| net.graph.outputs[l.box_distribution]))?;
        let targets = self.targets(batch);
        let terms = detection::loss(&class.rows, &sides.rows, &targets, &config.loss)?;
        let mask = self.mask(net, batch)?;

        let total = ((&terms.class + &terms.teacher)? + (&terms.bbox + &terms.sides)?)?;
        let (mask_loss, mask_layer) = match mask {
            Some(mask) => {
                let smoothing = config.loss.label_smoothing as f32;
                let loss = segmentation::cross_entropy(&mask.logits, &mask.labels, &self.mask_weights, smoothing)?;
                ((loss * config.segmentation_weight)?, Some(mask))
            }
            None => (Tensor::new(0.0f32, &Device::Cpu)?, None),
        };
        let mut total = (total + &mask_loss)?;
        let mut taps = Vec::new();
        let mut methods = Vec::new();
        if let Some(distillation) = &self.distillation {
            let (scene, inner) = distillation.scene(net, batch, &targets, (&class.rows, &sides.rows), config)?;
            for loss in distillation.losses(&scene)? {
                methods.push(loss.to_scalar::<f32>()?);
                total = (total + loss)?;
            }
            taps = inner;
        }
        let gradients = total.backward()?;

        let mut seeds: Vec<(LayerId, Vec<f32>)> = Vec::new();
        for (layer, var) in class.outputs.iter().chain(&sides.outputs).chain(&taps) {
            if let Some(gradient) = gradients.get(var) {
                seeds.push((*layer, gradient.flatten_all()?.to_vec1()?));
            }
        }
        if let Some(mask) = mask_layer {
            let layer = net.graph.outputs[Architecture::SEGMENTATION_OUTPUT];
            let len = net.graph.layers[layer].shape.len();
            let mut seed = vec![0.0; net.batch() * len];
            if let Some(gradient) = gradients.get(&mask.var) {
                let gradient: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
                for (&image, from) in mask.images.iter().zip(gradient.chunks(len)) {
                    seed[image * len..][..len].copy_from_slice(from);
                }
            }
            seeds.push((layer, seed));
        }
        net.backward(seeds.iter().map(|(layer, seed)| (*layer, &seed[..])))?;
        let value = |t: &Tensor| t.to_scalar::<f32>();
        Ok(Losses {
            class: value(&terms.class)?,
            teacher: value(&terms.teacher)?,
            bbox: value(&terms.bbox)?,
            sides: value(&terms.sides)?,
            segmentation: value(&mask_loss)?,
            methods,
        })
    }

    /// The outputs of all levels as `[images · cells, channels]`, and the variables to ask gradients of.
    fn rows(&self, net: &TrainNet, layers: [LayerId; 3]) -> candle_core::Result<Rows> {
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

    fn targets(&self, batch: &Batch) -> DetectionTargets {
        let mut targets = DetectionTargets::default();
        for (image, (objects, known)) in batch.objects.iter().zip(&batch.known).enumerate() {
            let boxes: Vec<_> = objects.iter().map(|o| o.bbox).collect();
            for (at, owner) in assign::assign(&self.cells, &boxes).into_iter().enumerate() {
                let Some(owner) = owner else { continue };
                let object = &objects[owner];
                targets.positives.push(Positive {
                    row: (image * self.cells.len() + at) as u32,
                    cell: self.cells[at],
                    bbox: object.bbox,
                    label: object.label,
                    teacher: object.teacher.clone(),
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
        if images.is_empty() {
            return Ok(None);
        }
        let layer = net.graph.outputs[Architecture::SEGMENTATION_OUTPUT];
        let shape = net.graph.layers[layer].shape;
        let of = |&image: &usize| &net.value(layer)[image * shape.len()..][..shape.len()];
        let values: Vec<f32> = images.iter().flat_map(of).copied().collect();
        let var = Var::from_vec(values, (images.len(), shape.channels, shape.pixels()), &Device::Cpu)?;
        let logits = var.transpose(1, 2)?.contiguous()?.reshape(((), shape.channels))?;
        Ok(Some(Mask { logits, var, images, labels: masks.into_iter().flatten().copied().collect() }))
    }
}

struct Rows {
    rows: Tensor,
    outputs: Vec<(LayerId, Var)>,
}

struct Mask {
    logits: Tensor,
    var: Var,
    images: Vec<usize>,
    labels: Vec<u8>,
}
