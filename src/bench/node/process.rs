//! The measured nodes: child processes, and their environment.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, Context as _};
use tempfile::TempDir;

use crate::system;

/// How long a node may take to shut down after SIGINT.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Configures Fast DDS with shared memory large enough for images.
const MIDDLEWARE_PROFILE: &str = include_str!("../../../launch/fastdds.xml");

/// Older and newer ROS 2 distributions read one or the other.
const PROFILE_VARIABLES: [&str; 2] = ["FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"];

/// A temporary folder for the files of a measurement.
///
/// # Errors
/// If it cannot be created.
pub fn temporary_folder() -> anyhow::Result<TempDir> {
    tempfile::Builder::new().prefix("peregrine-bench-").tempdir().context("temporary folder")
}

/// Sets the middleware's environment variables for this process and its children: shared memory for
/// images and, if `isolated`, a ROS domain of its own on this host. Variables that are set already
/// stay. Call it before other threads read the environment.
///
/// # Errors
/// If the middleware profile cannot be written to `folder`.
pub fn prepare_environment(folder: &Path, isolated: bool) -> anyhow::Result<()> {
    if PROFILE_VARIABLES.iter().all(|name| std::env::var_os(name).is_none()) {
        let path = folder.join("fastdds.xml");
        fs::write(&path, MIDDLEWARE_PROFILE)?;
        PROFILE_VARIABLES.iter().for_each(|name| std::env::set_var(name, &path));
    }
    if isolated && std::env::var_os("ROS_DOMAIN_ID").is_none() {
        std::env::set_var("ROS_DOMAIN_ID", (1 + std::process::id() % 101).to_string());
    }
    if isolated && std::env::var_os("ROS_AUTOMATIC_DISCOVERY_RANGE").is_none() {
        std::env::set_var("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST");
    }
    Ok(())
}

/// A running node, with all processes of its group; shut down when dropped.
pub struct NodeProcess {
    child: Child,
    program: PathBuf,
    log: PathBuf,
}

impl NodeProcess {
    /// Starts it with its output in the file `log`.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(program: &Path, arguments: &[impl AsRef<OsStr>], log: PathBuf) -> anyhow::Result<Self> {
        let output = File::create(&log)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        // In its own process group: Ctrl-C must not reach it directly.
        command.process_group(0);
        // SAFETY: prctl is async-signal-safe. The kernel ends the node with this process, however
        // that ends.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Self { child, program: program.to_owned(), log })
    }

    /// Starts a command line in a shell, as [`Self::start`] does a program.
    ///
    /// # Errors
    /// If there is no shell.
    pub fn start_line(line: &str, log: PathBuf) -> anyhow::Result<Self> {
        let mut started = Self::start(Path::new("/bin/sh"), &["-c", line], log)?;
        started.program = line.into();
        Ok(started)
    }

    /// IDs of its processes: those of its group, the largest first, since a launcher waits beside the node.
    pub fn ids(&self) -> Vec<u32> {
        let mut all = system::process_group(self.child.id());
        all.sort_by(|&a, &b| system::resident_mib(b).partial_cmp(&system::resident_mib(a)).unwrap_or(Ordering::Equal));
        if all.is_empty() {
            all.push(self.child.id());
        }
        all
    }

    /// # Errors
    /// If it has exited: with its last output.
    pub fn require_alive(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let printed = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = printed.lines().collect();
        let last = lines[lines.len().saturating_sub(8)..].join("\n  ");
        bail!("{} exited by itself ({status}); its last output:\n  {last}", self.program.display())
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let group = self.child.id() as libc::pid_t;
        // SAFETY: signals the group that this process has created, whose ID no other group has while it has a member.
        let signal = |number| unsafe { libc::kill(-group, number) } == 0;
        // What a shell started with `&` ignores SIGINT, so the second signal is not only for what hangs. What was killed
        // takes a moment too, and may not outlive this call.
        for number in [libc::SIGINT, libc::SIGKILL] {
            signal(number);
            let begun = Instant::now();
            while begun.elapsed() < SHUTDOWN_TIMEOUT {
                let ended = !matches!(self.child.try_wait(), Ok(None));
                if ended && system::process_group(self.child.id()).is_empty() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_ends_with_all_that_it_started() {
        let folder = temporary_folder().unwrap();
        let line = "sleep 300 & sleep 300; echo never";
        let process = NodeProcess::start_line(line, folder.path().join("log")).unwrap();
        let begun = Instant::now();
        while process.ids().len() < 3 && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let ids = process.ids();
        assert_eq!(ids.len(), 3, "the shell and two others");
        drop(process);
        assert!(ids.iter().all(|&id| system::process_group(id).is_empty()));
    }

    #[test]
    fn a_command_that_is_not_there_is_told_with_its_line() {
        let folder = temporary_folder().unwrap();
        let mut process = NodeProcess::start_line("no-such-command-here --option", folder.path().join("log")).unwrap();
        let begun = Instant::now();
        let error = loop {
            match process.require_alive() {
                Err(error) => break error.to_string(),
                Ok(()) => assert!(begun.elapsed() < Duration::from_secs(20)),
            }
        };
        assert!(error.starts_with("no-such-command-here --option exited by itself"), "{error}");
        assert!(error.contains("not found"), "{error}");
    }
}
