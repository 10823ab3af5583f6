//! Which image is sent when, and to which node or camera.

use crate::timetable::Timetable;

/// Frames of a block: with a peer, the nodes take turns in blocks.
const BLOCK: usize = 250;

/// Frames at the start of a block that are not counted, in which the caches refill.
const SETTLE: usize = 10;

/// By how many images each camera is ahead of the one before, where all have the same.
const STAGGER: usize = 5;

/// One image that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Nanoseconds from the start.
    pub offset: u64,
    /// The camera, or the node where several take turns.
    pub link: usize,
    /// Index of the image.
    pub image: usize,
    /// Whether its outcome counts.
    pub counted: bool,
}

/// The frames of all cameras of a node, in the order of time. `own_images`: each camera has its own, which it begins
/// with the first.
pub fn of_cameras(timetables: &[Timetable], own_images: bool) -> Vec<Due> {
    let of = |(link, timetable): (usize, &Timetable)| {
        let first = if own_images { 0 } else { link * STAGGER };
        let offsets: Vec<_> = (0..timetable.len()).filter_map(|index| timetable.offset(index)).collect();
        offsets.into_iter().enumerate().map(move |(i, offset)| Due { offset, link, image: first + i, counted: true })
    };
    let mut all: Vec<_> = timetables.iter().enumerate().flat_map(of).collect();
    all.sort_by_key(|due| (due.offset, due.link));
    all
}

/// Turns in which each of `nodes` has at least `frames` counted frames, all on the same images. Their offsets are to
/// be set ([`at`]).
pub fn turns(nodes: usize, frames: usize) -> Vec<Due> {
    let due = |link, image, counted| Due { offset: 0, link, image, counted };
    if nodes == 1 {
        return (0..frames).map(|image| due(0, image, true)).collect();
    }
    let length = BLOCK.min(frames + SETTLE);
    let turn = |block: usize, node| (0..length).map(move |i| due(node, block * length + i, i >= SETTLE));
    (0..frames.div_ceil(length - SETTLE)).flat_map(|block| (0..nodes).flat_map(move |node| turn(block, node))).collect()
}

/// `frames` images for each of `links` links one after the other, none of which counts. Their offsets are to be set.
pub fn warm_up(links: usize, frames: usize) -> Vec<Due> {
    let due = |link| move |image| Due { offset: 0, link, image, counted: false };
    (0..links).flat_map(|link| (0..frames).map(due(link))).collect()
}

/// At the instants of the timetable.
pub fn at(timetable: &Timetable, mut frames: Vec<Due>) -> Vec<Due> {
    frames.iter_mut().enumerate().for_each(|(index, due)| due.offset = timetable.offset(index).unwrap_or(0));
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_alternate_in_blocks_on_the_same_images() {
        let turns = turns(2, 500);
        let counted = |node| turns.iter().filter(|t| t.link == node && t.counted).map(|t| t.image).collect::<Vec<_>>();
        assert_eq!(counted(0), counted(1));
        assert!(counted(0).len() >= 500);
        assert!(turns[..BLOCK].iter().all(|t| t.link == 0) && turns[BLOCK].link == 1);
    }

    #[test]
    fn few_frames_take_one_short_block_per_node() {
        let turns = turns(2, 30);
        assert_eq!((turns.len(), turns.iter().filter(|t| t.counted).count()), (2 * (30 + SETTLE), 60));
    }

    #[test]
    fn a_single_node_receives_every_frame() {
        assert_eq!(turns(1, 7).iter().filter(|t| t.counted).count(), 7);
    }

    #[test]
    fn the_cameras_of_a_node_keep_their_own_schedules_in_one_order_of_time() {
        let timetable = |times: &[u64]| Timetable::recorded(times, 0, times.len()).unwrap();
        let found = of_cameras(&[timetable(&[0, 20, 40]), timetable(&[10, 20])], false);
        let order: Vec<_> = found.iter().map(|due| (due.offset, due.link, due.image)).collect();
        assert_eq!(order, [(0, 0, 0), (10, 1, STAGGER), (20, 0, 1), (20, 1, STAGGER + 1), (40, 0, 2)]);
        assert_eq!(of_cameras(&[timetable(&[0, 1]), timetable(&[0, 1])], true)[1].image, 0);
    }
}
