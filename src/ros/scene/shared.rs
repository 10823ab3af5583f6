//! What the two threads of a scene share. Neither ever waits for the other.

use std::sync::atomic::AtomicBool;

use crossbeam::queue::ArrayQueue;
use peregrine_geometry::occupancy::OccupancyGrid;
use peregrine_geometry::Ground;

/// What the frame thread needs to place objects on the ground; made on the spinning thread.
pub struct GroundView {
    pub ground: Ground,
    pub map: OccupancyGrid,
}

/// Which outputs have subscribers.
#[derive(Debug, Default)]
pub struct Wanted {
    pub tracks: AtomicBool,
    pub objects: AtomicBool,
    pub map: AtomicBool,
    pub markers: AtomicBool,
    pub image: AtomicBool,
}

/// See the module.
pub struct SceneShared {
    pub wanted: Wanted,
    /// The next view, and those replaced, for the spinning thread to drop.
    pub(super) view: ArrayQueue<Box<GroundView>>,
    pub(super) retired: ArrayQueue<Box<GroundView>>,
}

impl SceneShared {
    pub(super) fn new() -> Self {
        Self { wanted: Wanted::default(), view: ArrayQueue::new(1), retired: ArrayQueue::new(4) }
    }
}
