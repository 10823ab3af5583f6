//! A GPU that fails under the node: no frame is lost, and the device that inference falls back to
//! is reported.

use std::sync::Arc;
use std::time::Duration;

use peregrine_core::now_ns;
use peregrine_engine::cuda::recording::Recording;
use peregrine_pipeline::Pipeline;
use peregrine_reference::cuda::failing::{Failing, Faults};
use peregrine_ros::clock::ClockSample;
use peregrine_ros::model::{LoadedModel, ModelConfig, ModelDescription};
use peregrine_ros::realtime::RealtimeProfile;
use peregrine_support::ros_is_absent;

use crate::in_process::{image, small, Parts};

/// On an emulated device.
fn model(faults: &Faults) -> (Box<LoadedModel>, ModelDescription) {
    let driver = Failing::driver(Arc::new(Recording::of_architecture(87)), faults);
    let config = ModelConfig::new(&small([]), RealtimeProfile::default());
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
