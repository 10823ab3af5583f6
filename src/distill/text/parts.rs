//! A long computation's results, part by part: what an interrupted run finished is found again.

use std::path::{Path, PathBuf};

use anyhow::Context;
use peregrine_core::files::{sha256, write_atomically};
use tracing::warn;

/// A folder of finished parts. Each file is named by the hash of all that the part depends on, and
/// is written in one go.
pub(super) struct Parts<'a>(pub &'a Path);

/// A finished part.
pub(super) struct Part<T> {
    /// Its file's name.
    pub file: String,
    pub bytes: Vec<u8>,
    pub value: T,
}

impl Parts<'_> {
    /// The part that depends on what `inputs` says: read if an earlier run finished it, else made.
    /// One that cannot be read is made again.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn part<T>(
        &self,
        inputs: &str,
        read: impl Fn(&[u8]) -> anyhow::Result<T>,
        make: impl FnOnce() -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Part<T>> {
        let file = format!("{}.safetensors", &sha256(inputs.as_bytes())[..32]);
        let path = self.0.join(&file);
        if let Ok(bytes) = std::fs::read(&path) {
            match read(&bytes) {
                Ok(value) => return Ok(Part { file, bytes, value }),
                Err(error) => warn!("{}: is made again: {error:#}", path.display()),
            }
        }
        let bytes = make()?;
        write_atomically(&path, &bytes)?;
        let value = read(&bytes)?;
        Ok(Part { file, bytes, value })
    }

    /// Removes the files of parts but for those that `keep` names.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove_others(&self, keep: &[&str]) -> anyhow::Result<()> {
        for path in self.files()? {
            if !keep.iter().any(|name| path.ends_with(name)) {
                std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.0).with_context(|| self.0.display().to_string())?;
        let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        let is_part = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let hash = name.strip_suffix(".safetensors");
            hash.is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        Ok(paths.into_iter().filter(is_part).collect())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn read(bytes: &[u8]) -> anyhow::Result<String> {
        Ok(String::from_utf8(bytes.to_vec())?)
    }

    #[test]
    fn a_finished_part_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let parts = Parts(folder.path());
        assert!(parts.part("a", read, || bail!("killed")).is_err());
        let first = parts.part("a", read, || Ok(b"one".to_vec())).unwrap();
        let again = parts.part("a", read, || bail!("made twice")).unwrap();
        assert_eq!((first.file, first.value), (again.file.clone(), again.value));
        assert_eq!(parts.part("b", read, || Ok(b"two".to_vec())).unwrap().value, "two");
        std::fs::write(folder.path().join(&again.file), [0xff]).unwrap();
        assert_eq!(parts.part("a", read, || Ok(b"three".to_vec())).unwrap().value, "three");
        std::fs::write(folder.path().join("other.safetensors"), "not ours").unwrap();
        parts.remove_others(&[again.file.as_str()]).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        let mut expected = vec![again.file.as_str(), "other.safetensors"];
        expected.sort_unstable();
        assert_eq!(left, expected);
    }
}
