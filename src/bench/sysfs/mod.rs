//! What Linux tells in the files of `/sys`, `/proc`, `/etc` and `/var`, read below a [`Root`]: that of this machine,
//! or a tree recorded elsewhere. `None` is what a file does not tell: a kernel or a virtual machine may lack any.
//!
//! - [`cpu`]: clocks, idle states, throttling. [`thermal`]: zones and cooling devices. [`jetson`]: NVIDIA's boards.
//! - [`list`]: lists of CPUs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

pub mod cpu;
pub mod jetson;
pub mod list;
pub mod thermal;
#[cfg(test)]
pub mod trees;

/// Bytes of a file that are read at most: `/proc/interrupts` of a hundred CPUs has fewer.
const MAX_BYTES: u64 = 1 << 20;

/// The folder below which files are read.
#[derive(Debug)]
pub struct Root {
    folder: PathBuf,
    /// What was read, by path.
    kept: Option<RefCell<BTreeMap<String, String>>>,
}

impl Root {
    /// This machine's.
    pub fn system() -> Self {
        Self::at(Path::new("/"))
    }

    /// A tree that was recorded on another machine.
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), kept: None }
    }

    /// The same, which keeps what is read.
    pub fn keeping(self) -> Self {
        Self { kept: Some(RefCell::default()), ..self }
    }

    /// The texts of all files that were read, by path, if they were kept: a recorded tree.
    pub fn into_files(self) -> BTreeMap<String, String> {
        self.kept.map(RefCell::into_inner).unwrap_or_default()
    }

    /// The whole text of a file, without invalid characters, NUL at its end or more than 1 MiB.
    pub fn text(&self, path: &str) -> Option<String> {
        let text = self.read(path)?;
        if let Some(kept) = &self.kept {
            kept.borrow_mut().insert(path.to_owned(), text.clone());
        }
        Some(text)
    }

    fn read(&self, path: &str) -> Option<String> {
        let (path, mut bytes) = (self.folder.join(path), Vec::new());
        // A pipe or a device would be waited for.
        let is_file = fs::metadata(&path).is_ok_and(|file| file.is_file());
        File::open(path).ok().filter(|_| is_file)?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
    }

    /// The first line of a file, trimmed. `None` if it is empty.
    pub fn line(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        text.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
    }

    /// The number in the first line of a file.
    pub fn number(&self, path: &str) -> Option<i64> {
        self.line(path)?.parse().ok()
    }

    /// The same of what cannot be negative.
    pub fn count(&self, path: &str) -> Option<u64> {
        self.line(path)?.parse().ok()
    }

    /// Whether a program of that name runs: at most the 15 characters that the kernel keeps.
    pub fn runs(&self, program: &str) -> bool {
        let mut names = self.numbered("proc", "").into_iter().map(|(_, process)| format!("proc/{process}/comm"));
        // Of the other programs nothing is kept.
        let found = names.find(|path| self.read(path).is_some_and(|name| name.trim() == program));
        found.is_some_and(|path| self.text(&path).is_some())
    }

    /// The names in a folder that are `prefix` and a number, with the number, in its order.
    pub fn numbered(&self, folder: &str, prefix: &str) -> Vec<(u32, String)> {
        let number = |name: &str| name.strip_prefix(prefix)?.parse().ok();
        let mut found: Vec<_> =
            self.names(folder).into_iter().filter_map(|name| Some((number(&name)?, name))).collect();
        found.sort_unstable();
        found
    }

    /// The names in a folder, sorted; none if it cannot be read.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder.join(folder)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_lines_and_numbers_and_none_is_what_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("number"), " -12 \nmore\n").unwrap();
        fs::write(folder.path().join("model"), b"Board \xff\0").unwrap();
        fs::write(folder.path().join("empty"), "\n").unwrap();
        for name in ["cpu1", "cpu10", "cpu2", "cpufreq"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let root = Root::at(folder.path()).keeping();
        assert_eq!((root.number("number"), root.count("number")), (Some(-12), None));
        assert_eq!((root.line("empty"), root.line("cpu1"), root.line("absent")), (None, None, None));
        assert_eq!(root.text("model").as_deref(), Some("Board \u{fffd}"));
        assert_eq!(root.numbered("", "cpu").iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 10]);
        assert!(root.names("absent").is_empty() && !root.runs("chronyd"));
        assert_eq!(root.into_files().into_keys().collect::<Vec<_>>(), ["empty", "model", "number"]);
    }
}
