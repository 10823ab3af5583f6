//! The node's frame thread allocates nothing once the first frames have gone through it.
//!
//! What is counted is Rust's allocations: ours and those of the crates below us. The middleware has its own memory.
#![cfg(feature = "ros")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use crossbeam::queue::ArrayQueue;
use peregrine::geometry::CameraInfo;
use peregrine::pipeline::{now_ns, LatestSlot, Ledger, Pipeline, PipelineOptions};
use peregrine::ros::clock::Instant;
use peregrine::ros::frame_path::{FramePath, Outputs, Shared};
use peregrine::ros::incoming::{Frame, ImageMessage, Unpacker};
use peregrine::ros::live::LiveSettings;
use peregrine::ros::messages::{DetectionsMessage, MaskMessage, TimingMessage};
use peregrine::ros::parameters::Parameters;
use peregrine::ros::scene::Scene;
use peregrine::student::Student;
use r2r::{NativeMsg, QosProfile};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, counting what threads that asked for it allocate.
struct Counting;

fn count() {
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, SeqCst);
    }
}

// SAFETY: all work is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        System.alloc(layout)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        System.dealloc(pointer, layout)
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        System.realloc(pointer, layout, size)
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn frame(sequence: u64) -> Frame {
    let mut message = NativeMsg::<r2r::sensor_msgs::msg::Image>::new();
    message.header.stamp.sec = 1_700_000_000;
    message.header.frame_id.assign("front camera");
    message.encoding.assign("rgb8");
    (message.width, message.height, message.step) = (640, 480, 1920);
    let pixels: Vec<u8> = (0..640 * 480 * 3).map(|i| (i * 7 % 251) as u8).collect();
    message.data.update(&pixels);
    let arrival = Instant { ros: 1_700_000_000_010_000_000, monotonic: now_ns() };
    Frame { message: ImageMessage::Raw(message), arrival, sequence }
}

#[test]
fn a_warm_frame_path_does_not_allocate() {
    if std::env::var_os("AMENT_PREFIX_PATH").is_none() {
        eprintln!("skipped: there is no ROS 2 environment; run `. launch/setup/env.sh` first");
        return;
    }
    std::env::set_var("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST");
    std::env::set_var("ROS_DOMAIN_ID", (1 + std::process::id() % 101).to_string());
    let mut node = r2r::Node::create(r2r::Context::create().unwrap(), "allocations", "").unwrap();
    let student = Student::embedded();
    // Every detection and both masks, so that the longest way is gone.
    let tracking = Some(Default::default());
    let options = PipelineOptions { score_threshold: 0.01, tracking, ..PipelineOptions::default() };
    let parameters = Parameters::with([
        ("score_threshold".to_owned(), r2r::ParameterValue::Double(0.01)),
        ("mounting".to_owned(), r2r::ParameterValue::String("1 0 1.5 0 0.1 0".into())),
    ])
    .unwrap();
    let shared = Arc::new(Shared {
        slot: LatestSlot::new(),
        ledger: Ledger::new(),
        settings: LiveSettings::new(&parameters),
        records: ArrayQueue::new(8),
        road_mask_wanted: AtomicBool::new(true),
        segmentation_wanted: AtomicBool::new(true),
        ros_offset: AtomicI64::new(0),
        stop: AtomicBool::new(false),
    });
    let qos = QosProfile::default;
    let (scene, mut inputs) =
        Scene::create(&mut node, &parameters, &student.manifest.architecture, "/image", str::to_owned).unwrap();
    inputs.learn(CameraInfo {
        width: 640,
        height: 480,
        distortion_model: "plumb_bob".into(),
        d: vec![-0.28, 0.07, 0.001, 0.0, 0.0],
        k: [500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0],
        ..CameraInfo::default()
    });
    let wanted = &scene.shared().wanted;
    for output in [&wanted.tracks, &wanted.objects, &wanted.map, &wanted.markers, &wanted.picture] {
        output.store(true, SeqCst);
    }
    let path = FramePath {
        pipeline: Pipeline::new(&student, options.clone()).unwrap(),
        road_class: Some(3),
        unpacker: Unpacker::default(),
        outputs: Outputs {
            detections: node.create_publisher("detections", qos()).unwrap(),
            timing: node.create_publisher("timing", qos()).unwrap(),
            road_mask: node.create_publisher("road_mask", qos()).unwrap(),
            segmentation: node.create_publisher("segmentation", qos()).unwrap(),
            detections_message: DetectionsMessage::new(
                &student.manifest.architecture.detection.classes,
                options.max_detections,
            ),
            timing_message: TimingMessage::default(),
            mask_message: MaskMessage { at_source_resolution: true, ..MaskMessage::default() },
            scene,
        },
        shared: Arc::clone(&shared),
    };
    let frames = std::thread::spawn(move || {
        COUNTED.set(true);
        path.run();
        COUNTED.set(false);
    });

    let process = |sequence: u64| {
        shared.ledger.arrive();
        assert!(shared.slot.put(frame(sequence)).is_none());
        let give_up = StdInstant::now() + Duration::from_secs(60);
        while shared.ledger.counts().published() < sequence {
            assert!(StdInstant::now() < give_up, "{:?}", shared.ledger.counts());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    (1..=5).for_each(process);
    // The last of them may still be publishing its masks; by the time that the next is published it is not.
    process(6);
    let before = ALLOCATIONS.load(SeqCst);
    assert_ne!(before, 0, "the first frames allocate, or the counting does not work");
    (7..=16).for_each(process);
    let after = ALLOCATIONS.load(SeqCst);
    shared.stop.store(true, SeqCst);
    frames.join().unwrap();
    assert_eq!(after - before, 0, "allocations in ten frames");
}
