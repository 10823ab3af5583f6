//! The folder of the recordings: their names, and the disk that they may take.
//!
//! Names begin with the node's, so that several nodes may share a folder; each removes its own
//! recordings only, the oldest first.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use std::{fs, io};

use peregrine_core::files::{write_atomically_with, FileError};

/// What every name begins with, before the node's.
const PREFIX: &str = "black_box_";

/// Ending of a recording.
const ENDING: &str = ".mcap";

/// See the module.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    /// Of names, up to the time.
    prefix: String,
    max_bytes: u64,
}

impl Folder {
    /// For the recordings of `node`, a full name, of which `max_bytes` may be in the folder at `path`.
    pub fn new(path: PathBuf, node: &str, max_bytes: u64) -> Self {
        let node = node.trim_start_matches('/').replace('/', "-");
        Self { path, prefix: format!("{PREFIX}{node}_"), max_bytes }
    }

    /// Makes the folder, and removes what a node that was killed in the middle has left. Whether a
    /// file can be written there.
    ///
    /// # Errors
    /// Why not.
    pub fn prepare(&self) -> Result<(), FileError> {
        let at = |source| FileError::new(&self.path, source);
        fs::create_dir_all(&self.path).map_err(at)?;
        for (name, path, _) in self.own().map_err(at)? {
            if !name.ends_with(ENDING) {
                let _ = fs::remove_file(path);
            }
        }
        let probe = self.path.join(format!("{}probe", self.prefix));
        write_atomically_with(&probe, |_| Ok(()))?;
        fs::remove_file(&probe).map_err(at)
    }

    /// Name of a recording made at a time since 1970 for a reason, such as `miss`.
    pub fn file(&self, at: Duration, reason: &str) -> PathBuf {
        self.path.join(format!("{}{}_{reason}{ENDING}", self.prefix, utc(at)))
    }

    /// Makes room for a recording of `bytes`: removes the oldest of this node's until they all fit.
    /// Returns how many were removed.
    ///
    /// # Errors
    /// When the folder cannot be read, or a recording not be removed.
    pub fn make_room(&self, bytes: u64) -> Result<u64, FileError> {
        let mut own = self.own().map_err(|source| FileError::new(&self.path, source))?;
        own.sort();
        let mut total = own.iter().map(|(.., bytes)| bytes).sum::<u64>().saturating_add(bytes);
        let mut removed = 0;
        for (_, path, bytes) in own {
            if total <= self.max_bytes {
                break;
            }
            fs::remove_file(&path).map_err(|source| FileError::new(&path, source))?;
            total = total.saturating_sub(bytes);
            removed += 1;
        }
        Ok(removed)
    }

    /// Name, path and size of each of this node's files, also of those that are half written.
    fn own(&self) -> io::Result<Vec<(String, PathBuf, u64)>> {
        let mut own = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_own = name.strip_prefix(&self.prefix).is_some_and(begins_with_time);
            let Ok(metadata) = entry.metadata() else { continue };
            if is_own && metadata.is_file() {
                own.push((name, entry.path(), metadata.len()));
            }
        }
        Ok(own)
    }
}

/// Whether a name goes on with a time, as only those of this node do: `/eye` and `/eye_2` begin
/// alike.
fn begins_with_time(rest: &str) -> bool {
    let pattern = b"dddd-dd-ddTdd-dd-dd.dddZ_";
    rest.len() > pattern.len()
        && rest.bytes().zip(pattern).all(|(byte, &wanted)| byte == wanted || (wanted == b'd' && byte.is_ascii_digit()))
}

/// Date and time in UTC, in a form that names of files may have: `2026-11-28T09-34-11.123Z`.
fn utc(at: Duration) -> String {
    let (days, second) = (at.as_secs() / 86_400, at.as_secs() % 86_400);
    let (year, month, day) = civil(days as i64);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{:03}Z", at.subsec_millis())
}

/// Year, month and day of a number of days since 1970 (Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Where recordings go unless a folder is given: with ROS's own files, `$ROS_HOME/black_box`.
pub fn default_folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".ros"));
    std::env::var_os("ROS_HOME").map(PathBuf::from).or_else(home).unwrap_or_else(std::env::temp_dir).join("black_box")
}

/// The time since 1970, by the system's clock.
pub fn system_time() -> Duration {
    UNIX_EPOCH.elapsed().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_node_time_and_reason() {
        let folder = Folder::new("/data".into(), "/car/eye", 1);
        // As `date -u` prints them.
        for (seconds, date) in [
            (0, "1970-01-01T00-00-00"),
            (951_782_400, "2000-02-29T00-00-00"),
            (1_709_164_799, "2024-02-28T23-59-59"),
            (1_796_000_000, "2026-11-30T00-53-20"),
            (4_102_444_800, "2100-01-01T00-00-00"),
        ] {
            let expected = format!("/data/black_box_car-eye_{date}.007Z_miss.mcap");
            assert_eq!(folder.file(Duration::new(seconds, 7_900_000), "miss"), Path::new(&expected));
        }
    }

    #[test]
    fn the_oldest_of_the_nodes_own_recordings_make_room() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().into(), "/eye", 1000);
        let others = ["black_box_eye_2_2026-11-28T09-34-11.123Z_miss.mcap", "black_box_eye_mine.mcap", "a.mcap"];
        others.iter().for_each(|name| fs::write(place.path().join(name), [0; 900]).unwrap());
        let own = [3, 1, 2].map(|second| folder.file(Duration::from_secs(second), "miss"));
        own.iter().for_each(|path| fs::write(path, [0; 300]).unwrap());
        assert_eq!(folder.make_room(100).unwrap(), 0);
        assert_eq!(folder.make_room(500).unwrap(), 2);
        let left = |path: &PathBuf| path.exists();
        assert_eq!(own.iter().map(left).collect::<Vec<_>>(), [true, false, false]);
        assert!(others.iter().all(|name| place.path().join(name).exists()), "what is not this node's stays");
    }

    #[test]
    fn what_a_killed_node_left_half_written_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::new(place.path().join("new"), "/eye", 1000);
        folder.prepare().unwrap();
        let whole = folder.file(Duration::from_secs(1), "error");
        let half = whole.with_extension("mcap.x7Yz.tmp");
        [&whole, &half].iter().for_each(|path| fs::write(path, [0; 3]).unwrap());
        folder.prepare().unwrap();
        assert!(whole.exists() && !half.exists());
        assert_eq!(fs::read_dir(place.path().join("new")).unwrap().count(), 1, "nothing else is left");
    }
}
