//! Quantization-aware distillation: a training on the scales of a package that `distill quantize`
//! wrote.

use std::path::Path;

use anyhow::{ensure, Context};
use peregrine_engine::Quantization;
use peregrine_student::{Architecture, Student};

use crate::net::fake::FakeQuantization;
use crate::net::NetParams;

/// The package that gives the scales.
pub struct Quantized(Student);

impl Quantized {
    /// Loads the package in `folder`, for a student of `architecture` (at any input size).
    ///
    /// # Errors
    /// When it cannot be read, is not in 8 bits, or is another network.
    pub fn load(folder: &Path, architecture: &Architecture) -> anyhow::Result<Self> {
        let package = Student::load(folder)?;
        let at = || format!("quantized_as = {:?}", folder.display());
        ensure!(
            package.quantization.is_some(),
            "{}: is not in 8 bits; make such a package with distill quantize",
            at()
        );
        let of = Architecture { input: architecture.input.clone(), ..package.manifest.architecture.clone() };
        ensure!(of == *architecture, "{}: a network other than that of init, which it must be made from", at());
        Ok(Self(package))
    }

    pub fn quantization(&self) -> &Quantization {
        self.0.quantization.as_ref().expect("checked when loaded")
    }

    /// Sets the biases of `params` to the package's, which are corrected for the shift of the means
    /// by rounding.
    ///
    /// # Errors
    /// When a layer has batch-norm, because `init` did not hold it.
    pub fn correct_biases(&self, params: &mut NetParams) -> anyhow::Result<()> {
        for conv in &mut params.convs {
            ensure!(
                conv.norm.is_none(),
                "init holds no weights for {}, but training in 8 bits needs batch-norm folded",
                conv.name
            );
            if let Some(quantized) = self.quantization().convs.get(&conv.name) {
                conv.bias.value.clone_from(&quantized.bias);
            }
        }
        Ok(())
    }

    /// Quantizes the weights of `student` to 8 bits on the package's scales.
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
