//! The kind of a source, told from its content and never from its name alone.

use std::path::Path;

use anyhow::ensure;
use peregrine_recording::Recording;

use crate::data::Address;

/// The kind of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Labelled images.
    Data,
    /// A network in an ONNX file.
    Network,
    /// A bag, an MCAP file or a video.
    Recording,
}

impl Kind {
    /// Looks into `source`.
    ///
    /// # Errors
    /// When there is no such file or folder.
    pub fn of(source: &Path) -> anyhow::Result<Self> {
        // A data set may be named with its split.
        ensure!(Address::parse(source).path.exists(), "{}: no such file or folder", source.display());
        // An ONNX file has no signature; it begins with the number of its first field.
        let onnx = source.is_file() && source.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"));
        Ok(match () {
            () if onnx => Self::Network,
            () if Recording::is_one(source) => Self::Recording,
            () => Self::Data,
        })
    }
}
