//! The artifacts that a run writes at each checkpoint: the package of the average so far, and the
//! curves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use peregrine_core::files::sha256;
use peregrine_student::manifest::{Manifest, Training, WeightsFile, FORMAT_VERSION};
use peregrine_student::package::WEIGHTS_FILE;
use peregrine_student::{Architecture, Student};

use super::config::StudentConfig;
use super::curves;
use super::quantized::Quantized;
use crate::net::NetParams;

/// What the artifacts are made of, and where they are written.
pub struct Artifacts<'a> {
    pub config: &'a StudentConfig,
    pub architecture: &'a Architecture,
    /// For a student in 8 bits.
    pub quantized: Option<&'a Quantized>,
    /// The manifest's record of the training; its steps are filled in at each checkpoint.
    pub training: Training,
    /// The package's folder.
    pub package: &'a Path,
    pub log: &'a Path,
    pub curves: &'a Path,
}

impl Artifacts<'_> {
    /// Writes the package of the folded `average` after `steps`, and draws the curves. If the
    /// package is there with the same weights already, it stays, with the figures that may have
    /// been recorded in it since.
    ///
    /// # Errors
    /// When a folder cannot be written to, or the student does not fit its quantization.
    pub fn write(&self, average: &NetParams, steps: u64) -> anyhow::Result<()> {
        let mut student = Student {
            manifest: Manifest {
                format_version: FORMAT_VERSION,
                name: self.config.name.clone(),
                architecture: self.architecture.clone(),
                weights: WeightsFile { file: WEIGHTS_FILE.into(), sha256: String::new(), cluster_bits: None },
                training: Training { steps, ..self.training.clone() },
                quantization: None,
                accuracy: BTreeMap::new(),
                notice: self.config.notice.clone(),
            },
            weights: average.fold(),
            quantization: None,
        };
        if let Some(quantized) = self.quantized {
            quantized.apply(&mut student)?;
        }
        let mut expected = student.manifest.clone();
        expected.weights.sha256 = sha256(&student.weights_file());
        let stays = Student::load(self.package).is_ok_and(|Student { manifest: found, .. }| {
            let (format_version, accuracy) = (expected.format_version, BTreeMap::new());
            Manifest { format_version, accuracy, ..found } == expected
        });
        if !stays {
            student.save(self.package)?;
        }
        let log = fs::read(self.log).with_context(|| self.log.display().to_string())?;
        Ok(curves::draw(&String::from_utf8_lossy(&log), self.curves)?)
    }
}
