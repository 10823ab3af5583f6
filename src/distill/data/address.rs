//! How a data set is named on a command line or in a configuration: `PATH`, `PATH:SPLIT`, and with
//! its description `PATH=CONFIG`: `my/data.yaml:val`, `data/vehicles/val=builtin:vehicles`. A path may be
//! that of an object store: `s3://bucket/my:val`.

use std::path::{Path, PathBuf};

use super::config::CONFIG_FILE;
use super::DataError;
use crate::store::{self, Store};

/// The parts of a data set's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The folder or file.
    pub path: PathBuf,
    /// One of its splits.
    pub split: Option<String>,
    /// The `dataset.toml` to use instead of the one found, or `builtin:NAME`.
    pub config: Option<PathBuf>,
}

impl Address {
    /// Takes a name apart. What is there as it stands is a path, even with `:` or `=` in its name.
    pub fn parse(name: &Path) -> Self {
        let plain = |path: &Path| Self { path: path.to_owned(), split: None, config: None };
        if store::is_address(name) {
            return Self::in_store(&name.to_string_lossy());
        }
        if name.exists() {
            return plain(name);
        }
        let text = name.to_string_lossy();
        for (at, _) in text.match_indices('=') {
            let (path, config) = (Path::new(&text[..at]), &text[at + 1..]);
            let address = Self::with_split(path);
            if let (Some(address), false) = (address, config.is_empty()) {
                return Self { config: Some(config.into()), ..address };
            }
        }
        Self::with_split(name).unwrap_or_else(|| plain(name))
    }

    fn with_split(name: &Path) -> Option<Self> {
        if name.exists() {
            return Some(Self { path: name.to_owned(), split: None, config: None });
        }
        let text = name.to_string_lossy();
        let (path, split) = text.rsplit_once(':')?;
        let there = Path::new(path).exists() && !split.is_empty();
        there.then(|| Self { path: path.into(), split: Some(split.to_owned()), config: None })
    }

    /// In an object store nothing is looked up: the first `=`, and before it the last `:`, divide.
    fn in_store(text: &str) -> Self {
        let (name, config) = match text.split_once('=') {
            Some((name, config)) if !config.is_empty() => (name, Some(config.into())),
            _ => (text, None),
        };
        match name.rsplit_once(':') {
            Some((path, split)) if !split.is_empty() && !split.starts_with("//") => {
                Self { path: path.into(), split: Some(split.to_owned()), config }
            }
            _ => Self { path: name.into(), split: None, config },
        }
    }

    /// With a path of this machine: what is in an object store is copied.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn here(self) -> Result<Self, DataError> {
        if !store::is_address(&self.path) {
            return Ok(self);
        }
        let copy = Store::open(&self.path).and_then(|store| store.copy(CONFIG_FILE));
        let path = copy.map_err(|error| DataError::Store { why: format!("{error:#}") })?;
        Ok(Self { path, ..self })
    }

    /// The path by which it is told from others: without links, or that of an object store as it
    /// stands.
    ///
    /// # Errors
    /// When there is no such file or folder.
    pub fn whole_path(&self) -> std::io::Result<PathBuf> {
        if store::is_address(&self.path) {
            return Ok(self.path.clone());
        }
        self.path.canonicalize()
    }

    /// The name that these parts make.
    pub fn of(&self) -> PathBuf {
        match &self.split {
            Some(split) => self.of_split(split),
            None => self.of_folder(&self.path),
        }
    }

    /// The name of another split of the same set.
    pub fn of_split(&self, split: &str) -> PathBuf {
        let config = self.config.as_ref().map_or(String::new(), |config| format!("={}", config.display()));
        PathBuf::from(format!("{}:{split}{config}", self.path.display()))
    }

    /// The name of a folder within the same set.
    pub fn of_folder(&self, folder: &Path) -> PathBuf {
        let config = self.config.as_ref().map_or(String::new(), |config| format!("={}", config.display()));
        PathBuf::from(format!("{}{config}", folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_split_and_description_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a=b:c");
        std::fs::create_dir(&odd).unwrap();
        let parse = |end: &str| {
            let Address { path, split, config } = Address::parse(Path::new(&format!("{}{end}", odd.display())));
            (path == odd, split, config.map(|c| c.display().to_string()))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parse(""), (true, None, None));
        assert_eq!(parse(":val"), (true, some("val"), None));
        assert_eq!(parse("=builtin:street"), (true, None, some("builtin:street")));
        assert_eq!(parse(":val=x.toml"), (true, some("val"), some("x.toml")));
        assert!(!parse("/missing").0);
    }

    #[test]
    fn an_address_of_an_object_store_has_the_same_parts() {
        let parse = |text: &str| {
            let Address { path, split, config } = Address::parse(Path::new(text));
            (path.display().to_string(), split, config.map(|c| c.display().to_string()))
        };
        let some = |text: &str| Some(text.to_owned());
        let path = || "s3://bucket/my/set".to_owned();
        assert_eq!(parse("s3://bucket/my/set"), (path(), None, None));
        assert_eq!(parse("s3://bucket/my/set:val"), (path(), some("val"), None));
        assert_eq!(parse("s3://bucket/my/set=builtin:street"), (path(), None, some("builtin:street")));
        assert_eq!(parse("s3://bucket/my/set:val=x.toml"), (path(), some("val"), some("x.toml")));
        assert_eq!(parse("s3://bucket").0, "s3://bucket");
    }
}
