//! A peer in a process of its own, which measures its own time, without the pipe.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::time::Duration;

use anyhow::{bail, ensure, Context as _};

use super::PeerKind;

/// What the Python runs.
const SCRIPT: &str = include_str!("serve.py");

/// Longer than any peer takes to load a network, or to run a frame on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The time of one inference, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    pub wall: u64,
    /// CPU time of all threads of the process.
    pub cpu: u64,
}

/// How a peer runs.
pub struct PeerOptions<'a> {
    pub threads: usize,
    /// The network's input, pixels.
    pub size: (usize, usize),
    /// The image: planar, `[3, height, width]`.
    pub image: &'a [f32],
}

/// A peer with its network loaded.
pub struct PeerProcess {
    /// Engine and version.
    pub name: String,
    child: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
    folder: PathBuf,
}

/// Why one Python does not run the peer.
enum Unusable {
    /// The next Python may have what this one has not.
    Lacks(String),
    Fails(anyhow::Error),
}

impl PeerProcess {
    /// Starts the peer in the first Python that has its package: that of `PEREGRINE_PYTHON`, else `python3`. Its files
    /// go to `folder`.
    ///
    /// # Errors
    /// If there is no such Python, with the remedy, or the engine refuses the network.
    pub fn start(kind: PeerKind, file: &Path, options: &PeerOptions, folder: &Path) -> anyhow::Result<Self> {
        ensure!(file.is_file(), "there is no such file");
        fs::create_dir_all(folder)?;
        let script = folder.join("serve.py");
        fs::write(&script, SCRIPT)?;
        fs::write(folder.join("input.f32"), options.image.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
        let named = std::env::var_os("PEREGRINE_PYTHON").map(PathBuf::from);
        let mut tried = vec![];
        for python in named.into_iter().chain([PathBuf::from("python3")]) {
            let mut command = Command::new(&python);
            command.arg(&script).arg(kind.package()).arg(file).arg(options.threads.to_string()).arg(folder);
            command.args([options.size.0.to_string(), options.size.1.to_string()]);
            match Self::run(command, folder) {
                Ok(peer) => return Ok(peer),
                Err(Unusable::Lacks(what)) => tried.push(format!("{} {what}", python.display())),
                Err(Unusable::Fails(why)) => return Err(why),
            }
        }
        let package = kind.package();
        bail!(
            "{}: `python3 -m pip install {package} numpy`, or name a Python that has them in PEREGRINE_PYTHON",
            tried.join(", and ")
        )
    }

    fn run(mut command: Command, folder: &Path) -> Result<Self, Unusable> {
        let log = folder.join("log");
        let other = |error: std::io::Error| Unusable::Fails(error.into());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log).map_err(other)?);
        // SAFETY: prctl is async-signal-safe. The kernel ends the peer with this process, however that ends.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(|error| Unusable::Lacks(format!("cannot be started ({error})")))?;
        let (requests, stdout) = (child.stdin.take().expect("is piped"), child.stdout.take().expect("is piped"));
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut peer = Self { name: "the peer".into(), child, requests, answers, folder: folder.to_owned() };
        let line = match peer.answer() {
            Ok(line) => line,
            Err(_) => {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let last = said.lines().last().unwrap_or("it said nothing").to_owned();
                return Err(Unusable::Fails(anyhow::anyhow!("its Python ended before it was ready: {last}")));
            }
        };
        match line.split_once(' ') {
            Some(("ready", name)) => peer.name = name.to_owned(),
            Some(("missing", package)) => return Err(Unusable::Lacks(format!("has no package {package}"))),
            _ => {
                let why = line.strip_prefix("error ").unwrap_or(&line).to_owned();
                return Err(Unusable::Fails(anyhow::anyhow!("{why}")));
            }
        }
        Ok(peer)
    }

    /// Process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Runs one frame.
    ///
    /// # Errors
    /// If the process has ended or answers nonsense.
    pub fn frame(&mut self) -> anyhow::Result<Time> {
        let line = self.ask("run")?;
        let mut numbers = line.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(wall)), Some(Ok(cpu))) => Ok(Time { wall, cpu }),
            _ => bail!("{} answered {line:?}", self.name),
        }
    }

    /// All outputs, one after the other.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn outputs(&mut self) -> anyhow::Result<Vec<f32>> {
        let line = self.ask("outputs")?;
        ensure!(line == "done", "{} answered {line:?}", self.name);
        let bytes = fs::read(self.folder.join("outputs.f32"))?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn ask(&mut self, request: &str) -> anyhow::Result<String> {
        let sent = writeln!(self.requests, "{request}").and_then(|()| self.requests.flush());
        sent.with_context(|| format!("{} has ended", self.name))?;
        self.answer()
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        self.answers.recv_timeout(TIMEOUT).with_context(|| format!("{} gave no answer", self.name))
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
