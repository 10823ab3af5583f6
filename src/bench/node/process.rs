//! The nodes that are measured: processes that this one starts and ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, Context as _};

/// How long a node may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Fast DDS with shared memory that holds images; the file says why.
const MIDDLEWARE_PROFILE: &str = include_str!("../../../launch/fastdds.xml");

/// Either name, by the distribution.
const PROFILE_VARIABLES: [&str; 2] = ["FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"];

/// The folder of this measurement's files; gone with it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// # Errors
    /// When the folder for temporary files cannot be written to.
    pub fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("peregrine-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Sets this process, and those that it starts, up for the middleware: shared memory for images and, unless a running
/// node is to be found, a domain of its own that nothing else disturbs. To be called while there is only one thread
/// that reads the environment. What the user has set stays.
///
/// # Errors
/// When the profile cannot be written.
pub fn prepare_environment(scratch: &Scratch, alone: bool) -> anyhow::Result<()> {
    if PROFILE_VARIABLES.iter().all(|name| std::env::var_os(name).is_none()) {
        let path = scratch.path("fastdds.xml");
        fs::write(&path, MIDDLEWARE_PROFILE)?;
        PROFILE_VARIABLES.iter().for_each(|name| std::env::set_var(name, &path));
    }
    if alone && std::env::var_os("ROS_DOMAIN_ID").is_none() {
        std::env::set_var("ROS_DOMAIN_ID", (1 + std::process::id() % 101).to_string());
    }
    if alone && std::env::var_os("ROS_AUTOMATIC_DISCOVERY_RANGE").is_none() {
        std::env::set_var("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST");
    }
    Ok(())
}

/// A node that was started; ended when dropped.
pub struct NodeProcess {
    child: Child,
    program: PathBuf,
    log: PathBuf,
}

impl NodeProcess {
    /// Starts it, with what it prints in a file `log`.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start(program: &Path, arguments: &[impl AsRef<OsStr>], log: PathBuf) -> anyhow::Result<Self> {
        let output = File::create(&log)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        // In a group of its own, so that Ctrl-C reaches it through this program alone.
        command.process_group(0);
        // SAFETY: a single system call, which may be made between fork and exec: the kernel ends the node with this
        // process, however that ends.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        Ok(Self { child, program: program.to_owned(), log })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// When it has ended by itself: with the end of what it printed.
    pub fn require_alive(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let printed = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = printed.lines().collect();
        let last = lines[lines.len().saturating_sub(8)..].join("\n  ");
        bail!("{} ended by itself ({status}); it said last:\n  {last}", self.program.display())
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // SAFETY: the child has not been waited for to its end, so that its number is still its own.
        let interrupted = matches!(self.child.try_wait(), Ok(None))
            && unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) } == 0;
        let give_up = Instant::now() + PATIENCE;
        while interrupted && Instant::now() < give_up {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
