//! What the end-to-end tests share: the node as a process, in a ROS domain of its own, and its
//! Python peers.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const NODE: &str = env!("CARGO_BIN_EXE_perception_node");

/// Longest time that the node may take to end; generous, since the machine may be busy.
const STOP_TIMEOUT: Duration = Duration::from_secs(120);

pub use peregrine_support::ros_is_absent;

/// A ROS domain for one test, which nothing outside this machine sees.
pub struct Domain {
    id: u32,
    _load: Load,
}

/// Tests run side by side, but for those whose answers depend on the load of the machine.
static MACHINE: RwLock<()> = RwLock::new(());

/// A test's use of the machine, until it is dropped.
#[allow(dead_code, reason = "held, and never read")]
enum Load {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Domain {
    /// For a test that does not depend on times.
    pub fn new() -> Self {
        Self::with(Load::Shared(MACHINE.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// For a test that runs while no other uses a domain.
    pub fn alone() -> Self {
        Self::with(Load::Alone(MACHINE.write().unwrap_or_else(PoisonError::into_inner)))
    }

    fn with(load: Load) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // 1 to 101 are safe on Linux; the process number keeps test programs that run side by side
        // apart.
        let offset = std::process::id().wrapping_mul(8).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        Self { id: 1 + offset % 101, _load: load }
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("ROS_DOMAIN_ID", self.id.to_string()).env("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST");
        // Shared memory that is large enough for the images; see the file.
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
    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("the node is running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends `signal` and returns the exit code and what the node printed.
    pub fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let status = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(status.is_ok_and(|s| s.success()), "the node is still running");
        let code = self.wait_for_end(STOP_TIMEOUT);
        let mut printed = String::new();
        let stdout = self.0.stdout.as_mut().expect("stdout is piped");
        stdout.read_to_string(&mut printed).expect("the node prints text");
        (code, printed)
    }

    /// Waits until it ends by itself, and returns the exit code.
    pub fn wait_for_end(&mut self, limit: Duration) -> Option<i32> {
        let give_up = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child can be waited for") {
                return status.code();
            }
            assert!(Instant::now() < give_up, "the node does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Node {
    /// Ends it, and returns what it logged.
    pub fn stop_and_read_log(mut self) -> String {
        let mut log = self.0.stderr.take().expect("stderr is piped");
        self.end("-INT");
        let mut text = String::new();
        log.read_to_string(&mut text).expect("the node logs text");
        text
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

pub fn real(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is {}", value[key]))
}

/// The counts of a `FrameTiming` or of the diagnostics.
pub fn assert_counts_add_up(counts: &Value, max_in_flight: i64) {
    let ended: i64 = ["published_on_time", "published_late", "superseded", "dropped_late", "rejected"]
        .iter()
        .map(|key| integer(counts, key))
        .sum();
    let in_flight = integer(counts, "arrived") - ended;
    assert!((0..=max_in_flight).contains(&in_flight), "{in_flight} in flight: {counts}");
}

/// Checks what must hold for every image that was sent and answered, with any transport.
pub fn assert_answers_hold(answers: &Value, count: usize) {
    let answers = answers.as_array().expect("one answer an image");
    assert_eq!(answers.len(), count);
    for answer in answers {
        let sent = &answer["sent"];
        assert_eq!(answer["header"]["stamp"], sent["stamp"]);
        assert_eq!(answer["header"]["frame_id"], sent["frame_id"]);
        for detection in answer["detections"].as_array().expect("a list") {
            assert_eq!(detection["stamp"], sent["stamp"]);
            assert_eq!(detection["frame_id"], sent["frame_id"]);
            assert!((0.0..=1.0).contains(&real(detection, "score")));
            assert!(!detection["class"].as_str().expect("a name").is_empty());
            let (x, y) = (real(detection, "x"), real(detection, "y"));
            let (w, h) = (real(detection, "width") / 2.0, real(detection, "height") / 2.0);
            // Corners are computed in f32.
            let slack = 1e-3;
            assert!(w >= 0.0 && x - w >= -slack && x + w <= real(sent, "width") + slack, "{detection} of {sent}");
            assert!(h >= 0.0 && y - h >= -slack && y + h <= real(sent, "height") + slack, "{detection} of {sent}");
        }
        let timing = &answer["timing"];
        assert_counts_add_up(timing, 2);
        let steps =
            ["arrival", "preprocess_start", "preprocess_end", "inference_end", "decode_end", "track_end", "publish"];
        let times: Vec<_> = steps.iter().map(|step| integer(timing, step)).collect();
        assert!(times.is_sorted() && times[0] >= integer(sent, "stamp"), "{timing}");
        let latency = (times[6] - integer(sent, "stamp")) as f64 / 1e6;
        assert!((real(timing, "latency_ms") - latency).abs() < 0.1 + latency * 1e-6, "{timing}");
    }
}
