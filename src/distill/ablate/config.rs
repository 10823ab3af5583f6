//! The declaration of an ablation: a base configuration, and rows that each override parts of it.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};
use peregrine_core::files::{read_text_at_most, MAX_DESCRIPTION};
use serde::Deserialize;
use toml::{Table, Value};

use crate::train::config::StudentConfig;

/// The configuration file of `distill ablate`. Paths in it are relative to the current folder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ablation {
    pub title: String,
    /// Notes above the table: teacher, data, machine.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The training configuration that every row starts from (see models/peregrine-lite/train.toml).
    pub base: Table,
    pub seeds: Vec<u64>,
    /// The baseline row that the others are compared with.
    pub reference: String,
    /// Labelled folders to evaluate on; never those trained on.
    pub evaluate: Vec<PathBuf>,
    #[serde(rename = "row")]
    pub rows: Vec<AblationRow>,
}

/// One variant of the student.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AblationRow {
    /// Letters, digits and hyphens: also the folder's name.
    pub name: String,
    #[serde(default)]
    pub note: String,
    /// Keys of the base to override; tables are merged, everything else is replaced. `"{NAME}"`
    /// stands for the package of an earlier row NAME with the same seed: to fine-tune it, or to use
    /// it as teacher.
    #[serde(default)]
    pub set: Table,
    /// Instead of training: a command that derives this row's package from another's.
    #[serde(default)]
    pub derive: Option<Derive>,
}

/// A `distill` command that takes another row's package.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derive {
    pub from: String,
    /// Arguments of `distill`; `{student}` stands for the other row's package, `{out}` for the
    /// folder of the new one.
    pub command: Vec<String>,
}

impl AblationRow {
    /// The rows whose packages this one depends on.
    pub fn origins(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.derive.iter().map(|d| d.from.as_str()).collect();
        self.set.values().for_each(|value| references(value, &mut names));
        names
    }
}

impl Ablation {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Names the file, and the invalid row or field.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = read_text_at_most(path, MAX_DESCRIPTION)?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// As [`read`](Self::read), from the text.
    ///
    /// # Errors
    /// Names the invalid row or field.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let ablation: Self = toml::from_str(text)?;
        ensure!(!ablation.seeds.is_empty(), "seeds must have at least one element");
        ensure!(!ablation.evaluate.is_empty(), "evaluate must have at least one labelled folder");
        let named = |name: &str| ablation.rows.iter().filter(|r| r.name == name).count();
        ensure!(named(&ablation.reference) > 0, "reference = {:?} is not the name of a row", ablation.reference);
        for (i, row) in ablation.rows.iter().enumerate() {
            let name = &row.name;
            let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            ensure!(plain, "row {name:?}: a name must consist of letters, digits and hyphens");
            ensure!(named(name) == 1, "row {name:?} is declared twice");
            for origin in row.origins() {
                let above = ablation.rows[..i].iter().any(|r| r.name == origin);
                ensure!(above, "row {name:?}: {origin:?} is not the name of a row above it");
            }
            if row.derive.is_some() {
                ensure!(row.set.is_empty(), "row {name:?}: a derived row is not trained, so that set has no effect");
            } else {
                ablation.student(row, ablation.seeds[0], &|name| name.into())?;
            }
        }
        Ok(ablation)
    }

    /// The training configuration of a row and seed; `package` gives the path of a row's package.
    ///
    /// # Errors
    /// Names the row and the invalid field.
    pub fn student(
        &self,
        row: &AblationRow,
        seed: u64,
        package: &dyn Fn(&str) -> String,
    ) -> anyhow::Result<StudentConfig> {
        let at = || format!("row {:?}", row.name);
        let mut table = self.base.clone();
        let mut set = row.set.clone();
        set.iter_mut().for_each(|(_, value)| fill(value, package));
        merge(&mut table, &set);
        table.insert("seed".into(), Value::Integer(i64::try_from(seed).context("a seed must fit 63 bits")?));
        StudentConfig::parse(&toml::to_string(&table)?).with_context(at)
    }
}

/// Overrides keys of `base` by those of `over`; tables are merged.
fn merge(base: &mut Table, over: &Table) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            _ => drop(base.insert(key.clone(), value.clone())),
        }
    }
}

/// The name in `"{name}"`.
fn reference(value: &Value) -> Option<&str> {
    value.as_str()?.strip_prefix('{')?.strip_suffix('}')
}

fn references<'a>(value: &'a Value, names: &mut Vec<&'a str>) {
    match value {
        Value::Table(table) => table.values().for_each(|v| references(v, names)),
        Value::Array(array) => array.iter().for_each(|v| references(v, names)),
        _ => names.extend(reference(value)),
    }
}

/// Replaces each reference by the path of its package.
fn fill(value: &mut Value, package: &dyn Fn(&str) -> String) {
    match value {
        Value::Table(table) => table.iter_mut().for_each(|(_, v)| fill(v, package)),
        Value::Array(array) => array.iter_mut().for_each(|v| fill(v, package)),
        _ => {
            if let Some(name) = reference(value) {
                *value = Value::String(package(name));
            }
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
    fn a_row_overrides_only_its_own_keys() {
        let ablation = Ablation::parse(TABLE).unwrap();
        let config = ablation.student(&ablation.rows[1], 4, &|_| unreachable!()).unwrap();
        assert_eq!((config.seed, config.steps), (4, 7));
        assert_eq!((config.loss.alpha, config.loss.temperature), (0.75, 3.0));
    }

    #[test]
    fn a_row_may_use_the_packages_of_earlier_rows() {
        let tuned = "[[row]]\nname = 'tuned'\nset = { init = '{small}', teacher.package = '{soft}' }";
        let ablation = Ablation::parse(&format!("{TABLE}\n{tuned}")).unwrap();
        let row = ablation.rows.last().unwrap();
        assert_eq!(row.origins(), ["small", "soft"]);
        let config = ablation.student(row, 4, &|name| format!("at/{name}")).unwrap();
        assert_eq!(config.init.unwrap(), Path::new("at/small"));
        assert_eq!(config.teacher.unwrap().package.unwrap(), Path::new("at/soft"));
    }

    #[test]
    fn invalid_rows_and_fields_are_named() {
        for (from, to, named) in [
            ("reference = 'alone'", "reference = 'none'", "none"),
            ("name = 'soft'", "name = 'alone'", "twice"),
            ("alpha = 0.75", "alpha = 7.5", "loss.alpha"),
            ("from = 'soft'", "from = 'small'", "above"),
            ("set.loss.alpha = 0.75", "set.init = '{small}'", "above"),
            ("name = 'soft'", "name = 'so/ft'", "so/ft"),
        ] {
            let error = format!("{:#}", Ablation::parse(&TABLE.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
