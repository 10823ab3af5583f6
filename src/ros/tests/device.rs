//! A GPU that fails under the node: no frame is lost, and it is told where they are worked on from then on.

use std::sync::Arc;
use std::time::Duration;

use peregrine_core::now_ns;
use peregrine_engine::cuda::recording::Recording;
use peregrine_pipeline::Pipeline;
use peregrine_reference::cuda::failing::{Failing, Faults};
use peregrine_ros::clock::Instant;
use peregrine_ros::engines::{Description, Engines, Recipe};
use peregrine_ros::realtime::Profile;

use crate::in_process::{image, ros_is_absent, small, Parts};

/// On what stands in for a device.
fn engines(faults: &Faults) -> (Box<Engines>, Description) {
    let driver = Failing::driver(Arc::new(Recording::of_architecture(87)), faults);
    let recipe = Recipe::new(&small([]), Profile::default());
    recipe
        .build_with(|student, options| Ok(Pipeline::on_opened(Ok(Arc::clone(&driver)), student, options, true)?))
        .unwrap()
}

#[test]
fn a_device_that_fails_is_told_once_with_the_reason_and_the_frames_go_on() {
    if ros_is_absent() {
        return;
    }
    // Lost with the first call after what building takes.
    let faults = Faults::lost_at(usize::MAX);
    let (built, description) = engines(&faults);
    assert!(description.device.starts_with("cuda ("), "{}", description.device);
    let calls = faults.calls();
    drop(built);
    let mut parts = Parts::with_engines("device", 1, &small([]), engines(&Faults::lost_at(calls)).0);
    let mut told = Vec::new();
    for _ in 0..3 {
        let arrival = Instant { ros: 1_700_000_000_000_000_000, monotonic: now_ns() };
        parts.arrivals[0].accept(image(arrival.ros, "mono8"), arrival);
        assert!(parts.path.turn(Duration::ZERO));
        told.extend(parts.shared.moved_to.pop());
    }
    assert_eq!(parts.shared.cameras[0].ledger.counts().published(), 3);
    assert!(
        matches!(&told[..], [once] if once.starts_with("cpu (not cuda: ") && once.contains("lost in a test")),
        "{told:?}"
    );
}
