//! Distillation methods: small types behind one trait, combined in the configuration as
//! `[[method]]` tables.
//!
//! - [`kd`], [`dkd`], [`dist`]: on a head's outputs, the logits of detection classes or of pixels.
//! - [`hint`], [`attention`], [`rkd`], [`pkd`], [`fgd`], [`cwd`]: on the tensors of inner layers.
//! - [`ld`], [`cross`]: on the detection head: box distributions, and the teacher's head on the
//!   student's features.
//!
//! Each is tested against a PyTorch reference (tests/reference/distillation.py) and by finite
//! differences.
//!
//! # To add a loss
//!
//! 1. A file here with a struct of its parameters (as TOML has them, with serde defaults) that
//!    implements [`Method`]. `hint.rs` is the smallest example on inner layers, `ld.rs` on the
//!    detection head. Its [`loss`](Method::loss) computes a scalar from [`DistillInputs`] with
//!    [`Tensor`], which differentiates it: read no value, since a GPU computes it later; treat the teacher's
//!    tensors as constants, and keep roots and logarithms away from zero. A mean over the batch is divided by what all ranks have
//!    ([`Ranks::total`](crate::ranks::Ranks::total)); a method that compares examples with each other
//!    gathers those of all (`rkd.rs`).
//! 2. A variant in [`MethodKind`], whose name in snake case is the `kind` in TOML; the compiler
//!    then names the matches to extend.
//! 3. The same formula in PyTorch in `tests/reference/distillation.py`, written from the paper; run
//!    it to update `distillation.json`. The tests in `reference.rs` then compare values and gradients
//!    of the new method without another line: `cargo test -p peregrine-distill --lib loss::`.
//!
//! The loss on labels is not a method: see [`detection`](super::detection) and
//! [`segmentation`](super::segmentation).

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
mod on_ranks;
#[cfg(test)]
pub(crate) mod reference;

use peregrine_student::Student;
use serde::{Deserialize, Serialize};

use super::inputs::DistillInputs;
use super::schedule::Schedule;
use crate::tensor::{Result, Tensor};

/// A distillation loss.
pub trait Method: Send {
    /// Names of the inner layers whose tensors it compares; the heads' outputs are always
    /// available.
    fn layers(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether those layers must have as many channels in the student as in the teacher.
    fn needs_equal_width(&self) -> bool {
        true
    }

    /// The loss of one step, unweighted: a scalar; with several [`ranks`](DistillInputs::ranks), this
    /// one's part of the sum that the loss of the whole batch is. Each rank must ask the others for
    /// the same, also one that has nothing to compare.
    ///
    /// # Errors
    /// When candle fails.
    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor>;
}

/// One `[[method]]` table: a weight, and the method that `kind` names, with its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodConfig {
    #[serde(default = "unit")]
    pub weight: Schedule,
    #[serde(flatten)]
    pub method: MethodKind,
}

/// The methods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MethodKind {
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
            MethodKind::Kd(m) => m.check(),
            MethodKind::Dkd(m) => m.temperature.check("temperature", 0.05, 100.0),
            MethodKind::Dist(m) => m.temperature.check("temperature", 0.05, 100.0),
            MethodKind::Ld(m) => m.check(),
            MethodKind::Cwd(m) => m.temperature.check("temperature", 0.05, 100.0),
            MethodKind::Cross(m) => m.check(),
            MethodKind::Fgd(m) => m.check(),
            MethodKind::Hint(_) | MethodKind::Attention(_) | MethodKind::Rkd(_) | MethodKind::Pkd(_) => Ok(()),
        }
    }
}

impl MethodKind {
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

    /// Whether it needs the teacher's weights, so that the teacher must be a package.
    pub fn needs_package(&self) -> bool {
        matches!(self, Self::Cross(_))
    }

    /// Whether it compares examples with one another, so that ranks must give each other theirs.
    pub fn compares_examples(&self) -> bool {
        match self {
            Self::Dkd(_) | Self::Dist(_) | Self::Rkd(_) | Self::Pkd(_) => true,
            Self::Kd(kd) => kd.on.is_scene(),
            _ => false,
        }
    }

    /// Whether it compares the outputs of the detection head, of the segmentation head, and of the
    /// scene head.
    pub fn needs_heads(&self) -> [bool; 3] {
        use outputs::Head::{Class, Segmentation};
        let on = |head: &outputs::Head| [*head == Class, *head == Segmentation, head.is_scene()];
        match self {
            Self::Kd(kd::Kd { on: head, .. })
            | Self::Dkd(dkd::Dkd { on: head, .. })
            | Self::Dist(dist::Dist { on: head, .. }) => on(head),
            Self::Ld(_) | Self::Cross(_) => on(&Class),
            Self::Cwd(m) if m.layers.is_empty() => on(&Segmentation),
            _ => [false; 3],
        }
    }

    /// The one group of scenes that it compares, if it names one.
    pub fn scene_group(&self) -> Option<&str> {
        match self {
            Self::Kd(kd::Kd { on: outputs::Head::Scene(group), .. })
            | Self::Dkd(dkd::Dkd { on: outputs::Head::Scene(group), .. })
            | Self::Dist(dist::Dist { on: outputs::Head::Scene(group), .. }) => group.as_deref(),
            _ => None,
        }
    }

    /// Whether it can learn from the masks of soft targets: it compares only segmentation logits,
    /// cell by cell.
    pub fn learns_from_masks(&self) -> bool {
        match self {
            Self::Kd(kd) => kd.on == outputs::Head::Segmentation,
            Self::Cwd(cwd) => cwd.layers.is_empty(),
            _ => false,
        }
    }

    /// Whether it compares only logits of scenes, so that it can learn from those of soft targets.
    pub fn learns_from_scenes(&self) -> bool {
        self.needs_heads() == [false, false, true]
    }

    /// The inner layers that it compares, if it compares nothing else, so that it can learn from
    /// the features of soft targets; else empty.
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

    /// The method for a teacher: a package, or `None` for the student's own average or soft
    /// targets.
    ///
    /// # Errors
    /// When the teacher lacks a part that it needs.
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

/// The layers of the pyramid levels, finest first: the default `layers` of feature methods.
pub fn pyramid() -> Vec<String> {
    ["neck.8.add", "neck.16.add", "neck.32"].map(str::to_owned).into()
}

/// The sum over `layers` of `loss_of` the student's and the teacher's tensor, and of which cells of
/// which images are valid (`None`: all).
fn sum_over_layers(
    inputs: &DistillInputs,
    layers: &[String],
    loss_of: impl Fn(&Tensor, &Tensor, Option<&[bool]>) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut total: Option<Tensor> = None;
    for layer in layers {
        let valid = inputs.layer_valid.get(layer).map(Vec::as_slice);
        let loss = loss_of(&inputs.student.layers[layer], &inputs.teacher.layers[layer], valid)?;
        total = Some(match total {
            Some(total) => (total + loss)?,
            None => loss,
        });
    }
    total.map_or_else(zero, Ok)
}

/// The sum of `loss_of` the rows of each distribution of `head`.
fn sum_over_rows(
    inputs: &DistillInputs,
    head: &outputs::Head,
    loss_of: impl Fn(outputs::Rows) -> Result<Tensor>,
) -> Result<Tensor> {
    let rows = outputs::categorical(inputs, head)?;
    inputs.ranks.once(rows.into_iter().map(loss_of).reduce(|a, b| a? + b?).unwrap_or_else(zero)?)
}

/// The loss if there is nothing to compare.
fn zero() -> Result<Tensor> {
    Ok(Tensor::scalar(0.0))
}
