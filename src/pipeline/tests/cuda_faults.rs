//! A GPU that fails, at whatever call: one sentence, the CPU where that is allowed, nothing kept
//! and nothing hung.

use std::sync::Arc;
use std::time::Duration;

use peregrine_core::ImageView;
use peregrine_engine::cuda::recording::Recording;
use peregrine_engine::cuda::{CudaError, Driver, NoCudaDevice};
use peregrine_pipeline::{DeviceInUse, GpuOptions, Pipeline, PipelineError, PipelineOptions};
use peregrine_reference::cuda::failing::{Failing, Faults};
use peregrine_student::Student;

const WIDTH: u32 = 48;
const HEIGHT: u32 = 40;

/// Small, so that the CPU's turn is quick.
fn options() -> PipelineOptions {
    PipelineOptions { input_size: Some((64, 64)), threads: 1, ..PipelineOptions::default() }
}

fn pixels() -> Vec<u8> {
    (0..3 * WIDTH * HEIGHT).map(|i| (i * 7919 % 251) as u8).collect()
}

/// What is wrong with a message for a user, if anything is.
fn fault_of(message: &str) -> Option<&'static str> {
    let helps = ["device: cpu", "nvidia-smi", "install", "update", "NVRTC of CUDA"];
    match () {
        () if message.contains('\n') => Some("is more than a line"),
        () if message.matches(". ").count() > 0 => Some("is more than a sentence"),
        () if !helps.iter().any(|help| message.contains(help)) => Some("names no remedy"),
        () => None,
    }
}

/// A frame on a device that stands in, with `faults`; the device that was in use after it, and the
/// detections.
fn frame(recording: &Arc<Recording>, faults: &Faults, fallback: bool) -> Result<DeviceInUse, String> {
    let driver = Failing::driver(recording.clone(), faults);
    let student = Student::embedded();
    let mut pipeline =
        Pipeline::on_opened(Ok(driver), &student, options(), fallback).map_err(|error| error.to_string())?;
    let pixels = pixels();
    let image = ImageView::new("rgb8", WIDTH, HEIGHT, 3 * WIDTH, &pixels).unwrap();
    for _ in 0..2 {
        pipeline.process(&image).map_err(|error| error.to_string())?;
    }
    Ok(pipeline.device())
}

/// The calls of two frames, from opening on.
fn calls(architecture: u32) -> usize {
    let faults = Faults::lost_at(usize::MAX);
    let used = frame(&Arc::new(Recording::of_architecture(architecture)), &faults, false).unwrap();
    assert!(matches!(used, DeviceInUse::Cuda(_)));
    faults.calls()
}

#[test]
fn a_device_lost_at_any_call_leaves_the_frames_to_the_cpu() {
    for architecture in [87, 90] {
        let calls = calls(architecture);
        assert!(calls > 15, "{calls} calls");
        for n in 0..calls {
            let recording = Arc::new(Recording::of_architecture(architecture));
            let used = frame(&recording, &Faults::lost_at(n), true).unwrap();
            let DeviceInUse::Cpu { instead_of_cuda: Some(why) } = used else { panic!("call {n}: {used:?}") };
            assert_eq!(fault_of(&why), None, "call {n}: {why}");
            assert_eq!(recording.held(), [], "call {n}: memory is kept");
        }
    }
}

#[test]
fn without_leave_for_the_cpu_a_lost_device_is_one_error() {
    for n in 0..calls(90) {
        let recording = Arc::new(Recording::of_architecture(90));
        let error = frame(&recording, &Faults::lost_at(n), false).unwrap_err();
        assert_eq!(fault_of(&error), None, "call {n}: {error}");
        assert!(error.contains("lost in a test"), "call {n}: {error}");
        assert_eq!(recording.held(), [], "call {n}: memory is kept");
    }
}

#[test]
fn the_frame_in_which_the_device_is_lost_is_the_cpus_frame() {
    let student = Student::embedded();
    let pixels = pixels();
    let image = ImageView::new("rgb8", WIDTH, HEIGHT, 3 * WIDTH, &pixels).unwrap();
    let mut on_cpu = Pipeline::new(&student, options()).unwrap();
    let expected = on_cpu.process(&image).unwrap();
    // The last two calls are the second frame's launch and wait.
    for n in [calls(90) - 2, calls(90) - 1] {
        let driver = Failing::driver(Arc::new(Recording::of_architecture(90)), &Faults::lost_at(n));
        let mut pipeline = Pipeline::on_opened(Ok(driver), &student, options(), true).unwrap();
        pipeline.process(&image).unwrap();
        assert!(matches!(pipeline.device(), DeviceInUse::Cuda(_)));
        let found = pipeline.process(&image).unwrap();
        assert_eq!((&found.detections, &found.mask.classes), (&expected.detections, &expected.mask.classes));
    }
}

