//! Folders of a model: a manifest, and files whose hashes it names. Interrupted at any time, a
//! folder holds a complete package, this one or the previous one: new files have other names until
//! the manifest has their hashes.

use std::path::{Path, PathBuf};

use anyhow::Context;
use peregrine_core::files::write_atomically;

use super::read_checked;

/// Prefix of a file while its package replaces another.
const NEXT: &str = "next-";

/// Writes `manifest`, a name with its bytes, and the `files` whose hashes it has.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write(folder: &Path, manifest: (&str, &[u8]), files: &[(&str, &[u8])]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let next = |file: &str| folder.join(format!("{NEXT}{file}"));
    for (file, bytes) in files {
        write_atomically(&next(file), bytes)?;
    }
    write_atomically(&folder.join(manifest.0), manifest.1)?;
    for (file, _) in files {
        std::fs::rename(next(file), folder.join(file)).with_context(|| folder.join(file).display().to_string())?;
    }
    Ok(())
}

/// The bytes of a package's `file`, whose hash is in its manifest, and where they stand.
///
/// # Errors
/// When the file is missing or another one.
pub(super) fn read(folder: &Path, file: &str, sha256: &str) -> anyhow::Result<(Vec<u8>, PathBuf)> {
    // If writing was interrupted, a file may still have its other name.
    let (path, next) = (folder.join(file), folder.join(format!("{NEXT}{file}")));
    match read_checked(&next, sha256, "the manifest names") {
        Ok(bytes) => Ok((bytes, next)),
        Err(_) => Ok((read_checked(&path, sha256, "the manifest names")?, path)),
    }
}
