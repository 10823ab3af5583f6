//! Images of several cameras side by side on a GPU: begun together, finished one after the other, with the results of one
//! at a time, whatever fails in between.

use std::sync::Arc;

use peregrine_core::{Encoding, ImageView};
use peregrine_engine::cuda::recording::Recording;
use peregrine_pipeline::{Begun, DeviceInUse, FrameResult, Pipeline, PipelineOptions};
use peregrine_reference::cuda::failing::{Failing, Faults};
use peregrine_reference::cuda::Emulated;
use peregrine_student::Student;

const CAMERAS: usize = 4;
const WIDTH: u32 = 48;
const HEIGHT: u32 = 40;

/// Small, so that the CPU's turn is quick; with scores low enough for boxes.
fn options() -> PipelineOptions {
    PipelineOptions { score_threshold: 0.02, input_size: Some((64, 64)), threads: 1, ..PipelineOptions::default() }
}

/// Of each camera another picture.
fn pictures() -> [Vec<u8>; CAMERAS] {
    [1u32, 2, 3, 5].map(|seed| (0..3 * WIDTH * HEIGHT).map(|i| (i * 7919 * seed % 251) as u8).collect())
}

fn view(pixels: &[u8]) -> ImageView<'_> {
    ImageView::new("rgb8", WIDTH, HEIGHT, 3 * WIDTH, pixels).unwrap()
}

fn begin_all(pipeline: &mut Pipeline, pictures: &[Vec<u8>; CAMERAS]) -> [Option<Begun>; CAMERAS] {
    std::array::from_fn(|camera| pipeline.begin(camera, &view(&pictures[camera])))
}

/// The results of all cameras, after `between` what is begun and what is finished.
fn side_by_side(
    pipeline: &mut Pipeline,
    pictures: &[Vec<u8>; CAMERAS],
    between: impl FnOnce(&mut Pipeline),
) -> [Result<FrameResult, String>; CAMERAS] {
    let begun = begin_all(pipeline, pictures);
    between(pipeline);
    std::array::from_fn(|camera| {
        let result = pipeline.finish(camera, &view(&pictures[camera]), begun[camera], 0);
        result.cloned().map_err(|error| error.to_string())
    })
}

/// The first image of each camera, whose graphs are made.
fn warm_up(pipeline: &mut Pipeline, pictures: &[Vec<u8>; CAMERAS]) -> Result<(), String> {
    (0..CAMERAS).try_for_each(|camera| {
        let done = pipeline.process_from(camera, &view(&pictures[camera]), 0);
        done.map(drop).map_err(|error| error.to_string())
    })
}

/// On a device that stands in, with `faults`.
fn pipeline(recording: &Arc<Recording>, faults: &Faults, fallback: bool) -> Result<Pipeline, String> {
    let driver = Failing::driver(recording.clone(), faults);
    Pipeline::on_opened(Ok(driver), &Student::embedded(), options(), fallback).map_err(|error| error.to_string())
}

fn sound() -> (Arc<Recording>, Faults, Pipeline) {
    let (recording, faults) = (Arc::new(Recording::of_architecture(90)), Faults::lost_at(usize::MAX));
    let mut made = pipeline(&recording, &faults, true).unwrap();
    warm_up(&mut made, &pictures()).unwrap();
    (recording, faults, made)
}

/// What the CPU finds in each picture.
fn on_cpu(pictures: &[Vec<u8>; CAMERAS]) -> [FrameResult; CAMERAS] {
    let mut pipeline = Pipeline::new(&Student::embedded(), options()).unwrap();
    std::array::from_fn(|camera| pipeline.process(&view(&pictures[camera])).unwrap().clone())
}

fn assert_same(found: &FrameResult, expected: &FrameResult, what: &str) {
    assert_eq!(found.detections, expected.detections, "{what}");
    assert_eq!(found.mask.classes, expected.mask.classes, "{what}");
    assert_eq!(found.size, expected.size, "{what}");
}

