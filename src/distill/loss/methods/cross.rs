//! Cross-head distillation, CrossKD (Wang et al. 2024, eq. 4 to 6).

use peregrine_student::architecture::{DetectionHead, DETECTION_STRIDES};
use peregrine_student::Student;
use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::super::schedule::Schedule;
use super::{kd, ld, Method};
use crate::tensor::{Result, Tensor};

/// The student's features after the first `cut` separable convolutions of its detection head are
/// passed through the rest of the *teacher's* head, and the result is compared with the teacher's
/// own predictions. The student's own outputs learn from the labels, with which the teacher may
/// disagree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossConfig {
    /// Number of the student's separable convolutions ahead of the teacher's head, at least 1.
    #[serde(default = "cut")]
    pub cut: usize,
    #[serde(default = "unit")]
    pub temperature: Schedule,
    /// As in [`kd::Kd`].
    #[serde(default = "focus")]
    pub focus: f64,
    /// Weight of the box distributions ([`ld::Ld`]) relative to the classes.
    #[serde(default = "quarter")]
    #[serde(rename = "sides")]
    pub box_distribution: f64,
    #[serde(default = "min_score")]
    pub min_score: f32,
}

fn cut() -> usize {
    1
}

fn unit() -> Schedule {
    Schedule::Constant(1.0)
}

fn focus() -> f64 {
    1.0
}

fn quarter() -> f64 {
    0.25
}

fn min_score() -> f32 {
    0.05
}

impl CrossConfig {
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        if self.cut == 0 {
            return Err("cut must be at least 1: the student's features must pass one of its own convolutions".into());
        }
        kd::Kd::of_classes(self.temperature, self.focus).check()
    }

    fn layer(&self, stride: usize) -> String {
        format!("detect.{stride}.{}.pointwise", self.cut - 1)
    }
}

/// [`CrossConfig`] with the teacher's head.
pub struct Cross {
    config: CrossConfig,
    levels: Vec<FrozenHead>,
}

impl Cross {
    /// Takes the rest of the head from `teacher`.
    ///
    /// # Errors
    /// When its head has fewer convolutions than `cut`.
    pub fn new(config: CrossConfig, teacher: &Student) -> std::result::Result<Self, String> {
        let head = teacher.manifest.architecture.detection.as_ref();
        let head = head.ok_or("method cross needs a teacher with the detection head that distill builds, and this one has none (an imported network, or masks only)")?;
        if config.cut > head.convs {
            return Err(format!("method cross: cut is {}, but the head has {} convolutions", config.cut, head.convs));
        }
        let levels =
            DETECTION_STRIDES.iter().map(|&stride| FrozenHead::new(teacher, head, stride, config.cut)).collect();
        Ok(Self { config, levels })
    }
}

impl Method for Cross {
    fn layers(&self) -> Vec<String> {
        DETECTION_STRIDES.iter().map(|&stride| self.config.layer(stride)).collect()
    }

    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor> {
        let (mut class, mut boxes) = (Vec::new(), Vec::new());
        for (head, stride) in self.levels.iter().zip(DETECTION_STRIDES) {
            let (c, b) = head.forward(&inputs.student.layers[&self.config.layer(stride)])?;
            class.push(c.flatten(2, 3)?);
            boxes.push(b.flatten(2, 3)?);
        }
        let rows = |levels: &[Tensor]| super::outputs::cells(&Tensor::cat(levels, 2)?);
        let (class, boxes) = (rows(&class)?, rows(&boxes)?);
        let teacher = &inputs.teacher;
        let temperature = self.config.temperature.at(inputs.progress);
        let classes = kd::focused(&class, &teacher.class, temperature, self.config.focus, &inputs.ranks)?;
        let localisation = ld::localisation(&boxes, teacher, temperature, self.config.min_score, &inputs.ranks)?;
        classes + (localisation * self.config.box_distribution)?
    }
}

/// A teacher's detection head at one level from its `cut`-th convolution on, with constant weights.
struct FrozenHead {
    /// Depthwise kernel `[channels, kernel²]` with bias, then pointwise weight `[out, in]` with
    /// bias.
    blocks: Vec<[(Tensor, Tensor); 2]>,
    class: (Tensor, Tensor),
    box_distribution: (Tensor, Tensor),
    kernel: usize,
}