#[test]
fn a_device_that_hangs_leaves_its_frame_to_the_cpu_and_its_memory_alone() {
    let student = Student::embedded();
    let pixels = pixels();
    let image = ImageView::new("rgb8", WIDTH, HEIGHT, 3 * WIDTH, &pixels).unwrap();
    let mut on_cpu = Pipeline::new(&student, options()).unwrap();
    let expected = on_cpu.process(&image).unwrap();
    let recording = Arc::new(Recording::of_architecture(90));
    let faults = Faults::lost_at(usize::MAX);
    let driver = Failing::driver(recording.clone(), &faults);
    let mut pipeline = Pipeline::on_opened(Ok(driver), &student, options(), true).unwrap();
    pipeline.process(&image).unwrap();
    let held = recording.held();
    faults.set_hanging(true);
    for _ in 0..2 {
        let found = pipeline.process(&image).unwrap();
        assert_eq!((&found.detections, &found.mask.classes), (&expected.detections, &expected.mask.classes));
    }
    let DeviceInUse::Cpu { instead_of_cuda: Some(why) } = pipeline.device() else { panic!("{:?}", pipeline.device()) };
    assert!(why.contains("within 500 ms"), "{why}");
    drop(pipeline);
    assert_eq!(recording.held(), held, "the device may still use it");
}

#[test]
fn without_leave_for_the_cpu_frames_fail_until_the_device_ends_what_hangs() {
    let pixels = pixels();
    let image = |encoding| ImageView::new(encoding, WIDTH, HEIGHT, 3 * WIDTH, &pixels).unwrap();
    let recording = Arc::new(Recording::of_architecture(90));
    let faults = Faults::lost_at(usize::MAX);
    let driver = Failing::driver(recording.clone(), &faults);
    let gpu = GpuOptions { timeout: Duration::from_millis(70), ..GpuOptions::default() };
    let options = PipelineOptions { gpu, ..options() };
    let mut pipeline = Pipeline::on_opened(Ok(driver), &Student::embedded(), options, false).unwrap();
    for round in 0..2 {
        faults.set_hanging(true);
        let why = pipeline.process(&image("rgb8")).unwrap_err().to_string();
        assert!(why.contains("within 70 ms"), "{why}");
        let graphs = recording.graphs().len();
        // Frames of this kind and of another: neither is waited for, nor is anything asked of the device.
        for encoding in ["rgb8", "bgr8"] {
            assert!(pipeline.process(&image(encoding)).is_err());
        }
        assert_eq!(recording.graphs().len(), graphs, "round {round}");
        faults.set_hanging(false);
        pipeline.process(&image("rgb8")).unwrap();
        pipeline.process(&image("bgr8")).unwrap();
    }
    assert!(matches!(pipeline.device(), DeviceInUse::Cuda(_)));
    drop(pipeline);
    assert_eq!(recording.held(), [], "what has ended is given back");
}

#[test]
fn too_little_memory_is_refused_with_the_amount_asked_for() {
    let recording = Arc::new(Recording::of_architecture(90));
    let mut memory = 0;
    let mut refused = 0;
    while let Err(why) = frame(&recording, &Faults::memory(memory), false) {
        assert_eq!(fault_of(&why), None, "{why}");
        assert!(why.contains("bytes left"), "{why}");
        assert_eq!(recording.held(), [], "with {memory} bytes");
        (memory, refused) = (memory + 400_000, refused + 1);
    }
    assert!(refused > 3, "{refused} sizes too small");
    let used = frame(&recording, &Faults::memory(memory / 2), true).unwrap();
    assert!(matches!(used, DeviceInUse::Cpu { instead_of_cuda: Some(_) }));
}

#[test]
fn an_unusable_device_is_refused_with_a_remedy_or_falls_back() {
    let device = || "GeForce GTX 1080".to_owned();
    let errors = [
        CudaError::NoDevice(NoCudaDevice::NoDriver),
        CudaError::NoDevice(NoCudaDevice::Driver("CUDA_ERROR_SYSTEM_NOT_READY".into())),
        CudaError::NoDevice(NoCudaDevice::NoDevice),
        CudaError::Architecture { device: device(), architecture: 61 },
        CudaError::DriverTooOld { found: "11.4".into(), needed: "12.0".into() },
        CudaError::NoCompiler { device: device(), cache: "/var/cache/peregrine/cuda".into() },
        CudaError::Compile { module: "stem", architecture: 120, why: "NVRTC_ERROR_INVALID_OPTION".into() },
        CudaError::OutOfMemory { bytes: 1 << 30 },
        CudaError::Hangs { limit_ms: 500 },
        CudaError::Failed { call: "cuGraphLaunch", why: "CUDA_ERROR_LAUNCH_FAILED: unspecified".into() },
    ];
    let student = Student::embedded();
    for error in errors {
        let why = error.to_string();
        assert_eq!(fault_of(&why), None, "{why}");
        let refused = Pipeline::on_opened(Err(error.clone()), &student, options(), false).err();
        assert!(matches!(refused, Some(PipelineError::Device(ref given)) if *given == why), "{refused:?}");
        let pipeline = Pipeline::on_opened(Err(error), &student, options(), true).unwrap();
        assert_eq!(pipeline.device(), DeviceInUse::Cpu { instead_of_cuda: Some(why) });
    }
}

#[test]
fn a_lost_device_works_again_after_reconfiguration() {
    let recording = Arc::new(Recording::of_architecture(90));
    let used = frame(&recording, &Faults::lost_at(calls(90) - 1), true).unwrap();
    assert!(matches!(used, DeviceInUse::Cpu { .. }));
    let driver: Arc<dyn Driver> = recording.clone();
    let pipeline = Pipeline::on_opened(Ok(driver), &Student::embedded(), options(), true).unwrap();
    assert!(matches!(pipeline.device(), DeviceInUse::Cuda(_)));
}
