//! The web page beside the real frame path, as an HTTP client sees it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use peregrine_core::now_ns;
use peregrine_ros::capture::Capture;
use peregrine_ros::clock::ClockSample;
use peregrine_ros::web::{Settings, WebPage};
use peregrine_support::ros_is_absent;
use r2r::ParameterValue;
use serde_json::Value;

use crate::in_process::{image, small, Parts};

const EPOCH: i64 = 1_700_000_000_000_000_000;

/// Generous, since the machine may be busy.
const LONGEST: Duration = Duration::from_secs(60);

struct Rig {
    parts: Parts,
    page: WebPage,
    port: u16,
}

impl Rig {
    fn new(name: &str, viewers: usize) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let more =
            [("score_threshold", ParameterValue::Double(0.01)), ("deadline_ms", ParameterValue::Double(10_000.0))];
        let mut parts = Parts::new(name, 1, &small(more));
        let settings = Settings { address: ([127, 0, 0, 1], port).into(), max_viewers: viewers };
        let page = WebPage::start(settings, name, &[String::new()]).unwrap();
        parts.path.capture = Capture::to(vec![Arc::clone(&page.queue)]);
        Self { parts, page, port }
    }

    fn pass(&mut self) {
        let arrival = ClockSample { ros: EPOCH + 1_000_000, monotonic: now_ns() };
        self.parts.arrivals[0].accept(image(EPOCH, "mono8"), arrival);
        assert!(self.parts.path.process_next(Duration::ZERO));
    }
}

/// A request by hand, as `host`; its head, and what follows.
fn get(port: u16, path: &str, host: &str) -> (String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LONGEST)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let (mut reader, mut head) = (BufReader::new(stream), String::new());
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    (head, reader)
}

/// The next event of a stream: its kind, and its data.
fn next_event(stream: &mut impl BufRead) -> Option<(String, Value)> {
    let (mut kind, mut line) = (String::new(), String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(name) = line.strip_prefix("event: ") {
            name.trim().clone_into(&mut kind);
        }
        if let Some(data) = line.strip_prefix("data: ") {
            return Some((kind, serde_json::from_str(data.trim()).unwrap()));
        }
    }
}

fn next_frame(stream: &mut impl BufRead) -> Value {
    loop {
        let (kind, event) = next_event(stream).expect("the page goes on");
        if kind == "frame" {
            return event;
        }
    }
}

#[test]
fn the_page_is_one_file_that_loads_nothing_from_elsewhere() {
    if ros_is_absent() {
        return;
    }
    let rig = Rig::new("page", 1);
    let (head, mut body) = get(rig.port, "/", "localhost");
    assert!(
        head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("content-security-policy: default-src 'none'")
    );
    let length = head.to_lowercase().split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    let mut page = vec![0; length];
    body.read_exact(&mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains("viewport") && !page.contains("src=") && !page.contains("href="));
    assert!(get(rig.port, "/else", "localhost").0.starts_with("HTTP/1.1 404"));
    assert!(get(rig.port, "/", "evil.example").0.starts_with("HTTP/1.1 403"), "DNS rebinding");
}

#[test]
fn a_viewer_gets_the_picture_with_the_boxes_that_were_published() {
    if ros_is_absent() {
        return;
    }
    let mut rig = Rig::new("boxes", 1);
    let (_, mut events) = get(rig.port, "/events", "127.0.0.1");
    let (kind, hello) = next_event(&mut events).unwrap();
    assert_eq!((kind.as_str(), &hello["node"]), ("hello", &Value::from("boxes")));
    rig.pass();
    let frame = next_frame(&mut events);
    let native = &rig.parts.path.model.detections_message.native;
    let published =
        <r2r::vision_msgs::msg::Detection2DArray as r2r::WrappedTypesupport>::from_native(native).detections;
    let boxes = frame["found"]["boxes"].as_array().unwrap();
    assert!(!published.is_empty() && boxes.len() == published.len());
    for (shown, sent) in boxes.iter().zip(&published) {
        let [x, y, w, h] = [0, 1, 2, 3].map(|i| shown["box"][i].as_f64().unwrap());
        let (centre, size) = (&sent.bbox.center.position, (sent.bbox.size_x, sent.bbox.size_y));
        let off = [x + w / 2.0 - centre.x, y + h / 2.0 - centre.y, w - size.0, h - size.1];
        assert!(off.iter().all(|off| off.abs() < 1e-3), "{shown} {sent:?}");
        assert_eq!(shown["name"], sent.results[0].hypothesis.class_id);
    }
    assert_eq!(frame["size"], serde_json::json!([32, 32]));
    assert!(frame["picture"].as_str().unwrap().starts_with("/9j/"), "a JPEG");
    assert_eq!(frame["timing"]["deadline"], 10_000.0);
    assert_eq!(frame["counts"]["on time"], 1);
}

#[test]
fn while_nobody_looks_no_frame_is_taken_for_the_page() {
    if ros_is_absent() {
        return;
    }
    let mut rig = Rig::new("alone", 1);
    (0..3).for_each(|_| rig.pass());
    assert!(rig.page.queue.take().is_none() && rig.page.queue.lost() == 0 && !rig.page.hub.is_watched());
    let (_, events) = get(rig.port, "/events", "localhost");
    assert!(rig.page.hub.is_watched());
    drop(events);
    // The end of a connection shows when something is written to it.
    let give_up = std::time::Instant::now() + LONGEST;
    while rig.page.hub.is_watched() {
        rig.pass();
        assert!(std::time::Instant::now() < give_up);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn ten_viewers_one_of_them_stalled_make_no_frame_late() {
    if ros_is_absent() {
        return;
    }
    let mut rig = Rig::new("ten", 10);
    let (_, mut first) = get(rig.port, "/events", "localhost");
    // Never read.
    let stalled = get(rig.port, "/events", "localhost");
    let port = rig.port;
    let others: Vec<_> = (0..8)
        .map(|_| {
            let (head, mut events) = get(port, "/events", "localhost");
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            thread::spawn(move || (0..5).map(|_| next_frame(&mut events)).count())
        })
        .collect();
    let (head, mut body) = get(port, "/events", "localhost");
    let mut why = String::new();
    body.read_line(&mut why).unwrap();
    assert!(head.starts_with("HTTP/1.1 503") && why.contains("10 others are looking already"), "{head}{why}");

    let mut sequence = 0;
    while sequence < 60 {
        (0..5).for_each(|_| rig.pass());
        // Frames go on while the picture is made; the next one is shown by and by.
        thread::sleep(Duration::from_millis(100));
        sequence = next_frame(&mut first)["sequence"].as_u64().unwrap();
    }
    for other in others {
        assert_eq!(other.join().unwrap(), 5);
    }
    let counts = rig.parts.shared.cameras[0].accounting.counts();
    assert_eq!((counts.late, counts.on_time), (0, counts.arrived));
    drop(stalled);
}
