//! The frames to select from: the images of folders.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};

use crate::data::Skipped;

/// File name extensions of images.
const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub path: PathBuf,
    /// Its file name; made unique among all frames, as the key of its labels.
    pub name: String,
}

/// The images of `folders`, each directly in it or in its `images/`, in the order of the folders and
/// of the file names; and what else lies beside them.
///
/// # Errors
/// When a folder cannot be read, or there is no image at all.
pub fn list(folders: &[PathBuf]) -> anyhow::Result<(Vec<Frame>, Vec<Skipped>)> {
    let (mut frames, mut skipped, mut names) = (Vec::new(), Vec::new(), HashSet::new());
    for folder in folders {
        let inner = folder.join("images");
        let folder = if inner.is_dir() { inner } else { folder.clone() };
        let at = || format!("{}: frames are the images of a folder", folder.display());
        let entries = std::fs::read_dir(&folder).with_context(at)?.collect::<Result<Vec<_>, _>>().with_context(at)?;
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match usable(&path) {
                Ok(name) => {
                    let name = unique(name, &names);
                    names.insert(name.clone());
                    frames.push(Frame { path, name });
                }
                Err(reason) => skipped.push(Skipped { path, reason: reason.into() }),
            }
        }
    }
    let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    ensure!(!frames.is_empty(), "{}: no image ({}) to select from", folders.join(", "), EXTENSIONS.join(", "));
    Ok((frames, skipped))
}

/// Its file name, or why it is no frame.
fn usable(path: &Path) -> Result<String, &'static str> {
    if path.is_dir() {
        return Err("a folder: give it as a further argument");
    }
    let name = path.file_name().and_then(|n| n.to_str()).ok_or("its name is not UTF-8: rename it")?;
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).unwrap_or_default();
    if !EXTENSIONS.contains(&extension.as_str()) {
        return Err("not a .jpg, .jpeg or .png image");
    }
    Ok(name.to_owned())
}

/// `name`, with a number before it if another frame has it already.
fn unique(name: String, taken: &HashSet<String>) -> String {
    if !taken.contains(&name) {
        return name;
    }
    (2..).map(|n| format!("{n}-{name}")).find(|numbered| !taken.contains(numbered)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_told_apart_and_other_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["a/images", "b"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join("1.jpg"), "").unwrap();
        }
        std::fs::write(dir.path().join("b/notes.txt"), "").unwrap();
        let (frames, skipped) = list(&[dir.path().join("a"), dir.path().join("b")]).unwrap();
        assert_eq!(frames.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["1.jpg", "2-1.jpg"]);
        assert_eq!(skipped.len(), 1);
        assert!(skipped[0].path.ends_with("b/notes.txt"), "{skipped:?}");
        let error = list(&[dir.path().join("a/images/none")]).unwrap_err().to_string();
        assert!(error.contains("none"), "{error}");
    }
}
