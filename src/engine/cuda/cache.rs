//! What is kept on disk from one start to the next: compiled kernels and measured variants.
//!
//! Each file is named by a digest of all that it depends on, begins with a digest of its content,
//! and is written under another name first: so a file that is found is either whole or ignored.

use std::path::{Path, PathBuf};

use peregrine_core::files::write_atomically;
use sha2::{Digest, Sha256};

/// `$PEREGRINE_CUDA_CACHE`, else `peregrine/cuda` in the user's cache; `None` if neither is known.
pub fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("PEREGRINE_CUDA_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("peregrine/cuda")))
        .or_else(|| set("HOME").map(|p| p.join(".cache/peregrine/cuda")))
}

/// A file's name for `kind` and all that its content depends on.
pub fn key(kind: &str, depends_on: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in depends_on {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    format!("{kind}-{}", hex(&digest.finalize()[..12]))
}

/// The content of `key` in `folder`; `None` if it is absent or damaged.
pub fn load(folder: &Path, key: &str) -> Option<Vec<u8>> {
    let bytes = std::fs::read(folder.join(key)).ok()?;
    let (digest, content) = bytes.split_at_checked(32)?;
    (Sha256::digest(content).as_slice() == digest).then(|| content.to_vec())
}

/// Keeps `content` as `key` in `folder`. A folder that cannot be written to only makes the next
/// start slower, so that this does not fail.
pub fn store(folder: &Path, key: &str, content: &[u8]) {
    let mut bytes = Sha256::digest(content).to_vec();
    bytes.extend_from_slice(content);
    if std::fs::create_dir_all(folder).is_ok() {
        let _ = write_atomically(&folder.join(key), &bytes);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_found_and_damage_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let key = key("kernels", &["a", "b"]);
        assert_eq!(load(folder.path(), &key), None);
        store(folder.path(), &key, b"content");
        assert_eq!(load(folder.path(), &key).as_deref(), Some(b"content".as_slice()));
        let path = folder.path().join(&key);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 1);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(load(folder.path(), &key), None);
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(load(folder.path(), &key), None);
    }

    #[test]
    fn keys_differ_where_their_parts_do() {
        assert_ne!(key("k", &["ab", "c"]), key("k", &["a", "bc"]));
    }
}
