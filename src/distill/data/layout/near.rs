//! Images near the file that names them, and label files beside images.

use std::collections::VecDeque;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::super::files::{has_ending, IMAGES};
use super::super::DataError;

/// How many of the named images are looked for in each folder.
const SAMPLED: usize = 64;
/// Folders that are looked through, at most.
const FOLDERS: usize = 4000;
/// How deep below each folder above the file.
const DEPTH: usize = 4;
/// Folders in which labels lie apart from their images: their parents are looked through as well.
/// Further up may lie anything.
const APART: [&str; 14] = [
    "annotations",
    "annotation",
    "labels",
    "label",
    "json",
    "train",
    "val",
    "valid",
    "test",
    "100k",
    "10k",
    "det_20",
    "det_v2_release",
    "det",
];

/// The folder, near the file `from`, in which the most of the images `names` lie.
///
/// # Errors
/// When none has any of them.
pub fn folder_of(from: &Path, names: &[&str]) -> Result<PathBuf, DataError> {
    let step = names.len().div_ceil(SAMPLED).max(1);
    let sampled: Vec<&str> = names.iter().step_by(step).copied().collect();
    let from = fs::canonicalize(from).unwrap_or_else(|_| from.to_owned());
    let count = |folder: &Path| sampled.iter().filter(|name| folder.join(name).is_file()).count();
    let mut best = (0, PathBuf::new());
    let mut budget = FOLDERS;
    for above in from.ancestors().skip(1) {
        let mut queue = VecDeque::from([(above.to_owned(), 0)]);
        while let Some((folder, depth)) = queue.pop_front() {
            let found = count(&folder);
            if found > best.0 {
                best = (found, folder.clone());
            }
            if best.0 == sampled.len() || budget == 0 {
                break;
            }
            budget -= 1;
            if depth < DEPTH {
                queue.extend(subfolders(&folder).into_iter().map(|sub| (sub, depth + 1)));
            }
        }
        // What lies nearer is meant, even if some of it is missing.
        if best.0 > 0 {
            return Ok(best.1);
        }
        let name = above.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !APART.contains(&name.to_lowercase().as_str()) {
            break;
        }
    }
    let first = names.first().copied().unwrap_or_default();
    let why = format!(
        "none of the {} images that it names, such as {first:?}, lies near it; put them into a folder beside it",
        names.len()
    );
    Err(DataError::Config { path: from, why })
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path());
    let mut folders: Vec<PathBuf> = folders.collect();
    folders.sort();
    folders
}

/// Whether `folder` has images and, beside them, files of that `ending` whose beginning satisfies
/// `is`.
pub fn beside(folder: &Path, ending: &str, is: impl Fn(&str) -> bool) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let (mut images, mut labels) = (false, false);
    for path in entries.flatten().map(|entry| entry.path()) {
        images |= has_ending(&path, &IMAGES);
        labels |= !labels && has_ending(&path, &[ending]) && is(&beginning(&path));
        if images && labels {
            return true;
        }
    }
    false
}

/// The first 64 KiB of a file, as far as they are text.
pub fn beginning(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(1 << 16).read_to_end(&mut bytes));
    read.map_or(String::new(), |_| String::from_utf8_lossy(&bytes).into_owned())
}
