//! `--student`: the student whose classes and input a command means.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use peregrine_student::{Architecture, Student};
use toml::{Table, Value};

use crate::train::config::StudentConfig;

/// Which student a command works for, where it takes no package of one.
#[derive(Debug, Clone, Default, Args)]
pub struct MeantStudent {
    /// The student whose classes are meant: the TOML file of its training (or of an ablation), or
    /// the folder of a package; by default the embedded student.
    #[arg(long = "student", value_name = "TRAIN.TOML|PACKAGE")]
    pub path: Option<PathBuf>,
}

impl MeantStudent {
    /// Its network.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub fn architecture(&self) -> anyhow::Result<Architecture> {
        match &self.path {
            None => Ok(Architecture::default_student()),
            Some(folder) if folder.is_dir() => Ok(Student::load(folder)?.manifest.architecture),
            Some(file) => of_training(file).with_context(|| format!("--student {}", file.display())),
        }
    }
}

/// The network of a training's file, of which nothing else need be complete.
fn of_training(file: &Path) -> anyhow::Result<Architecture> {
    let mut table: Table = toml::from_str(&std::fs::read_to_string(file)?)?;
    if let Some(Value::Table(base)) = table.remove("base") {
        table = base;
    }
    let config: StudentConfig = table.try_into()?;
    config.load_architecture()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Architecture, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let meant = MeantStudent { path: Some(file.path().to_owned()) };
        meant.architecture().map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn the_classes_are_those_of_the_training_s_file() {
        let table = "[student]\nclasses = ['cone', 'forklift']\ninput = [64, 96]\n";
        assert_eq!(of(table).unwrap().detection_classes(), ["cone", "forklift"]);
        assert_eq!(of(&format!("[base]\nsteps = 5\n{}", table.replace("[student", "[base.student"))), of(table));
        assert_eq!(of("steps = 5\n").unwrap(), Architecture::default_student());
        let error = of("[student]\nclasses = ['cone', 'cone']\n").unwrap_err();
        assert!(error.starts_with("--student ") && error.contains("names \"cone\" twice"), "{error}");
        assert!(of("[student]\nclass = ['cone']\n").unwrap_err().contains("unknown field `class`"));
    }
}
