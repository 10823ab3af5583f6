//! The folder that ROS insists on for log files, although this node writes none there.
//!
//! `rcl` opens a file in it at start, and refuses to start where it cannot: without HOME, as under
//! systemd, or in a container whose file system is read-only.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::NodeError;

/// With it, ROS opens no file.
const WITHOUT: &str = "--disable-external-lib-logs";

/// Why ROS cannot write its log files, with the remedy; `None` if it can.
pub fn problem() -> Option<String> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    problem_of(variable("ROS_LOG_DIR"), variable("ROS_HOME"), variable("HOME"))
}

/// By the rules of `rcl_logging_interface`: ROS_LOG_DIR, or `log` in ROS_HOME, or `.ros/log` in HOME.
fn problem_of(log: Option<OsString>, ros_home: Option<OsString>, home: Option<OsString>) -> Option<String> {
    let remedy = "set ROS_LOG_DIR to a folder that this user may write to";
    let (folder, from) = match (&log, &ros_home, &home) {
        (Some(log), ..) => (PathBuf::from(log), "ROS_LOG_DIR"),
        (None, Some(ros_home), _) => (Path::new(ros_home).join("log"), "ROS_HOME"),
        (None, None, Some(home)) => (Path::new(home).join(".ros/log"), "HOME"),
        (None, None, None) => {
            return Some(format!("none of HOME, ROS_HOME and ROS_LOG_DIR is set; {remedy}"));
        }
    };
    let folder = match (folder.strip_prefix("~"), &home) {
        (Ok(rest), Some(home)) => Path::new(home).join(rest),
        (Ok(_), None) => return Some(format!("{from} begins with ~, and HOME is not set; {remedy}")),
        (Err(_), _) => folder,
    };
    let error = try_to_write(&folder).err()?;
    Some(format!("{} (by {from}) cannot be written: {error}; {remedy}", folder.display()))
}

fn try_to_write(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let probe = folder.join(format!(".peregrine-{}", std::process::id()));
    fs::write(&probe, [])?;
    fs::remove_file(&probe)
}

/// Whether ROS was told to open no file.
fn is_off() -> bool {
    std::env::args_os().any(|argument| argument == WITHOUT)
}

/// Starts the program anew, as the same process, without ROS's log files if it cannot write them:
/// whether it does is decided by its arguments alone. Says so once it has.
///
/// # Errors
/// When the program cannot be started anew.
pub fn do_without() -> Result<(), NodeError> {
    if is_off() {
        return Ok(());
    }
    let Some(why) = problem() else { return Ok(()) };
    let mut anew = Command::new(std::env::current_exe()?);
    anew.args(std::env::args_os().skip(1)).args(["--ros-args", WITHOUT]);
    // Returns only if it fails.
    Err(NodeError::LogDirectory(format!("{why} ({})", anew.exec())))
}

/// Logs that there are no log files, and why.
pub fn tell() {
    if !is_off() {
        return;
    }
    if let Some(why) = problem() {
        tracing::warn!("ROS writes no log files: {why}. The log goes to the terminal and to /rosout as always");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(log: Option<&Path>, ros_home: Option<&Path>, home: Option<&Path>) -> Option<String> {
        let text = |path: Option<&Path>| path.map(|path| path.as_os_str().to_owned());
        problem_of(text(log), text(ros_home), text(home))
    }

    #[test]
    fn the_folder_is_found_as_ros_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(of(Some(&at("logs/here")), Some(&at("x")), None), None);
        assert_eq!(of(None, Some(&at("ros")), Some(&at("y"))), None);
        assert_eq!(of(None, None, Some(&at("home"))), None);
        assert_eq!(of(Some(Path::new("~/own")), None, Some(&at("home"))), None);
        for made in ["logs/here", "ros/log", "home/.ros/log", "home/own"] {
            assert_eq!(fs::read_dir(at(made)).unwrap().count(), 0, "{made} is left empty");
        }
        assert!(!at("x").exists() && !at("y").exists());
    }

    #[test]
    fn what_cannot_be_written_is_told_with_the_variable_and_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, []).unwrap();
        let sentences = [
            (of(None, None, None), "none of HOME, ROS_HOME and ROS_LOG_DIR is set"),
            (of(Some(&file), None, None), "(by ROS_LOG_DIR) cannot be written"),
            (of(None, Some(&file), None), "(by ROS_HOME) cannot be written"),
            (of(None, None, Some(&file)), "(by HOME) cannot be written"),
            (of(Some(Path::new("~/own")), None, None), "ROS_LOG_DIR begins with ~, and HOME is not set"),
        ];
        for (sentence, reason) in sentences {
            let sentence = sentence.unwrap();
            assert!(sentence.contains(reason) && sentence.contains("set ROS_LOG_DIR to a folder"), "{sentence}");
        }
    }
}
