//! A GPU under the node: frames of several cameras run there side by side, each has its outcome, and where the device
//! fails none is lost, and the device that inference falls back to is reported.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine_core::now_ns;
use peregrine_engine::cuda::recording::Recording;
use peregrine_pipeline::{Pipeline, Stage, StageObserver};
use peregrine_reference::cuda::failing::{Failing, Faults};
use peregrine_ros::clock::ClockSample;
use peregrine_ros::incoming::ImageMessage;
use peregrine_ros::intake::Arrivals;
use peregrine_ros::model::{LoadedModel, ModelConfig, ModelDescription};
use peregrine_ros::parameters::Parameters;
use peregrine_ros::realtime::RealtimeProfile;
use peregrine_support::ros_is_absent;
use r2r::{NativeMsg, ParameterValue};

use crate::in_process::{image, small, Parts};

const EPOCH: i64 = 1_700_000_000_000_000_000;

/// On an emulated device.
fn model(faults: &Faults) -> (Box<LoadedModel>, ModelDescription) {
    model_with(&small([]), faults)
}

fn model_with(parameters: &Parameters, faults: &Faults) -> (Box<LoadedModel>, ModelDescription) {
    let driver = Failing::driver(Arc::new(Recording::of_architecture(87)), faults);
    let config = ModelConfig::new(parameters, RealtimeProfile::default());
    config
        .load_with(|student, options| Ok(Pipeline::on_opened(Ok(Arc::clone(&driver)), student, options, true)?))
        .unwrap()
}

#[test]
fn a_device_that_fails_is_reported_once_and_frames_go_on() {
    if ros_is_absent() {
        return;
    }
    // Lost with the first call after what building takes.
    let faults = Faults::lost_at(usize::MAX);
    let (built, description) = model(&faults);
    assert!(description.device.starts_with("cuda ("), "{}", description.device);
    let calls = faults.calls();
    drop(built);
    let mut parts = Parts::with_model("device", 1, &small([]), model(&Faults::lost_at(calls)).0);
    let mut reported = Vec::new();
    for _ in 0..3 {
        let arrival = ClockSample { ros: 1_700_000_000_000_000_000, monotonic: now_ns() };
        parts.arrivals[0].accept(image(arrival.ros, "mono8"), arrival);
        assert!(parts.path.process_next(Duration::ZERO));
        reported.extend(parts.shared.device_fallback.pop());
    }
    assert_eq!(parts.shared.cameras[0].accounting.counts().published(), 3);
    assert!(
        matches!(&reported[..], [once] if once.starts_with("cpu (not cuda: ") && once.contains("lost in a test")),
        "{reported:?}"
    );
}

