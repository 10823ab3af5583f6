//! Exclusive access to a folder, by one process at a time.

use std::fs::File;
use std::path::Path;

use anyhow::Context;

/// Locks the existing `folder` against other processes until the returned file is dropped. `holder`
/// describes the other process in the error (`another training`).
///
/// # Errors
/// When another process holds the lock, or the folder cannot be written to.
pub fn lock(folder: &Path, holder: &str) -> anyhow::Result<File> {
    let path = folder.join(".lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    file.try_lock().with_context(|| format!("{}: {holder} is using this folder", folder.display()))?;
    Ok(file)
}
