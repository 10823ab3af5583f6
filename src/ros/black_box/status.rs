//! What the black box has done, for the diagnostics.

use std::path::PathBuf;

use crate::clock::Nanoseconds;

/// See the module. Counts are since the node was configured.
#[derive(Debug, Clone, Default)]
pub struct Status {
    pub written: u64,
    pub last_file: Option<PathBuf>,
    pub failures: u64,
    /// Why the last attempt failed; `None` once one succeeds.
    pub problem: Option<String>,
    /// Misses and errors within `record_interval_s` of the last file.
    pub not_written: u64,
    /// Files that made room for newer ones.
    pub removed: u64,
    /// Frames that are in no file, since there was no time to compress them or no way to decode
    /// them.
    pub frames_lost: u64,
    /// What is in memory.
    pub span: Nanoseconds,
    pub bytes: usize,
    /// Whether memory holds less than `record_s`.
    pub is_cut: bool,
}

impl Status {
    /// As keys and values of a status.
    pub fn values(&self) -> Vec<(String, String)> {
        let last = self.last_file.as_ref().map_or("none".into(), |path| path.display().to_string());
        let short = if self.is_cut { ", limited by record_memory_mb or record_disk_mb" } else { "" };
        let holds = format!("{:.1} s, {:.1} MB{short}", self.span as f64 / 1e9, self.bytes as f64 / 1e6);
        [
            ("black_box_holds", holds),
            ("black_box_files_written", self.written.to_string()),
            ("black_box_last_file", last),
            ("black_box_failures", self.failures.to_string()),
            ("black_box_problem", self.problem.clone().unwrap_or_else(|| "none".into())),
            ("black_box_not_written_within_interval", self.not_written.to_string()),
            ("black_box_old_files_removed", self.removed.to_string()),
            ("black_box_frames_lost", self.frames_lost.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
    }
}
