//! Folders that one program at a time writes to.

use std::fs::File;
use std::path::Path;

use anyhow::Context;

/// Holds `folder`, which must be there, against a second program that asks for it, for as long as the file lives.
///
/// # Errors
/// When another one has it, `whose` work it then is (`another training`), or the folder cannot be written to.
pub fn lock(folder: &Path, whose: &str) -> anyhow::Result<File> {
    let path = folder.join(".lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    file.try_lock().with_context(|| format!("{}: {whose} is at work in this folder", folder.display()))?;
    Ok(file)
}