#[test]
fn all_that_is_begun_is_launched_before_the_first_is_waited_for() {
    let (_, faults, mut pipeline) = sound();
    assert_eq!((faults.launches(), faults.most_at_once()), (CAMERAS, 1), "one at a time");
    for round in 2..5 {
        let results = side_by_side(&mut pipeline, &pictures(), |_| ());
        assert!(results.iter().all(Result::is_ok));
        assert_eq!((faults.launches(), faults.most_at_once()), (round * CAMERAS, CAMERAS));
    }
}

#[test]
fn side_by_side_images_have_the_results_of_one_at_a_time() {
    let Some(driver) = Emulated::driver(false, false) else { return };
    let (student, pictures) = (Student::embedded(), pictures());
    let make = || Pipeline::on_cuda(&driver, &student, &options(), false).unwrap();
    let mut alone = make();
    let expected: [_; CAMERAS] =
        std::array::from_fn(|camera| alone.process_from(camera, &view(&pictures[camera]), 0).unwrap().clone());
    assert!(expected.iter().any(|result| !result.detections.is_empty()), "there is something to compare");
    let mut together = make();
    warm_up(&mut together, &pictures).unwrap();
    for (camera, found) in side_by_side(&mut together, &pictures, |_| ()).iter().enumerate() {
        assert_same(found.as_ref().unwrap(), &expected[camera], &format!("camera {camera}"));
    }
    // In another order than they were begun in, and one of them alone.
    let begun = begin_all(&mut together, &pictures);
    for camera in [2, 0, 3, 1] {
        let found = together.finish(camera, &view(&pictures[camera]), begun[camera], 0).unwrap();
        assert_same(found, &expected[camera], &format!("camera {camera}"));
    }
    let found = together.process_from(1, &view(&pictures[1]), 0).unwrap();
    assert_same(found, &expected[1], "one at a time again");
}

#[test]
fn an_image_of_a_new_kind_or_of_a_busy_camera_is_not_begun() {
    let (recording, faults, mut pipeline) = sound();
    let (pictures, held) = (pictures(), recording.held());
    let other = ImageView::new("bgr8", WIDTH, HEIGHT, 3 * WIDTH, &pictures[0]).unwrap();
    assert_eq!(pipeline.begin(0, &other), None, "its graph is to be made");
    assert_eq!(pipeline.begin(CAMERAS, &view(&pictures[0])), None, "its memory is to be allocated");
    assert_eq!(recording.held(), held);
    let first = pipeline.begin(0, &view(&pictures[0]));
    assert!(first.is_some());
    assert_eq!(pipeline.begin(0, &view(&pictures[1])), None, "one of each camera");
    pipeline.finish(0, &view(&pictures[0]), first, 0).unwrap();
    pipeline.finish(0, &other, None, 0).unwrap();
    assert!(pipeline.begin(0, &other).is_some());
    assert_eq!(faults.launches(), CAMERAS + 3);
    drop(pipeline);
    assert_eq!(recording.held(), [], "what is unfinished is waited for");
}

#[test]
fn nothing_is_begun_on_the_cpu() {
    let (mut pipeline, pictures) = (Pipeline::new(&Student::embedded(), options()).unwrap(), pictures());
    let expected = on_cpu(&pictures);
    assert_eq!(begin_all(&mut pipeline, &pictures), [None; CAMERAS]);
    for (camera, found) in side_by_side(&mut pipeline, &pictures, |_| ()).iter().enumerate() {
        assert_same(found.as_ref().unwrap(), &expected[camera], &format!("camera {camera}"));
    }
}

#[test]
fn what_was_begun_before_a_reset_is_done_anew() {
    let (_, faults, mut pipeline) = sound();
    let results = side_by_side(&mut pipeline, &pictures(), Pipeline::reset);
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(faults.launches(), 3 * CAMERAS);
    assert!(pipeline.is_on_cuda());
}