impl FrozenHead {
    fn new(teacher: &Student, head: &DetectionHead, stride: usize, cut: usize) -> Self {
        let layer = |name: String| {
            let weights = teacher.weights.of(&name);
            let out = weights.bias.len();
            let tensor = |v: &[f32], columns| Tensor::from_slice(v, &[out, columns]);
            let weight = tensor(&weights.weight, weights.weight.len() / out).expect("lengths were checked on loading");
            (weight, tensor(&weights.bias, 1).expect("lengths were checked on loading"))
        };
        let of = |part: &str| layer(format!("detect.{stride}.{part}"));
        Self {
            blocks: (cut..head.convs).map(|i| [of(&format!("{i}.depthwise")), of(&format!("{i}.pointwise"))]).collect(),
            class: of("class"),
            box_distribution: of("sides"),
            kernel: head.kernel,
        }
    }

    fn forward(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let mut x = x.clone();
        for [across, mix] in &self.blocks {
            x = relu6(&depthwise(&x, across, self.kernel)?)?;
            x = relu6(&pointwise(&x, mix)?)?;
        }
        Ok((pointwise(&x, &self.class)?, pointwise(&x, &self.box_distribution)?))
    }
}

fn relu6(x: &Tensor) -> Result<Tensor> {
    x.relu()?.at_most(6.0)
}

/// A 1×1 convolution of `[images, in, height, width]`.
fn pointwise(x: &Tensor, (weight, bias): &(Tensor, Tensor)) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let y = weight.matmul(&x.flatten(2, 3)?)?.broadcast_add(bias)?;
    let (images, out, _) = y.dims3()?;
    y.reshape(&[images, out, height, width])
}

