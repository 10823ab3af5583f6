//! The node's frame thread allocates nothing after warm-up.
//!
//! Only Rust's allocations are counted: those of this workspace and of the crates below. The
//! middleware has its own memory.

mod in_process;

use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::allocations::{allocations, CountingAllocator};
use peregrine_core::{now_ns, Encoding};
use peregrine_geometry::CameraInfo;
use peregrine_ros::capture::{Capture, CaptureQueue};
use peregrine_ros::clock::ClockSample;
use peregrine_ros::incoming::ImageMessage;
use peregrine_support::ros_is_absent;
use r2r::{NativeMsg, ParameterValue};

use in_process::{save_with_scenes, small, Parts};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::per_thread();

/// Of all encodings together, five minutes' worth at 30 Hz; src/pipeline/tests/pipeline.rs has ten
/// thousand of each.
const FRAMES: usize = 10_000;

/// Small, since what is counted does not depend on it.
const WIDTH: usize = 96;
const HEIGHT: usize = 64;

fn message(encoding: Encoding) -> ImageMessage {
    let mut message = NativeMsg::<r2r::sensor_msgs::msg::Image>::new();
    message.header.stamp.sec = 1_700_000_000;
    message.header.frame_id.assign("front camera");
    message.encoding.assign(encoding.ros_name());
    let step = encoding.row_bytes(WIDTH);
    let bytes = encoding.image_bytes((WIDTH, HEIGHT));
    (message.width, message.height, message.step) = (WIDTH as u32, HEIGHT as u32, step as u32);
    let pixels: Vec<u8> = (0..bytes).map(|i| (i * 7 % 251) as u8).collect();
    message.data.update(&pixels);
    ImageMessage::Raw(message, Default::default())
}

#[cfg(feature = "cuda")]
#[test]
fn frames_of_four_cameras_at_once_on_a_gpu_do_not_allocate() {
    use peregrine_engine::cuda::{recording::Recording, Driver};
    use peregrine_pipeline::Pipeline;
    use peregrine_ros::model::ModelConfig;
    use peregrine_ros::realtime::RealtimeProfile;

    if ros_is_absent() {
        return;
    }
    const CAMERAS: usize = 4;
    let parameters = small([("gpu_cameras_at_once", ParameterValue::Integer(CAMERAS as i64))]);
    let driver: Arc<dyn Driver> = Arc::new(Recording::of_architecture(87));
    let config = ModelConfig::new(&parameters, RealtimeProfile::default());
    let (model, _) = config
        .load_with(|student, options| Ok(Pipeline::on_opened(Ok(Arc::clone(&driver)), student, options, true)?))
        .unwrap();
    let mut parts = Parts::with_model("at_once", CAMERAS, &parameters, model);
    let mut allocated = 0;
    for round in 0..1000 {
        let messages: Vec<_> = (0..CAMERAS).map(|_| Arc::new(message(Encoding::Rgb8))).collect();
        let arrival = ClockSample { ros: 1_700_000_000_010_000_000, monotonic: now_ns() };
        let before = allocations();
        for (arrivals, message) in parts.arrivals.iter_mut().zip(messages) {
            arrivals.accept(message, arrival);
        }
        let mut calls = 0;
        while parts.path.process_next(Duration::ZERO) {
            calls += 1;
        }
        if round >= 10 {
            assert_eq!(calls, 1, "all at once");
            allocated += allocations() - before;
        }
    }
    assert!(parts.path.model.pipeline().is_on_cuda());
    assert!(parts.shared.cameras.iter().all(|camera| camera.accounting.counts().published() == 1000));
    assert_eq!(allocated, 0, "allocations in 990 rounds");
}

#[test]
fn a_warm_frame_path_does_not_allocate_for_any_encoding() {
    if ros_is_absent() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    save_with_scenes(folder.path());
    // Every detection, both masks and the scene, so that the longest path is taken; and deadlines that are
    // missed for a while, so that the degraded mode is entered and left.
    let text = |text: &str| ParameterValue::String(text.into());
    let parameters = small([
        ("model", text(folder.path().to_str().unwrap())),
        ("score_threshold", ParameterValue::Double(0.01)),
        ("degraded_mode", text("no_segmentation")),
        ("restore_after_frames", ParameterValue::Integer(20)),
        ("map_resolution_m", ParameterValue::Double(2.0)),
        ("mounting", text("1 0 1.5 0 0.1 0")),
        ("mask_resolution", text("source")),
    ]);
    let mut parts = Parts::new("allocations", 1, &parameters);
    let Parts { path, arrivals, inputs, shared, .. } = &mut parts;
    // As the black box has it, which gives each frame back.
    let queue = Arc::new(CaptureQueue::new(1));
    path.capture = Capture::to(vec![Arc::clone(&queue)]);
    let camera = &shared.cameras[0];
    camera.road_mask_wanted.store(true, SeqCst);
    camera.segmentation_wanted.store(true, SeqCst);
    camera.scene_wanted.store(true, SeqCst);
    inputs[0].set_camera_info(CameraInfo {
        width: WIDTH as u32,
        height: HEIGHT as u32,
        distortion_model: "plumb_bob".into(),
        d: vec![-0.28, 0.07, 0.001, 0.0, 0.0],
        k: [75.0, 0.0, 48.0, 0.0, 67.0, 32.0, 0.0, 0.0, 1.0],
        ..CameraInfo::default()
    });
    let wanted = &path.outputs[0].scene.shared().wanted;
    for output in [&wanted.tracks, &wanted.objects, &wanted.map, &wanted.markers, &wanted.image] {
        output.store(true, SeqCst);
    }

    let per_encoding = FRAMES.div_ceil(Encoding::ALL.len());
    let (mut degraded, mut allocated) = ((0, 0), 0);
    for encoding in Encoding::ALL {
        for i in 0..per_encoding {
            // Of the first frames of each hundred the stamp is older than the deadline.
            let age = if i % 100 < 10 { 500_000_000 } else { 10_000_000 };
            // Shared, as what the subscription gives.
            let message = Arc::new(message(encoding));
            let arrival = ClockSample { ros: 1_700_000_000_000_000_000 + age, monotonic: now_ns() };
            // The first frames of an encoding are its warm-up.
            let before = allocations();
            arrivals[0].accept(message, arrival);
            let processed = path.process_next(Duration::ZERO);
            allocated += if i < 10 { 0 } else { allocations() - before };
            assert!(processed);
            queue.recycle(queue.take().expect("every frame is handed over"));
            if shared.degraded.load(SeqCst) {
                degraded.0 += 1;
            } else {
                degraded.1 += 1;
            }
        }
    }
    let counts = camera.accounting.counts();
    assert_eq!((counts.arrived, counts.published()), ((per_encoding * Encoding::ALL.len()) as u64, counts.arrived));
    assert!(degraded.0 > 100 && degraded.1 > 100, "both modes are passed through: {degraded:?}");
    assert_eq!(allocated, 0, "allocations in {} frames", counts.arrived);

    let before = allocations();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(allocations() - before, 1, "the counting works");
}
