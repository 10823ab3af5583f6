//! The degraded mode on the real frame path: what it leaves out, and which cameras make it begin
//! and end.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use peregrine_core::now_ns;
use peregrine_ros::clock::ClockSample;
use peregrine_ros::parameters::Parameters;
use peregrine_support::ros_is_absent;
use r2r::ParameterValue;

use crate::in_process::{image, small, Parts};

const EPOCH: i64 = 1_700_000_000_000_000_000;

/// With such a degraded mode, entered after 3 misses and left after 5 frames on time.
fn parameters(mode: &str, input: i64, stale_after_ms: f64) -> Parameters {
    let integer = ParameterValue::Integer;
    small([
        ("degraded_mode", ParameterValue::String(mode.into())),
        ("degrade_after_misses", integer(3)),
        ("restore_after_frames", integer(5)),
        ("input_width", integer(input)),
        ("input_height", integer(input)),
        ("deadline_ms", ParameterValue::Double(10_000.0)),
        ("stale_after_ms", ParameterValue::Double(stale_after_ms)),
    ])
}

/// Longer than any test takes.
const HOUR_MS: f64 = 3_600_000.0;

/// Processes a frame that misses its deadline, or not; whether the degraded mode is on after it.
fn pass(parts: &mut Parts, camera: usize, late: bool) -> bool {
    let age = if late { 60_000_000_000 } else { 0 };
    let arrival = ClockSample { ros: EPOCH + age, monotonic: now_ns() };
    parts.arrivals[camera].accept(image(EPOCH, "mono8"), arrival);
    assert!(parts.path.process_next(Duration::ZERO));
    parts.shared.degraded.load(Relaxed)
}

fn enters_and_leaves(name: &str, mode: &str, cells: [usize; 2]) {
    if ros_is_absent() {
        return;
    }
    let mut parts = Parts::new(name, 1, &parameters(mode, 64, HOUR_MS));
    let of_last_frame = |parts: &mut Parts| parts.path.model.pipeline().result().mask.classes.len();
    assert!(!pass(&mut parts, 0, false));
    assert_eq!(of_last_frame(&mut parts), cells[0]);
    for _ in 0..3 {
        pass(&mut parts, 0, true);
    }
    assert!(pass(&mut parts, 0, false), "{mode} is entered");
    assert_eq!(of_last_frame(&mut parts), cells[1]);
    while pass(&mut parts, 0, false) {}
    let counts = parts.shared.cameras[0].accounting.counts();
    assert_eq!((counts.arrived, counts.published()), (9, 9), "{mode} is left, and no frame is lost");
}

/// A mask has a cell for 4x4 pixels of the input, and half of 64x64 is 32x32 when counted in whole
/// strides.
#[test]
fn a_smaller_input_is_entered_and_left() {
    enters_and_leaves("smaller", "smaller_input", [256, 64]);
}

#[test]
fn both_reductions_are_entered_and_left() {
    enters_and_leaves("both", "both", [256, 0]);
}

#[test]
fn one_camera_that_always_misses_is_enough_to_degrade() {
    if ros_is_absent() {
        return;
    }
    let mut parts = Parts::new("beside", 2, &parameters("no_segmentation", 32, HOUR_MS));
    let mut degraded = false;
    for _ in 0..3 {
        pass(&mut parts, 0, false);
        degraded = pass(&mut parts, 1, true);
    }
    assert!(degraded, "entered after three misses in a row of one camera");
    for _ in 0..20 {
        assert!(pass(&mut parts, 0, false), "as long as the other camera needs it");
    }
}

#[test]
fn a_camera_that_is_gone_does_not_keep_the_degraded_mode() {
    if ros_is_absent() {
        return;
    }
    let mut parts = Parts::new("gone", 2, &parameters("no_segmentation", 32, HOUR_MS));
    for _ in 0..3 {
        pass(&mut parts, 1, true);
    }
    assert!(pass(&mut parts, 0, false));
    // From now on 10 ms of silence are too much, and the second camera is silent for longer.
    std::thread::sleep(Duration::from_millis(20));
    parts.shared.settings.store(&parameters("no_segmentation", 32, 10.0));
    assert!(!pass(&mut parts, 0, false));
}
