use proptest::prelude::*;

use super::*;

const FRAME: i64 = 33_000_000;

fn at(class: usize, score: f32, x: f32, y: f32) -> Detection {
    Detection { class, score, bbox: BoundingBox::new(x - 20.0, y - 20.0, x + 20.0, y + 20.0) }
}

fn tracker() -> Tracker {
    Tracker::new(TrackerOptions::default()).unwrap()
}

fn ids(tracker: &Tracker) -> Vec<u64> {
    tracker.tracks().map(|t| t.id).collect()
}

/// Two frames of one object at (100, 100), which make it track 1 at stamp `FRAME`.
fn with_one_track() -> Tracker {
    let mut tracker = tracker();
    tracker.update(0, &[at(2, 0.9, 100.0, 100.0)]);
    tracker.update(FRAME, &[at(2, 0.9, 100.0, 100.0)]);
    assert_eq!(ids(&tracker), [1]);
    tracker
}

#[test]
fn an_object_has_an_identity_once_it_was_seen_twice() {
    let mut tracker = tracker();
    tracker.update(0, &[at(2, 0.9, 100.0, 100.0)]);
    assert_eq!((ids(&tracker), tracker.identities()), (vec![], &[0][..]));
    tracker.update(FRAME, &[at(2, 0.9, 102.0, 100.0)]);
    assert_eq!((ids(&tracker), tracker.identities()), (vec![1], &[1][..]));
    assert_eq!(tracker.tracks().next().map(|t| (t.age, t.missed, t.class)), Some((2, 0, 2)));
}

#[test]
fn what_is_seen_once_leaves_nothing() {
    let mut tracker = tracker();
    tracker.update(0, &[at(2, 0.9, 100.0, 100.0)]);
    tracker.update(FRAME, &[]);
    tracker.update(2 * FRAME, &[at(2, 0.9, 100.0, 100.0)]);
    assert!(ids(&tracker).is_empty());
}

#[test]
fn a_low_score_continues_a_track_and_begins_none() {
    let mut tracker = with_one_track();
    tracker.update(2 * FRAME, &[at(2, 0.15, 101.0, 100.0), at(2, 0.15, 400.0, 100.0)]);
    assert_eq!(tracker.identities(), [1, 0]);
    tracker.update(3 * FRAME, &[at(2, 0.15, 101.0, 100.0), at(2, 0.15, 400.0, 100.0)]);
    assert_eq!(ids(&tracker), [1]);
}

#[test]
fn a_score_below_the_low_one_does_not_count() {
    let mut tracker = with_one_track();
    tracker.update(2 * FRAME, &[at(2, 0.05, 100.0, 100.0)]);
    assert_eq!(tracker.tracks().map(|t| t.missed).collect::<Vec<_>>(), [1]);
}

#[test]
fn another_class_is_another_object() {
    let mut tracker = with_one_track();
    tracker.update(2 * FRAME, &[at(3, 0.9, 100.0, 100.0)]);
    assert_eq!(tracker.identities(), [0]);
}

#[test]
fn an_object_comes_out_from_behind_another_with_its_identity() {
    let mut tracker = tracker();
    // 300 px/s to the right, hidden for ten frames.
    for i in 0..40 {
        let x = 100.0 + 10.0 * i as f32;
        let seen = [at(2, 0.9, x, 100.0)];
        tracker.update(i * FRAME, if (20..30).contains(&i) { &[] } else { &seen });
        if (20..30).contains(&i) {
            let track = tracker.tracks().next().unwrap();
            assert_eq!(track.missed, i as u32 - 19);
            assert!((track.bbox.center().0 - x).abs() < 5.0, "{track:?} at {x}");
        }
    }
    assert_eq!(ids(&tracker), [1]);
    let track = tracker.tracks().next().unwrap();
    assert!((track.velocity[0] - 303.0).abs() < 10.0 && track.velocity[1].abs() < 1.0, "{track:?}");
}

#[test]
fn an_identity_that_ended_is_not_used_again() {
    let mut tracker = with_one_track();
    for i in 2..40 {
        tracker.update(i * FRAME, &[]);
    }
    assert!(ids(&tracker).is_empty());
    for i in 40..42 {
        tracker.update(i * FRAME, &[at(2, 0.9, 100.0, 100.0)]);
    }
    assert_eq!(ids(&tracker), [2]);
}

#[test]
fn what_is_forgotten_keeps_its_identity_for_itself() {
    let mut tracker = with_one_track();
    tracker.forget();
    assert!(ids(&tracker).is_empty());
    for i in 2..4 {
        tracker.update(i * FRAME, &[at(2, 0.9, 100.0, 100.0)]);
    }
    assert_eq!(ids(&tracker), [2]);
}

