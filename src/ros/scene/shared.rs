//! What the two threads of a scene share. Neither ever waits for the other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

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
    /// The next view (none: nothing is placed on the ground any more), and those replaced, for the
    /// spinning thread to drop.
    pub(super) view: ArrayQueue<Option<Box<GroundView>>>,
    pub(super) retired: ArrayQueue<Box<GroundView>>,
    /// Size of the last image that the view is not for, width and height in 32 bits each; 0 while
    /// images are as the view has them.
    misfit: AtomicU64,
}

impl SceneShared {
    pub(super) fn new() -> Self {
        Self {
            wanted: Wanted::default(),
            view: ArrayQueue::new(1),
            retired: ArrayQueue::new(4),
            misfit: AtomicU64::new(0),
        }
    }

    /// Remembers the size of an image that the view is not for; `None` if it is for it.
    pub(super) fn set_misfit(&self, size: Option<(u32, u32)>) {
        let packed = size.map_or(0, |(width, height)| u64::from(width) << 32 | u64::from(height));
        self.misfit.store(packed, Relaxed);
    }

    pub(super) fn misfit(&self) -> Option<(u32, u32)> {
        let packed = self.misfit.load(Relaxed);
        (packed != 0).then_some(((packed >> 32) as u32, packed as u32))
    }
}
