//! General distillation by Pearson correlation, PKD (Cao et al. 2022, eq. 4).

use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::{pyramid, sum_over_layers, zero, Method};
use crate::tensor::{Result, Tensor};

/// `½ · mean (ŝ − t̂)²` over each layer, summed over layers, every channel being standardised to
/// mean 0 and deviation 1 over the valid pixels of the batch. That is one minus the correlation:
/// magnitudes do not have to match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pkd {
    #[serde(default = "pyramid")]
    pub layers: Vec<String>,
}

impl Method for Pkd {
    fn layers(&self) -> Vec<String> {
        self.layers.clone()
    }

    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor> {
        let ranks = &inputs.ranks;
        let loss = sum_over_layers(inputs, &self.layers, |student, teacher, valid| {
            let (student, teacher) = (ranks.gather_images(student)?, ranks.gather_images(teacher)?);
            let valid = valid.map(|valid| ranks.gather_flags(valid));
            let rows = |layer: &Tensor| layer.transpose(0, 1)?.flatten_from(1);
            let (student, teacher) = (rows(&student)?, rows(&teacher)?);
            let Some(pixels) = Pixels::new(student.dim(1)?, valid.as_deref())? else { return zero() };
            let gap = (pixels.normalise(&student)? - pixels.normalise(&teacher)?)?;
            pixels.mean(&gap.sqr()?)?.mean_all()? * 0.5
        })?;
        ranks.once(loss)
    }
}

/// The pixels that count.
struct Pixels {
    /// `[1, pixels]`: 1 for those that do, else 0; `None` if all do.
    counted: Option<Tensor>,
    count: f64,
}

impl Pixels {
    /// `None` if no pixel counts.
    fn new(pixels: usize, valid: Option<&[bool]>) -> Result<Option<Self>> {
        let Some(valid) = valid else { return Ok(Some(Self { counted: None, count: pixels as f64 })) };
        let count = valid.iter().filter(|&&valid| valid).count();
        let counted = Tensor::vector(valid.iter().map(|&valid| f32::from(u8::from(valid))))?.unsqueeze(0)?;
        Ok((count > 0).then_some(Self { counted: Some(counted), count: count as f64 }))
    }

    /// Zeros for the pixels that do not count.
    fn alone(&self, rows: &Tensor) -> Result<Tensor> {
        self.counted.as_ref().map_or_else(|| Ok(rows.clone()), |counted| rows.broadcast_mul(counted))
    }

    /// Of each row, `[rows, 1]`.
    fn mean(&self, rows: &Tensor) -> Result<Tensor> {
        self.alone(rows)?.sum_keepdim(1)? / self.count
    }

    /// `rows` `[channels, pixels]`, each standardised to mean 0 and deviation 1.
    fn normalise(&self, rows: &Tensor) -> Result<Tensor> {
        let centred = rows.broadcast_sub(&self.mean(rows)?)?;
        let deviation = (self.mean(&centred.sqr()?)? + 1e-6)?.sqrt()?;
        centred.broadcast_div(&deviation)
    }
}
