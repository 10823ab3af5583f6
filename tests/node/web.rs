//! The web page of the real node, in a real browser.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::*;

/// Chromium, where it is installed.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|program| program.is_file());
    if found.is_none() {
        peregrine_support::skip("chromium", "chromium is not installed (Debian: apt-get install chromium)");
    }
    found
}

/// Generous, since the machine may be busy.
const LONGEST: Duration = Duration::from_secs(60);

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A browser that shows the page; ended when dropped.
struct Browser {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Browser {
    fn start(program: &Path, port: u16, profile: &Path) -> Self {
        let python = std::env::var("PEREGRINE_PYTHON").unwrap_or_else(|_| "python3".into());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peer/browser.py");
        let mut command = Command::new(python);
        command.arg(script).arg(program).arg(profile).arg(format!("http://127.0.0.1:{port}/"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python can be started");
        let answers = BufReader::new(process.stdout.take().expect("stdout is piped"));
        Self { process, answers }
    }

    /// The value of an expression in the page.
    fn value(&mut self, expression: &str) -> Value {
        let input = self.process.stdin.as_mut().expect("stdin is piped");
        writeln!(input, "{expression}").expect("the browser is running");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the browser answers");
        serde_json::from_str(&line).expect("its answer is JSON")
    }

    /// Waits until the page says so.
    fn wait_for(&mut self, expression: &str) {
        let give_up = Instant::now() + LONGEST;
        while self.value(expression) != true {
            assert!(Instant::now() < give_up, "{expression}: {}", self.value("document.body.innerText"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The boxes that are drawn, as left, top, width and height in pixels of the image.
    fn boxes(&mut self) -> Vec<[f64; 4]> {
        let places = "[...document.querySelectorAll('rect.box')].map(r => \
                      ['x', 'y', 'width', 'height'].map(name => +r.getAttribute(name)))";
        serde_json::from_value(self.value(places)).expect("numbers")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Those of an answer.
fn published(answer: &Value) -> Vec<[f64; 4]> {
    let corner = |d: &Value| {
        let [x, y, w, h] = ["x", "y", "width", "height"].map(|key| real(d, key));
        [x - w / 2.0, y - h / 2.0, w, h]
    };
    answer["detections"].as_array().unwrap().iter().map(corner).collect()
}

fn same(a: &[[f64; 4]], b: &[[f64; 4]]) -> bool {
    a.len() == b.len() && a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| (a - b).abs() < 0.01)
}

#[test]
fn a_browser_draws_boxes_where_they_were_published_also_after_a_restart() {
    if ros_is_absent() {
        return;
    }
    let Some(program) = chromium() else { return };
    let (domain, port, profile) = (Domain::new(), free_port(), tempfile::tempdir().unwrap());
    let page = format!("web_port:={port}");
    let start = || domain.start_node(&["deadline_ms:=0.0", "score_threshold:=0.05", &page]);
    let send = || domain.ask_peer("send_frames.py", &["raw", "3"]).as_array().unwrap().clone();
    let is = |state: &str| format!("document.getElementById('connection').dataset.state === '{state}'");

    let mut node = start();
    // Only an active node serves the page.
    send();
    let mut browser = Browser::start(&program, port, profile.path());
    browser.wait_for(&is("live"));
    for restarted in [false, true] {
        let answers = send();
        browser.wait_for("document.querySelectorAll('rect.box').length > 0");
        let drawn = browser.boxes();
        let of = answers.iter().find(|answer| same(&published(answer), &drawn));
        assert!(of.is_some(), "{drawn:?} were not published: {answers:?}");
        let size = browser.value("document.querySelector('svg.boxes').getAttribute('viewBox')");
        assert_eq!(
            size,
            format!("0 0 {} {}", integer(&answers[0]["sent"], "width"), integer(&answers[0]["sent"], "height"))
        );
        // The layer of boxes lies over the picture, whatever the size of the window.
        let over = "['left', 'top', 'width', 'height'].every(side => Math.abs(document.querySelector('svg.boxes')\
                    .getBoundingClientRect()[side] - document.querySelector('img').getBoundingClientRect()[side]) < 1)";
        assert_eq!(browser.value(over), true);
        browser.wait_for("document.querySelectorAll('path.kept').length > 0 && document.body.innerText.includes('perception: frames')");
        if !restarted {
            assert_eq!(node.end("-INT").0, Some(0));
            browser.wait_for(&is("lost"));
            node = start();
            browser.wait_for(&is("live"));
        }
    }
}
