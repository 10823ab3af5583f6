//! The measured nodes: child processes, and their environment.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, Context as _};
use tempfile::TempDir;

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

/// A running node; shut down when dropped.
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

    /// Process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
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
        // SAFETY: the child has not been reaped, so that the ID is still its own.
        let interrupted = matches!(self.child.try_wait(), Ok(None))
            && unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) } == 0;
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
        while interrupted && Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
