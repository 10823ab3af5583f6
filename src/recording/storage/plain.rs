//! A file of a recording in its plain form: one that is compressed as a whole is unpacked first.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::Format;
use crate::error::RecordingError;
use crate::zstd::Zstd;

/// A `.mcap` or `.db3` file.
#[derive(Debug)]
pub struct Plain {
    /// As the user knows it.
    name: PathBuf,
    format: Format,
    /// Where its plain form lies if that is not `name`; removed with this.
    unpacked: Option<TempPath>,
    /// What could not be unpacked of it, as a sentence.
    pub loss: Option<String>,
}

impl Plain {
    /// Opens `path`. A file that ends in .zstd is unpacked into the folder for temporary files.
    ///
    /// # Errors
    /// When it is of no known format, cannot be read, or there is no room to unpack it.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let Some((format, compressed)) = Format::of(path) else {
            return Err(RecordingError::Invalid { path: path.to_owned(), why: "is no .mcap or .db3 file".into() });
        };
        let at = |source| RecordingError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(at)?;
        let mut plain = Self { name: path.to_owned(), format, unpacked: None, loss: None };
        if compressed {
            let (unpacked, loss) = unpack(file).map_err(|source| RecordingError::Unpack {
                path: path.to_owned(),
                folder: std::env::temp_dir(),
                source,
            })?;
            (plain.unpacked, plain.loss) = (Some(unpacked), loss);
        }
        Ok(plain)
    }

    pub fn name(&self) -> &Path {
        &self.name
    }

    pub fn path(&self) -> &Path {
        self.unpacked.as_deref().unwrap_or(&self.name)
    }

    pub fn kind(&self) -> Format {
        self.format
    }
}

/// As much of the file as can be decompressed, and what stopped it.
fn unpack(file: File) -> std::io::Result<(TempPath, Option<String>)> {
    let mut out = tempfile::Builder::new().prefix("peregrine-bag-").tempfile()?;
    let mut writer = BufWriter::new(out.as_file_mut());
    let mut decoder = Zstd::new(BufReader::new(file));
    let (mut block, mut loss) = (vec![0; 1 << 16], None);
    loop {
        match decoder.read(&mut block) {
            Ok(0) => break,
            Ok(bytes) => writer.write_all(&block[..bytes])?,
            Err(error) => {
                loss = Some(format!("is compressed and damaged ({error}): what lies behind the damage is lost"));
                break;
            }
        }
    }
    writer.flush()?;
    drop(writer);
    Ok((out.into_temp_path(), loss))
}
