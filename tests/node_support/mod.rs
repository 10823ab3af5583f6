//! What the tests of the node as a program share.
#![allow(dead_code)]

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const NODE: &str = env!("CARGO_BIN_EXE_perception_node");

/// Generous, since the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether there is a ROS 2 to test with; says so if there is none.
pub fn ros_is_absent() -> bool {
    let absent = std::env::var_os("AMENT_PREFIX_PATH").is_none();
    if absent {
        eprintln!("skipped: there is no ROS 2 environment; run `. launch/setup/env.sh` first");
    }
    absent
}

/// A command in a ROS domain of its own that nothing outside this machine sees.
pub struct Domain(u32);

impl Domain {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // 1 to 101 are safe on Linux; the process number keeps test programs that run side by side apart.
        let offset = std::process::id().wrapping_mul(8) + NEXT.fetch_add(1, Ordering::Relaxed);
        Self(1 + offset % 101)
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("ROS_DOMAIN_ID", self.0.to_string()).env("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST");
        // Shared memory that holds the images; the file says why.
        let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("launch/fastdds.xml");
        command.env("FASTRTPS_DEFAULT_PROFILES_FILE", &profile).env("FASTDDS_DEFAULT_PROFILES_FILE", &profile);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts the node with `parameters` such as `score_threshold:=0.5`.
    pub fn start_node(&self, parameters: &[&str]) -> Node {
        let mut command = self.command(NODE);
        command.arg("--ros-args");
        for parameter in parameters {
            command.args(["-p", parameter]);
        }
        Node(command.spawn().expect("the node can be started"))
    }

    /// Runs a peer to its end and returns its answer.
    pub fn ask_peer(&self, script: &str, arguments: &[&str]) -> Value {
        let python = std::env::var("PEREGRINE_PYTHON").unwrap_or_else(|_| "python3".into());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peer").join(script);
        let output = self.command(python).arg(path).args(arguments).output().expect("Python can be started");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script} failed:\n{err}\n{out}");
        serde_json::from_str(out.lines().last().unwrap_or_default()).expect("the peer's last line is its answer")
    }
}

/// A running node; ended when dropped.
pub struct Node(pub Child);

impl Node {
    /// Sends `signal` and returns the exit code and what the node printed.
    pub fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let status = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(status.is_ok_and(|s| s.success()), "the node is still running");
        let give_up = Instant::now() + PATIENCE;
        while self.0.try_wait().expect("a child can be waited for").is_none() {
            assert!(Instant::now() < give_up, "the node does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut printed = String::new();
        let stdout = self.0.stdout.as_mut().expect("stdout is piped");
        stdout.read_to_string(&mut printed).expect("the node prints text");
        (self.0.wait().expect("it has ended").code(), printed)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn integer(value: &Value, key: &str) -> i64 {
    match &value[key] {
        Value::String(text) => text.parse().unwrap_or_else(|_| panic!("{key} is {text:?}")),
        number => number.as_i64().unwrap_or_else(|| panic!("{key} is {number}")),
    }
}
