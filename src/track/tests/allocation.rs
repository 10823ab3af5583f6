//! A tracker allocates nothing once it is made.

use peregrine_core::allocations::{allocations, CountingAllocator};
use peregrine_core::{BoundingBox, Detection};
use peregrine_track::{Tracker, TrackerOptions};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::per_thread();

/// Up to 300 boxes without pattern, more than the tracker takes, some of low score, many of which overlap.
fn detections(frame: usize, into: &mut Vec<Detection>) {
    into.clear();
    let mut state = frame as u64 / 3 * 7919 + 1;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    for _ in 0..frame * 37 % 301 {
        let (x, y, width, height) =
            (600.0 * random(), 400.0 * random(), 20.0 + 60.0 * random(), 20.0 + 60.0 * random());
        let bbox = BoundingBox::new(x, y, x + width, y + height);
        into.push(Detection { class: (random() * 3.0) as usize, score: random(), bbox });
    }
}

#[test]
fn five_thousand_frames_of_births_and_deaths_allocate_nothing() {
    let mut tracker = Tracker::new(TrackerOptions { max_tracks: 100, ..TrackerOptions::default() }).unwrap();
    let mut frame = Vec::with_capacity(301);
    let before = allocations();
    let (mut most, mut seen) = (0, 0);
    for i in 0..5_000 {
        detections(i, &mut frame);
        tracker.update(i as i64 * 33_000_000, &frame);
        most = most.max(tracker.tracks().count());
        seen += tracker.identities().iter().filter(|&&id| id != 0).count();
    }
    assert_eq!(allocations() - before, 0);
    assert!(most > 50 && seen > 10_000, "{most} tracks at most, {seen} detections with an identity");
}
