//! A package and its 8-bit twin: what `distill quantize` made of it, in its folder `int8`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use peregrine_engine::cpu::int8::IntegerIsa;

use super::package::{PackageError, Student};

/// Name of the twin's folder in the package's folder.
pub const TWIN_FOLDER: &str = "int8";

/// In which arithmetic a student runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// In 8 bits where there is a twin and the processor has instructions (VNNI) that make it faster, else
    /// in floating point.
    #[default]
    Auto,
    /// In floating point.
    F32,
    /// In 8 bits: an error without a twin.
    Int8,
}

impl fmt::Display for Precision {
    /// As [`FromStr`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "int8" => Ok(Self::Int8),
            _ => Err(format!("invalid precision {text:?}: use auto, f32 or int8")),
        }
    }
}

impl Student {
    /// The arithmetic that it runs in, never [`Precision::Auto`].
    pub fn precision(&self) -> Precision {
        if self.quantization.is_some() {
            Precision::Int8
        } else {
            Precision::F32
        }
    }

    /// The package in `folder`, or the embedded one, for `precision`. `on_cpu`: whether the CPU is to
    /// compute it; a GPU computes floating point faster. With a `root`, only files that lie below it.
    ///
    /// A package that is in 8 bits itself has no twin: it is what [`Precision::Auto`] takes.
    ///
    /// # Errors
    /// When the package or its twin cannot be read, the twin is of other weights, or `precision` asks
    /// for what is not there.
    pub fn in_precision(
        folder: Option<&Path>,
        root: Option<&Path>,
        precision: Precision,
        on_cpu: bool,
    ) -> Result<Self, PackageError> {
        let student = folder.map_or_else(|| Ok(Self::embedded()), |folder| Self::load_within(folder, root))?;
        let at = folder.unwrap_or(Path::new("the embedded student"));
        let fault = |why: &str| Err(PackageError::Twin { path: at.to_owned(), why: why.into() });
        match (precision, student.quantization.is_some()) {
            (Precision::F32, true) => {
                return fault("is in 8 bits; precision f32 needs the package that it was made from")
            }
            (Precision::F32, false) | (_, true) => return Ok(student),
            _ => {}
        }
        // A stale twin is refused on every machine, not only where it would be used.
        let twin = match folder.map(|folder| folder.join(TWIN_FOLDER)) {
            None => Self::embedded_twin(),
            Some(folder) if folder.exists() => Self::load_within(&folder, root)?,
            _ if precision == Precision::Auto => return Ok(student),
            Some(_) => {
                let folder = at.display();
                return fault(&format!(
                    "has no 8-bit twin; make it: distill quantize --model {folder} --out {folder}/{TWIN_FOLDER}"
                ));
            }
        };
        twin.is_of(&student).map_err(|why| PackageError::Twin { path: at.join(TWIN_FOLDER), why })?;
        let is_taken =
            precision == Precision::Int8 || (on_cpu && IntegerIsa::best().is_faster_than_f32(&student.graph()));
        Ok(if is_taken { twin } else { student })
    }

    /// # Errors
    /// Why this is not the 8-bit twin of `student`.
    fn is_of(&self, student: &Self) -> Result<(), String> {
        let remedy = "quantize the package again (distill quantize), or choose precision f32";
        let Some(section) = &self.manifest.quantization else {
            return Err(format!("is not in 8 bits; {remedy}"));
        };
        if section.of.as_ref() != Some(&student.manifest.weights.sha256) {
            return Err(format!("was not made from the weights beside it; {remedy}"));
        }
        if self.manifest.architecture != student.manifest.architecture {
            return Err(format!("has another architecture than the package beside it; {remedy}"));
        }
        Ok(())
    }
}