/// A node with so many cameras, of each of which one image was processed, and what its device is told.
fn rig(name: &str, cameras: usize, more: &[(&'static str, ParameterValue)], faults: Faults) -> (Parts, Faults) {
    let far = ("deadline_ms", ParameterValue::Double(10_000.0));
    let parameters = small([far].into_iter().chain(more.iter().cloned()));
    let mut parts = Parts::with_model(name, cameras, &parameters, model_with(&parameters, &faults).0);
    for camera in 0..cameras {
        arrive(&mut parts.arrivals[camera], image(EPOCH, "mono8"));
        assert!(parts.path.process_next(Duration::ZERO));
    }
    (parts, faults)
}

fn sound() -> Faults {
    Faults::lost_at(usize::MAX)
}

fn arrive(arrivals: &mut Arrivals, message: ImageMessage) {
    arrivals.accept(message, ClockSample { ros: EPOCH, monotonic: now_ns() });
}

/// An image of each camera, which all wait at the same time.
fn arrive_at_all(parts: &mut Parts) {
    parts.arrivals.iter_mut().for_each(|arrivals| arrive(arrivals, image(EPOCH, "mono8")));
}

/// Of each camera, the frames that were published, dropped or rejected, and those in flight.
fn ended(parts: &Parts) -> Vec<(u64, u64, u64, u64)> {
    let counts = parts.shared.cameras.iter().map(|camera| camera.accounting.counts());
    counts.map(|c| (c.published(), c.dropped_late, c.rejected, c.in_flight)).collect()
}

#[test]
fn frames_that_wait_at_the_same_time_run_side_by_side() {
    if ros_is_absent() {
        return;
    }
    // Most at once, cameras, and how many frames the first call then processes.
    for (at_once, cameras, first) in [(4, 4, 4), (8, 3, 3), (2, 3, 2), (1, 3, 1)] {
        let at_most = [("gpu_cameras_at_once", ParameterValue::Integer(at_once))];
        let (mut parts, faults) = rig(&format!("side_by_side_{at_once}"), cameras, &at_most, sound());
        let before = faults.launches();
        assert_eq!(faults.most_at_once(), 1);
        arrive_at_all(&mut parts);
        assert!(parts.path.process_next(Duration::ZERO));
        assert_eq!((faults.launches() - before, faults.most_at_once()), (first, first), "at most {at_once}");
        while parts.path.process_next(Duration::ZERO) {}
        assert_eq!(faults.launches() - before, cameras);
        assert_eq!(ended(&parts), vec![(2, 0, 0, 0); cameras]);
    }
}

/// Does something once, when a frame enters a stage.
struct Once<F> {
    stage: Stage,
    done: AtomicBool,
    act: F,
}

impl<F: Fn() + Send + Sync + 'static> Once<F> {
    fn at(stage: Stage, act: F) -> Arc<Self> {
        Arc::new(Self { stage, done: AtomicBool::new(false), act })
    }
}

impl<F: Fn() + Send + Sync> StageObserver for Once<F> {
    fn enter(&self, stage: Stage) {
        if stage == self.stage && !self.done.swap(true, Relaxed) {
            (self.act)();
        }
    }
}

#[test]
fn a_newer_image_of_a_camera_waits_until_the_one_that_was_begun_is_finished() {
    if ros_is_absent() {
        return;
    }
    let (mut parts, faults) = rig("newer", 2, &[], sound());
    let before = faults.launches();
    arrive_at_all(&mut parts);
    let arrivals = Mutex::new(std::mem::take(&mut parts.arrivals));
    // Two more of the first camera, while both wait for the device: the older of the two is superseded.
    parts.path.set_observer(Once::at(Stage::GpuWait, move || {
        let mut arrivals = arrivals.lock().unwrap();
        (0..2).for_each(|_| arrive(&mut arrivals[0], image(EPOCH, "mono8")));
    }));
    assert!(parts.path.process_next(Duration::ZERO));
    assert_eq!((faults.launches() - before, faults.most_at_once()), (2, 2));
    assert_eq!(ended(&parts), [(2, 0, 0, 1), (2, 0, 0, 0)]);
    assert!(parts.path.process_next(Duration::ZERO) && !parts.path.process_next(Duration::ZERO));
    assert_eq!(ended(&parts), [(3, 0, 0, 0), (2, 0, 0, 0)]);
    assert_eq!(parts.shared.cameras[0].accounting.counts().superseded, 1);
}

#[test]
fn a_device_that_fails_under_several_frames_loses_none() {
    if ros_is_absent() {
        return;
    }
    const CAMERAS: usize = 3;
    let (mut parts, faults) = rig("whole", CAMERAS, &[], sound());
    let before = faults.calls();
    arrive_at_all(&mut parts);
    while parts.path.process_next(Duration::ZERO) {}
    for n in before..faults.calls() {
        let (mut parts, _) = rig("lost", CAMERAS, &[], Faults::lost_at(n));
        assert!(parts.path.model.pipeline().is_on_cuda());
        arrive_at_all(&mut parts);
        while parts.path.process_next(Duration::ZERO) {}
        assert_eq!(ended(&parts), [(2, 0, 0, 0); CAMERAS], "lost at call {n}");
        assert!(parts.shared.device_fallback.pop().unwrap().contains("lost in a test"));
    }
    let (mut parts, faults) = rig("hangs", CAMERAS, &[], sound());
    parts.path.set_observer(Once::at(Stage::GpuWait, move || faults.set_hanging(true)));
    arrive_at_all(&mut parts);
    while parts.path.process_next(Duration::ZERO) {}
    assert_eq!(ended(&parts), [(2, 0, 0, 0); CAMERAS]);
    assert!(parts.shared.device_fallback.pop().unwrap().contains("within 500 ms"));
}

#[test]
fn a_panic_costs_one_of_the_frames_that_run_side_by_side() {
    if ros_is_absent() {
        return;
    }
    const CAMERAS: usize = 3;
    for stage in [Stage::Unpack, Stage::Preprocess, Stage::GpuWait, Stage::Track, Stage::Publish] {
        let (mut parts, faults) = rig(&format!("panic_{}", stage.name()), CAMERAS, &[], sound());
        parts.path.set_observer(Once::at(stage, || panic!("a fault")));
        for _ in 0..2 {
            arrive_at_all(&mut parts);
            while parts.path.process_next(Duration::ZERO) {}
        }
        assert_eq!(ended(&parts), [(2, 0, 1, 0), (3, 0, 0, 0), (3, 0, 0, 0)], "{stage:?}");
        assert!(parts.path.model.pipeline().is_on_cuda() && faults.most_at_once() == CAMERAS);
    }
}

#[test]
fn the_degraded_mode_begins_once_all_that_was_begun_is_finished() {
    if ros_is_absent() {
        return;
    }
    let degraded = [
        ("degraded_mode", ParameterValue::String("no_segmentation".into())),
        ("degrade_after_misses", ParameterValue::Integer(1)),
    ];
    let (mut parts, faults) = rig("degrades", 3, &degraded, sound());
    let before = faults.launches();
    // The first camera's image is older than any deadline, and so the most urgent.
    arrive(&mut parts.arrivals[0], image(EPOCH - 120_000_000_000, "mono8"));
    (1..3).for_each(|camera| arrive(&mut parts.arrivals[camera], image(EPOCH, "mono8")));
    assert!(parts.path.process_next(Duration::ZERO));
    assert_eq!((faults.launches() - before, faults.most_at_once()), (3, 3), "none is done twice");
    assert!(parts.shared.degraded.load(Relaxed));
    arrive_at_all(&mut parts);
    while parts.path.process_next(Duration::ZERO) {}
    assert_eq!(ended(&parts), [(3, 0, 0, 0); 3]);
}

#[test]
fn frames_that_cannot_be_begun_have_their_turn_alone() {
    if ros_is_absent() {
        return;
    }
    let drop_late = [("deadline_policy", ParameterValue::String("drop_late".into()))];
    let (mut parts, faults) = rig("alone", 4, &drop_late, sound());
    // One that is late, a picture that is damaged within, one of a new kind, and one that can be begun.
    let mut png = Vec::new();
    let pixels = ::image::GrayImage::from_pixel(32, 32, ::image::Luma([9]));
    pixels.write_to(&mut std::io::Cursor::new(&mut png), ::image::ImageFormat::Png).unwrap();
    let middle = png.len() / 2;
    png[middle] ^= 255;
    let mut compressed = NativeMsg::<r2r::sensor_msgs::msg::CompressedImage>::new();
    compressed.header.stamp.sec = (EPOCH / 1_000_000_000) as i32;
    compressed.format.assign("png");
    compressed.data.update(&png);
    arrive(&mut parts.arrivals[0], image(EPOCH - 120_000_000_000, "mono8"));
    arrive(&mut parts.arrivals[1], ImageMessage::Compressed(compressed));
    arrive(&mut parts.arrivals[2], image(EPOCH, "bayer_rggb8"));
    arrive(&mut parts.arrivals[3], image(EPOCH, "mono8"));
    while parts.path.process_next(Duration::ZERO) {}
    assert_eq!(ended(&parts), [(1, 1, 0, 0), (1, 0, 1, 0), (2, 0, 0, 0), (2, 0, 0, 0)]);
    assert_eq!(faults.most_at_once(), 1);
}
