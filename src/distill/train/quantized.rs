//! Quantization-aware distillation: a training on the scales of a package that `distill quantize` wrote.

use std::path::Path;

use anyhow::{ensure, Context};
use peregrine_engine::Quantization;
use peregrine_student::{Architecture, Student};

use crate::net::fake::FakeQuantization;
use crate::net::NetParams;

/// The package whose scales are kept.
pub struct Quantized(Student);

impl Quantized {
    /// Loads the package in `folder`, for a student of `architecture` (at any input size).
    ///
    /// # Errors
    /// When it cannot be read, is not in 8 bits, or is another network.
    pub fn load(folder: &Path, architecture: &Architecture) -> anyhow::Result<Self> {
        let package = Student::load(folder)?;
        let at = || format!("quantized_as = {:?}", folder.display());
        ensure!(package.quantization.is_some(), "{}: is not in 8 bits; make one with distill quantize", at());
        let of = Architecture { input: architecture.input.clone(), ..package.manifest.architecture.clone() };
        ensure!(of == *architecture, "{}: another network than that of init, which it is to be made from", at());
        Ok(Self(package))
    }

    pub fn quantization(&self) -> &Quantization {
        self.0.quantization.as_ref().expect("checked when loaded")
    }

    /// Lets `params` start from the package's biases, which are corrected for what rounding does to the means.
    ///
    /// # Errors
    /// When a layer would be trained with batch-norm: `init` did not hold it.
    pub fn correct_biases(&self, params: &mut NetParams) -> anyhow::Result<()> {
        for conv in &mut params.convs {
            ensure!(conv.norm.is_none(), "init holds no weights for {}, and 8 bits need batch-norm folded", conv.name);
            if let Some(quantized) = self.quantization().convs.get(&conv.name) {
                conv.bias.value.clone_from(&quantized.bias);
            }
        }
        Ok(())
    }

    /// Puts the weights of `student` in 8 bits on the package's scales.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn apply(&self, student: &mut Student) -> anyhow::Result<()> {
        let fake = FakeQuantization::new(&student.graph(), self.quantization())?;
        let quantization = fake.quantization(&student.weights, &self.quantization().tensors);
        for (layer, conv) in &quantization.convs {
            student.weights.0.get_mut(layer).context("a quantized layer without weights")?.weight = conv.dequantized();
        }
        student.manifest.quantization.clone_from(&self.0.manifest.quantization);
        student.quantization = Some(quantization);
        Ok(())
    }
}
