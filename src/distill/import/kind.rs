//! The kind of a source, told from its content and never from its name alone.

use std::path::Path;

use anyhow::ensure;

/// The kind of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Labelled images.
    Data,
}

impl Kind {
    /// Looks into `source`.
    ///
    /// # Errors
    /// When there is no such file or folder.
    pub fn of(source: &Path) -> anyhow::Result<Self> {
        ensure!(source.exists(), "{}: no such file or folder", source.display());
        Ok(Self::Data)
    }
}
