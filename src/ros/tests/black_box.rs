//! The black box beside the real frame path: when it writes, how often, and what happens where it
//! cannot.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peregrine_core::now_ns;
use peregrine_recording::{Recording, Selection};
use peregrine_ros::black_box::status::Status;
use peregrine_ros::black_box::{BlackBox, CameraTopicNames, Settings};
use peregrine_ros::capture::Capture;
use peregrine_ros::clock::ClockSample;
use peregrine_support::ros_is_absent;
use peregrine_vision::preprocess::Decompressor;
use r2r::diagnostic_msgs::msg::{DiagnosticArray, DiagnosticStatus};
use r2r::ParameterValue;

use crate::in_process::{image, small, Parts};

/// An image's stamp, in ns.
const EPOCH: i64 = 1_700_000_000_000_000_000;
const MS: i64 = 1_000_000;

/// Generous, since the machine may be busy.
const LONGEST: Duration = Duration::from_secs(60);

struct Rig {
    parts: Parts,
    black_box: BlackBox,
    /// Images so far.
    images: i64,
}

impl Rig {
    /// A node called `name` that records into `folder`.
    fn new(name: &str, folder: &Path, more: &[(&'static str, ParameterValue)]) -> Self {
        let text = |text: &str| ParameterValue::String(text.into());
        let own = [("record_on", text("miss")), ("record_folder", text(folder.to_str().unwrap()))];
        let parameters = small(own.into_iter().chain(more.iter().cloned()));
        let mut parts = Parts::new(name, 1, &parameters);
        let names = CameraTopicNames { image: "/a/compressed".into(), detections: "/d".into(), timing: "/t".into() };
        let settings = Settings::new(&parameters, name).unwrap();
        let black_box = BlackBox::start(settings, name, vec![names], Arc::clone(&parts.shared)).unwrap();
        parts.path.capture = Capture::to(vec![Arc::clone(&black_box.queue)]);
        Self { parts, black_box, images: 0 }
    }

    /// An image that is `age` old when it arrives, a tenth of a second after the last.
    fn pass(&mut self, age: i64) {
        self.images += 1;
        let stamp = EPOCH + self.images * 100 * MS;
        let arrival = ClockSample { ros: stamp + age, monotonic: now_ns() };
        self.parts.arrivals[0].accept(image(stamp, "mono8"), arrival);
        assert!(self.parts.path.process_next(Duration::ZERO));
    }

    /// No faster than a camera: what the black box has no time for, it counts as lost and does not keep.
    fn on_time(&mut self, images: usize) {
        for _ in 0..images {
            self.pass(MS);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait_for(&self, condition: impl Fn(&Status) -> bool) -> Status {
        let give_up = Instant::now() + LONGEST;
        loop {
            let status = self.black_box.inbox.status();
            if condition(&status) {
                return status;
            }
            assert!(Instant::now() < give_up, "{status:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn seconds(value: f64) -> ParameterValue {
    ParameterValue::Double(value)
}

/// Past any deadline of the tests, but not of the machine.
fn deadline() -> (&'static str, ParameterValue) {
    ("deadline_ms", seconds(10_000.0))
}

const LATE: i64 = 10_500 * MS;

/// Longer than that, so that the images before the late one are kept.
fn keep() -> (&'static str, ParameterValue) {
    ("record_s", seconds(15.0))
}

#[test]
fn a_missed_deadline_writes_one_file_with_the_images_before_it() {
    if ros_is_absent() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::new("one_miss", folder.path(), &[deadline(), keep()]);
    rig.on_time(25);
    rig.wait_for(|status| status.span >= 900 * MS);
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing without a reason");
    rig.pass(LATE);
    let status = rig.wait_for(|status| status.written > 0);
    let path = status.last_file.unwrap();
    assert!(path.file_name().unwrap().to_str().unwrap().starts_with("black_box_one_miss_2"), "{path:?}");

    let recording = Recording::open(&path).unwrap();
    assert!(recording.warnings().is_empty(), "{:?}", recording.warnings());
    let count = |name: &str| recording.topics().iter().find(|t| t.name == name).unwrap().count.unwrap();
    assert_eq!((count("/a/compressed"), count("/d"), count("/t")), (26, 26, 26));
    let mut images = recording.images(recording.image_topic(None).unwrap(), &Selection::default());
    let image = images.next().unwrap().unwrap();
    assert_eq!(image.stamp, (EPOCH + 100 * MS) as u64);
    let mut decompressor = Decompressor::new();
    let view = image.view(&mut decompressor, Default::default()).unwrap();
    assert_eq!((view.size(), view.encoding().ros_name()), ((32, 32), "mono8"));
    assert!(view.row(16).iter().all(|&grey| grey.abs_diff(127) <= 1));
}

#[test]
fn misses_within_the_interval_are_counted_and_not_written() {
    if ros_is_absent() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::new("often", folder.path(), &[deadline(), ("record_interval_s", seconds(3600.0))]);
    rig.on_time(3);
    rig.pass(LATE);
    rig.wait_for(|status| status.written == 1);
    rig.pass(LATE);
    rig.wait_for(|status| status.not_written > 0);
    drop(rig);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn files_beyond_the_disk_limit_replace_the_oldest() {
    if ros_is_absent() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let limits =
        [deadline(), keep(), ("record_interval_s", seconds(0.0)), ("record_disk_mb", ParameterValue::Integer(1))];
    let before = folder.path().join("black_box_full_2020-01-01T00-00-00.000Z_miss.mcap");
    fs::write(&before, vec![0; 999_000]).unwrap();
    let mut rig = Rig::new("full", folder.path(), &limits);
    rig.on_time(20);
    rig.pass(LATE);
    let status = rig.wait_for(|status| status.written == 1);
    assert_eq!(status.removed, 1);
    assert!(!before.exists() && status.last_file.unwrap().exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_one_problem_and_frames_go_on() {
    if ros_is_absent() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    // A file where the folder should be: also root cannot write there.
    let folder = place.path().join("file");
    fs::write(&folder, "no folder").unwrap();
    let mut rig = Rig::new("no_folder", &folder, &[deadline(), ("record_interval_s", seconds(0.0))]);
    let problem = rig.wait_for(|status| status.failures == 1).problem.unwrap();
    assert!(problem.starts_with(folder.to_str().unwrap()), "{problem}");
    rig.on_time(3);
    rig.pass(LATE);
    let status = rig.wait_for(|status| status.failures == 2);
    assert!(status.written == 0 && status.last_file.is_none());
    rig.on_time(3);
    assert_eq!(rig.parts.shared.cameras[0].accounting.counts().published(), 7);
    assert_eq!(fs::read_to_string(&folder).unwrap(), "no folder");
}

#[test]
fn only_what_becomes_an_error_is_a_reason_where_errors_are_asked_for() {
    if ros_is_absent() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let on = ("record_on", ParameterValue::String("error".into()));
    let mut rig = Rig::new("on_error", folder.path(), &[deadline(), on, ("record_interval_s", seconds(0.0))]);
    let say = |rig: &Rig, level: u8| {
        let status = DiagnosticStatus { level, name: "on_error: frames".into(), ..Default::default() };
        let mut array = DiagnosticArray { status: vec![status], ..Default::default() };
        array.header.stamp.sec = (EPOCH / 1_000_000_000) as i32;
        rig.black_box.inbox.put_diagnostics(&array);
    };
    [0, 2].iter().for_each(|&level| say(&rig, level));
    std::thread::sleep(Duration::from_millis(1500));
    rig.pass(LATE);
    [0, 1].iter().for_each(|&level| say(&rig, level));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(rig.black_box.inbox.status().written, 0);
    [2, 2, 2].iter().for_each(|&level| say(&rig, level));
    let status = rig.wait_for(|status| status.written == 1);
    assert!(status.last_file.unwrap().to_str().unwrap().ends_with("_error.mcap"));
    say(&rig, 2);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(rig.black_box.inbox.status().written, 1, "what stays an error is none anew");
}

#[test]
fn a_miss_just_before_the_end_is_written_still() {
    if ros_is_absent() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut rig = Rig::new("at_the_end", folder.path(), &[deadline(), keep()]);
    rig.on_time(2);
    rig.pass(LATE);
    drop(rig);
    let name = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    assert_eq!(Recording::open(&name).unwrap().image_topic(None).unwrap().count, Some(3));
}
