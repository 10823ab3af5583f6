//! Atomic writing of files: a file is replaced whole or not at all; reading with a limit.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Why a file could not be read or written. The message names it.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}{}", remedy(.source))]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: std::io::Error,
}

impl FileError {
    /// An error of the file at `path`.
    pub fn new(path: &Path, source: std::io::Error) -> Self {
        Self { path: path.to_owned(), source }
    }
}

/// What to do about an error of the disk, as the end of its sentence; empty where there is nothing
/// to say.
fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "; make room there and give the command again: what it has written before is whole"
        }
        _ => "",
    }
}

/// The most bytes of a file that people write: descriptions and configurations.
pub const MAX_DESCRIPTION: u64 = 16 << 20;

/// The most bytes of a file that a program wrote and that is read whole, but for weights.
pub const MAX_RESULT: u64 = 1 << 30;

/// The most bytes of a file of weights, or of the state of a training.
pub const MAX_WEIGHTS_FILE: u64 = 16 << 30;

/// The bytes of a file or pipe of at most `limit` bytes: of a larger one no more is read, whatever the
/// system says of its length.
///
/// # Errors
/// When it cannot be read, or is larger.
pub fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let at = |source| FileError::new(path, source);
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes)).map_err(at)?;
    if bytes.len() as u64 > limit {
        let why = format!("it has more than the {limit} bytes that are read of such a file");
        return Err(at(std::io::Error::new(ErrorKind::FileTooLarge, why)));
    }
    Ok(bytes)
}

/// As [`read_at_most`], of UTF-8.
///
/// # Errors
/// As [`read_at_most`], and when it is not UTF-8.
pub fn read_text_at_most(path: &Path, limit: u64) -> Result<String, FileError> {
    let invalid = |_| FileError::new(path, std::io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"));
    String::from_utf8(read_at_most(path, limit)?).map_err(invalid)
}

/// Where a plain file lies once links are resolved: below `root`, if that is given.
///
/// # Errors
/// When it is not there, not a plain file (a pipe would be waited for, a device has no end), or lies
/// elsewhere.
pub fn plain_file_within(path: &Path, root: Option<&Path>) -> Result<PathBuf, FileError> {
    let at = |source| FileError::new(path, source);
    let refused = |kind, why: String| at(std::io::Error::new(kind, why));
    let found = fs::canonicalize(path).map_err(at)?;
    if let Some(root) = root {
        let root = fs::canonicalize(root).map_err(|source| FileError::new(root, source))?;
        if !found.starts_with(&root) {
            let why = format!("it leads to {}, which is outside {}", found.display(), root.display());
            return Err(refused(ErrorKind::PermissionDenied, why));
        }
    }
    if !fs::metadata(&found).map_err(at)?.is_file() {
        return Err(refused(ErrorKind::InvalidInput, "it is not a plain file".into()));
    }
    Ok(found)
}

/// Writes `bytes` to `path` under a temporary name in the same folder, syncs file and folder, and
/// renames it into place. A link keeps pointing where it does: the file behind it is replaced. What
/// is not a plain file (`/dev/null`, `/dev/stdout`, a pipe) is written to as it is, since a rename
/// would put a plain file in the device's place for the whole machine.
///
/// # Errors
/// When the folder cannot be written to; `path` then holds what it held before.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let at = |source| FileError::new(path, source);
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return fs::write(path, bytes).map_err(at);
    }
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    replace(&path, |file| file.write_all(bytes)).map_err(at)
}

/// Has `write` fill a new file under a temporary name (that of `path`, with an ending of its own and
/// `.tmp`), syncs file and folder, and renames it to `path`: for what is larger than memory should
/// hold at once.
///
/// # Errors
/// That of `write`, or when the folder cannot be written to; then nothing is left behind.
pub fn write_atomically_with(
    path: &Path,
    write: impl FnOnce(&mut fs::File) -> std::io::Result<()>,
) -> Result<(), FileError> {
    replace(path, write).map_err(|source| FileError::new(path, source))
}

fn replace(path: &Path, write: impl FnOnce(&mut fs::File) -> std::io::Result<()>) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!("{name}.");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    // As any new file, and not for its owner alone, as temporary files are.
    #[cfg(unix)]
    builder.permissions(<fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Has the folder itself reach the disk, without which a rename may be lost with the power.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    match fs::File::open(folder)?.sync_all() {
        // Some file systems cannot sync a folder; the file itself is safe there.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
