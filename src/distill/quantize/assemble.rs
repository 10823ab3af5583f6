//! A quantized student from calibration data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use peregrine_engine::quantization::{scale_groups, TensorScale};
use peregrine_engine::{Graph, Op, Quantization};
use peregrine_student::manifest::QuantizationSection;
use peregrine_student::Student;
use serde::{Deserialize, Serialize};

use super::calibrate::CalibrationMethod;
use super::observe::{observe, ActivationStatistics, Inputs};
use super::weights::{self, WeightScale};

/// How a student is quantized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizationSettings {
    pub activations: CalibrationMethod,
    pub weights: WeightScale,
    /// The largest quantized weight in magnitude, at most 127. Up to 64 enables AVX2's fastest
    /// multiplication.
    pub largest_weight: i8,
    pub bias_correction: bool,
    pub threads: usize,
}

impl Default for QuantizationSettings {
    fn default() -> Self {
        Self {
            activations: CalibrationMethod::Mse,
            weights: WeightScale::Mse,
            largest_weight: 64,
            bias_correction: true,
            threads: 2,
        }
    }
}

/// A student in f32 with the statistics of its activations, from which it can be quantized.
pub struct Calibrated<'a> {
    pub f32_student: &'a Student,
    pub graph: Graph,
    observed: Vec<ActivationStatistics>,
    settings: QuantizationSettings,
    tensors: BTreeMap<String, TensorScale>,
}

impl<'a> Calibrated<'a> {
    /// Collects statistics over `inputs`; calls `step` twice per input.
    ///
    /// # Errors
    /// When the student's weights do not fit it.
    pub fn new(
        f32_student: &'a Student,
        inputs: &Inputs,
        settings: &QuantizationSettings,
        step: &dyn Fn(),
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(f32_student.quantization.is_none(), "{} is already quantized", f32_student.manifest.name);
        let graph = f32_student.graph();
        let observed = observe(f32_student, &graph, inputs, settings.threads, step)?;
        let calibrator = settings.activations.calibrator();
        let mut ranges: Vec<_> = observed.iter().map(|o| calibrator.range(&o.histogram)).collect();
        for group in scale_groups(&graph) {
            let widest = group.iter().fold((0f32, 0f32), |w, &id| (w.0.min(ranges[id].0), w.1.max(ranges[id].1)));
            group.iter().for_each(|&id| ranges[id] = widest);
        }
        let scale = |(low, high)| TensorScale::spanning(low, high);
        let tensors = graph.layers.iter().map(|l| l.name.clone()).zip(ranges.into_iter().map(scale)).collect();
        Ok(Self { f32_student, graph, observed, settings: settings.clone(), tensors })
    }

    /// Names of the convolutions, in execution order.
    pub fn convs(&self) -> Vec<String> {
        self.graph.convs().map(|(layer, ..)| layer.name.clone()).collect()
    }

    /// The quantization with the convolutions in 8 bits for which `integer` is true.
    pub fn quantization(&self, integer: &dyn Fn(&str) -> bool) -> Quantization {
        let mut quantization = Quantization { tensors: self.tensors.clone(), ..Quantization::default() };
        for layer in &self.graph.layers {
            let Op::Conv(conv) = layer.op else { continue };
            if integer(&layer.name) {
                let means = self.settings.bias_correction.then(|| &*self.observed[layer.inputs[0]].means);
                let QuantizationSettings { weights: method, largest_weight, .. } = self.settings;
                let values = self.f32_student.weights.of(&layer.name);
                let quantized = weights::quantize(values, method, largest_weight, conv.depthwise, means);
                quantization.convs.insert(layer.name.clone(), quantized);
            }
        }
        quantization
    }

    /// The student with all layers except `float_layers` in 8 bits, without accuracy figures.
    pub fn student(&self, float_layers: &BTreeSet<String>, command: &str, data: BTreeMap<String, usize>) -> Student {
        let quantization = self.quantization(&|layer| !float_layers.contains(layer));
        let mut student = Student::clone(self.f32_student);
        for (layer, conv) in &quantization.convs {
            let values = student.weights.0.get_mut(layer).expect("was quantized from it");
            values.weight = conv.dequantized();
            values.bias.clone_from(&conv.bias);
        }
        let name = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        student.manifest.name = format!("{}-int8", self.f32_student.manifest.name);
        student.manifest.accuracy.clear();
        student.manifest.weights.cluster_bits = None;
        student.manifest.quantization = Some(QuantizationSection {
            command: command.to_owned(),
            of: Some(self.f32_student.manifest.weights.sha256.clone()),
            activations: name(serde_json::json!(self.settings.activations)),
            weights: name(serde_json::json!(self.settings.weights)),
            data,
            float_layers: float_layers.iter().cloned().collect(),
            tensors: quantization.tensors.clone(),
        });
        student.quantization = Some(quantization);
        student
    }
}

/// The student with all layers in 8 bits, calibrated on `images`, with the default settings.
///
/// # Errors
/// Names the invalid image.
pub fn quantize(student: &Student, images: &[PathBuf]) -> anyhow::Result<Student> {
    let inputs = Inputs::read(student, images)?;
    let calibrated = Calibrated::new(student, &inputs, &QuantizationSettings::default(), &|| ())?;
    let data = [("images".to_owned(), images.len())].into();
    Ok(calibrated.student(&BTreeSet::new(), "crate::quantize", data))
}