#[test]
fn two_that_cross_keep_their_identities() {
    let mut tracker = tracker();
    for i in 0..60 {
        let step = 4.0 * i as f32;
        let (right, left) = (at(2, 0.9, 100.0 + step, 100.0), at(2, 0.9, 340.0 - step, 110.0));
        // In either order.
        let swapped = i % 2 == 1;
        tracker.update(i * FRAME, &if swapped { [left, right] } else { [right, left] });
        if i > 0 {
            let found = tracker.identities();
            let [of_right, of_left] = if swapped { [found[1], found[0]] } else { [found[0], found[1]] };
            assert_eq!((of_right, of_left), (2, 1), "frame {i}");
        }
    }
    let velocities: Vec<_> = tracker.tracks().map(|t| (t.id, t.velocity[0].signum())).collect();
    assert_eq!(velocities, [(2, 1.0), (1, -1.0)]);
}

#[test]
fn the_step_in_time_is_the_stamps() {
    let mut tracker = tracker();
    // 200 px/s at irregular stamps.
    let mut stamp = 1_700_000_000_000_000_000;
    let mut x = 100.0;
    for step in [0, 20, 45, 10, 33, 80, 33, 5, 60, 33, 33, 70] {
        stamp += step * 1_000_000;
        x += 0.2 * step as f32;
        tracker.update(stamp, &[at(2, 0.9, x, 100.0)]);
    }
    let velocity = tracker.tracks().next().unwrap().velocity;
    assert!((velocity[0] - 200.0).abs() < 10.0, "{velocity:?}");
}

#[test]
fn stamps_that_repeat_or_go_back_move_nothing_and_break_nothing() {
    let mut tracker = tracker();
    for i in 0..20 {
        tracker.update(i * FRAME, &[at(2, 0.9, 100.0 + 5.0 * i as f32, 100.0)]);
    }
    let before = tracker.tracks().next().unwrap();
    for stamp in [19 * FRAME, 19 * FRAME, 18 * FRAME] {
        tracker.update(stamp, &[]);
        let track = tracker.tracks().next().unwrap();
        assert_eq!((track.id, track.bbox, track.covariance), (1, before.bbox, before.covariance));
    }
    tracker.update(19 * FRAME, &[at(2, 0.9, 200.0, 100.0)]);
    assert_eq!(ids(&tracker), [1]);
}

#[test]
fn a_jump_of_the_clock_ends_all_tracks() {
    for jump in [3_600_000_000_000, -3_600_000_000_000, i64::MAX, i64::MIN] {
        let mut tracker = with_one_track();
        tracker.update(jump, &[at(2, 0.9, 100.0, 100.0)]);
        tracker.update(jump.saturating_add(FRAME), &[at(2, 0.9, 100.0, 100.0)]);
        assert_eq!(ids(&tracker), [2], "{jump}");
    }
}

#[test]
fn a_full_tracker_keeps_what_it_has() {
    let options = TrackerOptions { max_tracks: 3, max_detections: 4, ..TrackerOptions::default() };
    let mut tracker = Tracker::new(options).unwrap();
    let detections: Vec<_> = (0..6).map(|i| at(2, 0.9, 100.0 * i as f32, 100.0)).collect();
    for i in 0..5 {
        tracker.update(i * FRAME, &detections);
    }
    assert_eq!((ids(&tracker), tracker.identities()), (vec![1, 2, 3], &[1, 2, 3, 0][..]));
}

fn detection() -> impl Strategy<Value = Detection> {
    let odd = prop_oneof![
        30 => -500f32..2500.0,
        1 => Just(f32::NAN),
        1 => Just(f32::INFINITY),
        1 => Just(f32::MAX),
        1 => Just(f32::MIN),
    ];
    (0usize..3, -0.1f32..1.1, [odd.clone(), odd.clone(), odd.clone(), odd])
        .prop_map(|(class, score, [a, b, c, d])| Detection { class, score, bbox: BoundingBox::new(a, b, c, d) })
}

proptest! {
    #[test]
    fn whatever_comes_identities_are_unique_new_ones_rise_and_covariances_are_sound(
        frames in prop::collection::vec((any::<i32>(), prop::collection::vec(detection(), 0..12), any::<bool>()), 1..40),
    ) {
        let mut tracker = tracker();
        let (mut stamp, mut highest, mut last) = (0i64, 0, Vec::new());
        for (step, detections, repeat) in frames {
            stamp += i64::from(step);
            // The same again now and then, so that tracks come about.
            if !repeat || last.is_empty() {
                last = detections;
            }
            tracker.update(stamp, &last);
            let tracks: Vec<_> = tracker.tracks().collect();
            let mut ids: Vec<_> = tracks.iter().map(|t| t.id).collect();
            ids.sort_unstable();
            prop_assert!(ids.windows(2).all(|w| w[0] < w[1]));
            // An identity not seen before is higher than all before it.
            let new = ids.iter().copied().filter(|&id| id > highest).collect::<Vec<_>>();
            prop_assert!(new.iter().enumerate().all(|(i, &id)| id == highest + 1 + i as u64), "{:?}", new);
            highest = highest.max(ids.last().copied().unwrap_or(0));
            for track in tracks {
                let p = track.covariance;
                prop_assert!(p.iter().all(|v| v.is_finite()) && p == p.transpose(), "{}", p);
                prop_assert!((0..4).all(|i| p[(i, i)] > 0.0), "{}", p);
            }
        }
    }
}