/// A depthwise convolution with stride 1 and "same" padding, as a sum of shifted maps: candle would
/// split it into one call for each channel.
fn depthwise(x: &Tensor, (weight, bias): &(Tensor, Tensor), kernel: usize) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    let half = kernel / 2;
    let padded = x.pad_with_zeros(2, half, half)?.pad_with_zeros(3, half, half)?;
    let per_channel = |t: &Tensor| t.reshape(&[1, channels, 1, 1]);
    let mut sum: Option<Tensor> = None;
    for dy in 0..kernel {
        for dx in 0..kernel {
            let tap = per_channel(&weight.narrow(1, dy * kernel + dx, 1)?)?;
            let shifted = padded.narrow(2, dy, height)?.narrow(3, dx, width)?.broadcast_mul(&tap)?;
            sum = Some(match sum {
                Some(sum) => (sum + shifted)?,
                None => shifted,
            });
        }
    }
    sum.expect("a kernel has a tap").broadcast_add(&per_channel(bias)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::super::inputs::Tensors;
    use super::*;
    use crate::loss::check;
    use crate::net::check::values;
    use crate::ranks::Ranks;
    use peregrine_engine::cpu::CpuEngine;
    use peregrine_engine::Engine;
    use peregrine_student::Architecture;

    const SIZE: (usize, usize) = (64, 32);

    /// The embedded student's tensors for one image of noise, by the engine.
    fn tensors(config: &CrossConfig, seed: u64) -> Tensors {
        let student = Student::load(&peregrine_support::lite()).unwrap();
        let mut graph = student.manifest.architecture.graph(SIZE.0, SIZE.1);
        let names = DETECTION_STRIDES.map(|s| config.layer(s));
        let inner = names.iter().map(|n| graph.layers.iter().position(|l| l.name == *n).unwrap());
        graph.outputs.extend(inner.collect::<Vec<_>>());
        let mut engine = CpuEngine::new(&graph, &student.weights, 1).unwrap();
        engine.input().copy_from_slice(&values(3 * SIZE.0 * SIZE.1, seed));
        engine.run().unwrap();
        let tensor = |i: usize| {
            let s = graph.layers[graph.outputs[i]].shape;
            Tensor::from_slice(engine.output(i), &[1, s.channels, s.height, s.width]).unwrap()
        };
        let levels = Architecture::default_student().detection_levels();
        let rows = |of: Vec<usize>| {
            let maps: Vec<_> = of.into_iter().map(|i| tensor(i).flatten(2, 3).unwrap()).collect();
            super::super::outputs::cells(&Tensor::cat(&maps, 2).unwrap()).unwrap()
        };
        Tensors {
            class: rows(levels.iter().map(|l| l.class).collect()),
            box_distribution: rows(levels.iter().map(|l| l.box_distribution).collect()),
            segmentation: tensor(6).flatten(2, 3).unwrap(),
            scene: vec![],
            layers: names.into_iter().enumerate().map(|(i, name)| (name, tensor(7 + i))).collect::<BTreeMap<_, _>>(),
        }
    }

    fn inputs(config: &CrossConfig, student: u64, teacher: u64) -> DistillInputs {
        DistillInputs {
            student: tensors(config, student),
            teacher: tensors(config, teacher),
            positives: vec![],
            room: 0,
            boxes: vec![],
            mask: vec![],
            mask_valid: vec![],
            scene_groups: vec![],
            scene_labels: vec![],
            scene_valid: vec![],
            layer_valid: BTreeMap::new(),
            input: SIZE,
            progress: 0.0,
            ranks: Ranks::alone(),
        }
    }

    #[test]
    fn the_teachers_head_turns_its_features_into_its_predictions() {
        for cut in [1, 2] {
            let config = CrossConfig { min_score: 0.0, ..toml::from_str(&format!("cut = {cut}")).unwrap() };
            let cross = Cross::new(config.clone(), &Student::load(&peregrine_support::lite()).unwrap()).unwrap();
            let value = |student, teacher| cross.loss(&inputs(&config, student, teacher)).unwrap().value();
            assert!(value(1, 1).unwrap().abs() < 1e-4, "cut {cut}: {:?}", value(1, 1));
            assert!(value(2, 1).unwrap() > 1e-3, "cut {cut}: {:?}", value(2, 1));
        }
    }

    #[test]
    fn the_loss_is_that_of_the_students_features_after_the_head() {
        // The student's weights are the teacher's, so that the head turns its features into its own
        // predictions.
        let config = CrossConfig { min_score: 0.0, ..toml::from_str("temperature = 2.0\nsides = 0.5").unwrap() };
        let inputs = inputs(&config, 2, 1);
        let (student, teacher, alone) = (&inputs.student, &inputs.teacher, Ranks::alone());
        let classes = kd::focused(&student.class, &teacher.class, 2.0, 1.0, &alone).unwrap();
        let boxes = ld::localisation(&student.box_distribution, teacher, 2.0, 0.0, &alone).unwrap();
        let [classes, boxes] = [classes, boxes].map(|t| t.value().unwrap());
        let loss = Cross::new(config, &Student::load(&peregrine_support::lite()).unwrap())
            .unwrap()
            .loss(&inputs)
            .unwrap()
            .value()
            .unwrap();
        let expected = classes + 0.5 * boxes;
        assert!((loss - expected).abs() < 1e-3 * (1.0 + expected), "{loss}, not {expected}");
    }

    #[test]
    fn gradients_through_the_teachers_head_agree_with_differences() {
        let config: CrossConfig = toml::from_str("temperature = 2.0").unwrap();
        let cross = Cross::new(config.clone(), &Student::load(&peregrine_support::lite()).unwrap()).unwrap();
        let name = config.layer(32);
        let features = inputs(&config, 2, 1).student.layers[&name].clone();
        let shape = features.dims().to_vec();
        let values = features.values().unwrap();
        let inputs = std::cell::RefCell::new(inputs(&config, 2, 1));
        // A small step: the head's activations have kinks.
        check::gradient_by(2e-3, &values, (1, values.len()), |x| {
            let mut inputs = inputs.borrow_mut();
            inputs.student.layers.insert(name.clone(), x.reshape(&shape)?);
            cross.loss(&inputs)
        });
    }

    #[test]
    fn a_cut_beyond_the_head_is_refused() {
        let config: CrossConfig = toml::from_str("cut = 3").unwrap();
        assert!(Cross::new(config, &Student::load(&peregrine_support::lite()).unwrap())
            .err()
            .unwrap()
            .contains("cut is 3"));
    }
}