#[test]
fn what_was_begun_before_another_image_is_done_anew() {
    let (_, faults, mut pipeline) = sound();
    let pictures = pictures();
    let results = side_by_side(&mut pipeline, &pictures, |pipeline| {
        pipeline.prepare(1, Encoding::Bgr8, (WIDTH as usize, HEIGHT as usize));
        pipeline.process_from(2, &view(&pictures[0]), 0).unwrap();
    });
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(faults.launches(), 2 * CAMERAS + 3);
}

#[test]
fn a_device_lost_at_any_call_leaves_all_that_was_begun_to_the_cpu() {
    let (pictures, whole) = (pictures(), Faults::lost_at(usize::MAX));
    let expected = on_cpu(&pictures);
    let mut warm = pipeline(&Arc::new(Recording::of_architecture(90)), &whole, true).unwrap();
    warm_up(&mut warm, &pictures).unwrap();
    let before = whole.calls();
    assert!(side_by_side(&mut warm, &pictures, |_| ()).iter().all(Result::is_ok));
    assert_eq!(whole.calls() - before, 2 * CAMERAS, "a launch and a wait for each");
    for n in before..whole.calls() {
        let recording = Arc::new(Recording::of_architecture(90));
        let mut pipeline = pipeline(&recording, &Faults::lost_at(n), true).unwrap();
        warm_up(&mut pipeline, &pictures).unwrap();
        assert!(pipeline.is_on_cuda(), "call {n}");
        let results = side_by_side(&mut pipeline, &pictures, |_| ());
        let DeviceInUse::Cpu { instead_of_cuda: Some(why) } = pipeline.device() else { panic!("call {n}") };
        assert!(why.contains("lost in a test"), "{why}");
        // Those that were collected before the loss are the device's, which finds nothing where it only stands in.
        let collected = (n - before).saturating_sub(CAMERAS);
        for (camera, result) in results.iter().enumerate() {
            let what = format!("call {n}, camera {camera}");
            let found = result.as_ref().unwrap_or_else(|why| panic!("{what}: {why}"));
            if camera >= collected {
                assert_same(found, &expected[camera], &what);
            }
        }
        drop(pipeline);
        assert_eq!(recording.held(), [], "call {n}: memory is kept");
    }
}

#[test]
fn a_device_that_hangs_leaves_all_that_was_begun_to_the_cpu_and_its_memory_alone() {
    let (recording, faults, mut pipeline) = sound();
    let pictures = pictures();
    let (expected, held) = (on_cpu(&pictures), recording.held());
    let results = side_by_side(&mut pipeline, &pictures, |_| faults.set_hanging(true));
    for (camera, found) in results.iter().enumerate() {
        assert_same(found.as_ref().unwrap(), &expected[camera], &format!("camera {camera}"));
    }
    let DeviceInUse::Cpu { instead_of_cuda: Some(why) } = pipeline.device() else { panic!("{:?}", pipeline.device()) };
    assert!(why.contains("within 500 ms"), "{why}");
    drop(pipeline);
    assert_eq!(recording.held(), held, "the device may still use it");
}

#[test]
fn without_leave_for_the_cpu_images_fail_until_the_device_ends_what_hangs() {
    let (recording, faults) = (Arc::new(Recording::of_architecture(90)), Faults::lost_at(usize::MAX));
    let mut pipeline = pipeline(&recording, &faults, false).unwrap();
    let pictures = pictures();
    warm_up(&mut pipeline, &pictures).unwrap();
    for _ in 0..2 {
        let results = side_by_side(&mut pipeline, &pictures, |_| faults.set_hanging(true));
        assert!(results.iter().all(|result| result.as_ref().is_err_and(|why| why.contains("within 500 ms"))));
        let launches = faults.launches();
        assert_eq!(begin_all(&mut pipeline, &pictures), [None; CAMERAS], "what runs is left alone");
        assert_eq!(faults.launches(), launches);
        faults.set_hanging(false);
        assert!(warm_up(&mut pipeline, &pictures).is_ok());
    }
    drop(pipeline);
    assert_eq!(recording.held(), [], "what has ended is given back");
}
