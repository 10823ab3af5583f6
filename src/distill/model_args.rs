//! The option of the commands that take a student as it is.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use peregrine_student::Student;

/// Which student a command is about.
#[derive(Debug, Clone, Default, Args)]
pub struct ModelArgs {
    /// Student package; the embedded one by default.
    #[arg(long)]
    pub model: Option<PathBuf>,
}

impl ModelArgs {
    /// The student.
    ///
    /// # Errors
    /// The package cannot be read, or is none.
    pub fn student(&self) -> Result<Student> {
        Ok(match &self.model {
            Some(folder) => Student::load(folder)?,
            None => Student::embedded(),
        })
    }
}
