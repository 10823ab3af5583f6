//! An ablation as declared: a base configuration, and rows that each change something of it.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};
use serde::Deserialize;
use toml::{Table, Value};

use crate::distill::train::config::StudentConfig;

/// The file that `distill ablate` is given. Paths in it are relative to the current folder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ablation {
    pub title: String,
    /// What to know before reading the table: teacher, data, machine.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What every row starts from: the keys of a training configuration (see models/peregrine-s/train.toml).
    pub base: Table,
    pub seeds: Vec<u64>,
    /// The row that the others are compared with.
    pub reference: String,
    /// Labelled folders to judge by; never those trained on.
    pub evaluate: Vec<PathBuf>,
    #[serde(rename = "row")]
    pub rows: Vec<Row>,
}

/// One way to make a student.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Letters, digits and hyphens: it names the folder.
    pub name: String,
    #[serde(default)]
    pub note: String,
    /// Keys of the base to replace; tables are merged, everything else replaced.
    #[serde(default)]
    pub set: Table,
    /// Instead of a training: a command that turns another row's package into this one's.
    #[serde(default)]
    pub derive: Option<Derive>,
}

/// A `distill` command over another row's package.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derive {
    pub from: String,
    /// Arguments of `distill`; `{student}` stands for the other row's package, `{out}` for the folder of the new one.
    pub command: Vec<String>,
}

impl Ablation {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Names the file, and the row or field at fault.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// As [`read`](Self::read), from the text.
    ///
    /// # Errors
    /// Names the row or field at fault.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let ablation: Self = toml::from_str(text)?;
        ensure!(!ablation.seeds.is_empty(), "seeds must name at least one");
        ensure!(!ablation.evaluate.is_empty(), "evaluate must name at least one labelled folder");
        let named = |name: &str| ablation.rows.iter().filter(|r| r.name == name).count();
        ensure!(named(&ablation.reference) > 0, "reference = {:?} is not the name of a row", ablation.reference);
        for row in &ablation.rows {
            let name = &row.name;
            let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            ensure!(plain, "row {name:?}: a name consists of letters, digits and hyphens");
            ensure!(named(name) == 1, "row {name:?} is there twice");
            if let Some(derive) = &row.derive {
                let from = ablation.rows.iter().find(|r| r.name == derive.from);
                ensure!(from.is_some_and(|r| r.derive.is_none()), "row {name:?}: derive.from must name a trained row");
                ensure!(row.set.is_empty(), "row {name:?}: a derived row is not trained, so that set has no meaning");
            } else {
                ablation.student(row, ablation.seeds[0])?;
            }
        }
        Ok(ablation)
    }

    /// The training configuration of a row and seed.
    ///
    /// # Errors
    /// Names the row and the field at fault.
    pub fn student(&self, row: &Row, seed: u64) -> anyhow::Result<StudentConfig> {
        let at = || format!("row {:?}", row.name);
        let mut table = self.base.clone();
        merge(&mut table, &row.set);
        table.insert("seed".into(), Value::Integer(i64::try_from(seed).context("a seed must fit 63 bits")?));
        StudentConfig::parse(&toml::to_string(&table)?).with_context(at)
    }
}

/// Puts `over`'s keys into `base`; where both hold a table, those are merged.
fn merge(base: &mut Table, over: &Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            _ => drop(base.insert(key.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "
        title = 't'
        seeds = [3, 4]
        reference = 'alone'
        evaluate = ['val']
        [base]
        steps = 7
        [base.loss]
        alpha = 0.25
        temperature = 3.0
        [[base.data]]
        folder = 'train'
        share = 1.0
        [[row]]
        name = 'alone'
        [[row]]
        name = 'soft'
        set.loss.alpha = 0.75
        [[row]]
        name = 'small'
        derive = { from = 'soft', command = ['quantize', '{student}', '--out', '{out}'] }
    ";

    #[test]
    fn a_row_changes_what_it_names_and_nothing_else() {
        let ablation = Ablation::parse(TABLE).unwrap();
        let config = ablation.student(&ablation.rows[1], 4).unwrap();
        assert_eq!((config.seed, config.steps), (4, 7));
        assert_eq!((config.loss.alpha, config.loss.temperature), (0.75, 3.0));
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, named) in [
            ("reference = 'alone'", "reference = 'none'", "none"),
            ("name = 'soft'", "name = 'alone'", "twice"),
            ("alpha = 0.75", "alpha = 7.5", "loss.alpha"),
            ("from = 'soft'", "from = 'small'", "trained row"),
            ("name = 'soft'", "name = 'so/ft'", "so/ft"),
        ] {
            let error = format!("{:#}", Ablation::parse(&TABLE.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
