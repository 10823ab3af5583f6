//! Distillation methods: small types behind one trait, put together in the configuration as `[[method]]` tables.
//!
//! - [`kd`], [`dkd`], [`dist`]: on a head's outputs, of detection classes or a pixel's.
//! - [`hint`], [`attention`], [`rkd`], [`pkd`], [`fgd`], [`cwd`]: on inner layers' tensors.
//! - [`ld`], [`cross`]: on the detection head: box distributions, and the teacher's head over the student's features.
//!
//! Each is checked against values of a PyTorch reference (tests/reference/distillation.py) and by finite differences.

pub mod attention;
pub mod cross;
pub mod cwd;
pub mod dist;
pub mod dkd;
pub mod fgd;
pub mod hint;
pub mod kd;
pub mod ld;
pub mod outputs;
pub mod pkd;
pub mod rkd;

#[cfg(test)]
mod reference;

use candle_core::{DType, Device, Result, Tensor};
use peregrine_student::Student;
use serde::{Deserialize, Serialize};

use super::scene::Scene;
use super::schedule::Schedule;

/// A distillation loss.
pub trait Method: Send {
    /// Inner layers whose tensors it compares, by name; the heads' outputs are always there.
    fn layers(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether those layers must be as wide in the student as in the teacher.
    fn needs_equal_width(&self) -> bool {
        true
    }

    /// The loss of one step, unweighted: a scalar.
    ///
    /// # Errors
    /// When candle fails.
    fn loss(&self, scene: &Scene) -> Result<Tensor>;
}

/// One `[[method]]` table: its weight, and the method that its `kind` names with the parameters it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodConfig {
    #[serde(default = "unit")]
    pub weight: Schedule,
    #[serde(flatten)]
    pub method: Kind,
}

/// The methods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    Kd(kd::Kd),
    Dkd(dkd::Dkd),
    Dist(dist::Dist),
    Hint(hint::Hint),
    Attention(attention::Attention),
    Rkd(rkd::Rkd),
    Ld(ld::Ld),
    Pkd(pkd::Pkd),
    Cross(cross::CrossConfig),
    Fgd(fgd::Fgd),
    Cwd(cwd::Cwd),
}

fn unit() -> Schedule {
    Schedule::Constant(1.0)
}

impl MethodConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// A sentence naming the field.
    pub fn check(&self) -> std::result::Result<(), String> {
        self.weight.check("weight", 0.0, 1e6)?;
        match &self.method {
            Kind::Kd(m) => m.check(),
            Kind::Dkd(m) => m.temperature.check("temperature", 0.05, 100.0),
            Kind::Dist(m) => m.temperature.check("temperature", 0.05, 100.0),
            Kind::Ld(m) => m.check(),
            Kind::Cwd(m) => m.temperature.check("temperature", 0.05, 100.0),
            Kind::Cross(m) => m.check(),
            Kind::Fgd(m) => m.check(),
            Kind::Hint(_) | Kind::Attention(_) | Kind::Rkd(_) | Kind::Pkd(_) => Ok(()),
        }
    }
}

impl Kind {
    /// The name in `kind`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kd(_) => "kd",
            Self::Dkd(_) => "dkd",
            Self::Dist(_) => "dist",
            Self::Hint(_) => "hint",
            Self::Attention(_) => "attention",
            Self::Rkd(_) => "rkd",
            Self::Ld(_) => "ld",
            Self::Pkd(_) => "pkd",
            Self::Cross(_) => "cross",
            Self::Fgd(_) => "fgd",
            Self::Cwd(_) => "cwd",
        }
    }

    /// Whether it takes over weights of a teacher, which must then be a package that stays as it is.
    pub fn needs_package(&self) -> bool {
        matches!(self, Self::Cross(_))
    }

    /// Whether the masks of soft targets are teacher enough: it compares segmentation logits alone, cell by cell.
    pub fn learns_from_masks(&self) -> bool {
        match self {
            Self::Kd(kd) => kd.on == outputs::Head::Segmentation,
            Self::Cwd(cwd) => cwd.layers.is_empty(),
            _ => false,
        }
    }

    /// The inner layers that are all it compares, so that features of soft targets are teacher enough; of another method
    /// none.
    pub fn learns_from_features(&self) -> &[String] {
        match self {
            Self::Hint(m) => &m.layers,
            Self::Attention(m) => &m.layers,
            Self::Rkd(m) => &m.layers,
            Self::Pkd(m) => &m.layers,
            Self::Fgd(m) => &m.layers,
            Self::Cwd(m) => &m.layers,
            Self::Kd(_) | Self::Dkd(_) | Self::Dist(_) | Self::Ld(_) | Self::Cross(_) => &[],
        }
    }

    /// The method, made ready for a teacher: a package, or none where it is the student's own average or soft
    /// targets.
    ///
    /// # Errors
    /// When it needs a part that the teacher lacks.
    pub fn build(&self, teacher: Option<&Student>) -> std::result::Result<Box<dyn Method>, String> {
        Ok(match self.clone() {
            Self::Kd(m) => Box::new(m),
            Self::Dkd(m) => Box::new(m),
            Self::Dist(m) => Box::new(m),
            Self::Hint(m) => Box::new(m),
            Self::Attention(m) => Box::new(m),
            Self::Rkd(m) => Box::new(m),
            Self::Ld(m) => Box::new(m),
            Self::Pkd(m) => Box::new(m),
            Self::Cross(m) => Box::new(cross::Cross::new(m, teacher.ok_or("method cross needs a package")?)?),
            Self::Fgd(m) => Box::new(m),
            Self::Cwd(m) => Box::new(m),
        })
    }
}

/// The pyramid levels' layers, finest first: what feature methods compare unless `layers` names others.
pub fn pyramid() -> Vec<String> {
    ["neck.8.add", "neck.16.add", "neck.32"].map(str::to_owned).into()
}

/// Adds up `of` the student's and the teacher's tensor of each layer; it is told, too, which cells of which images the
/// teacher sees, where those are not all.
fn sum_over_layers(
    scene: &Scene,
    layers: &[String],
    of: impl Fn(&Tensor, &Tensor, Option<&[bool]>) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut total: Option<Tensor> = None;
    for layer in layers {
        let sees = scene.layer_sees.get(layer).map(Vec::as_slice);
        let loss = of(&scene.student.layers[layer], &scene.teacher.layers[layer], sees)?;
        total = Some(match total {
            Some(total) => (total + loss)?,
            None => loss,
        });
    }
    total.map_or_else(zero, Ok)
}

/// The loss where there is nothing to compare.
fn zero() -> Result<Tensor> {
    Tensor::zeros((), DType::F32, &Device::Cpu)
}
