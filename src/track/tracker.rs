//! Frame after frame: which detection is which object.

use nalgebra::Matrix4;
use peregrine_core::{BoundingBox, Detection};

use super::association::Assignment;
use super::candidate::Candidate;
use super::options::{TrackError, TrackerOptions};

/// A longer step between frames tells nothing of where anything is now, in seconds.
const LONGEST_STEP: f64 = 1.0;

/// One object that is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Track {
    /// From 1; never given to another object.
    pub id: u64,
    /// Index into the detection classes.
    pub class: usize,
    /// Of the last detection that was matched to it.
    pub score: f32,
    /// Estimated at the time of the last frame, in pixels; may reach beyond the image.
    pub bbox: BoundingBox,
    /// Of the centre, in px/s.
    pub velocity: [f64; 2],
    /// Of (centre x, centre y, velocity x, velocity y).
    pub covariance: Matrix4<f64>,
    /// Frames since it was first seen, that one included.
    pub age: u32,
    /// Frames in a row, up to the last, in which it was not seen.
    pub missed: u32,
}

/// Follows objects of one camera. All memory is set aside in [`new`](Self::new).
#[derive(Debug)]
pub struct Tracker {
    options: TrackerOptions,
    candidates: Vec<Candidate>,
    /// For each detection of the current frame, whether it has been assigned.
    taken: Vec<bool>,
    /// For each detection of the last frame, the identity that it was matched to; 0 for none.
    identities: Vec<u64>,
    last_stamp: Option<i64>,
    next_id: u64,
    assignment: Assignment,
    /// Who takes part in one round of association.
    rows: Vec<usize>,
    columns: Vec<usize>,
    pairs: Vec<(usize, usize)>,
}

impl Tracker {
    /// # Errors
    /// When an option is out of range.
    pub fn new(options: TrackerOptions) -> Result<Self, TrackError> {
        options.check()?;
        let (tracks, detections) = (options.max_tracks, options.max_detections);
        Ok(Self {
            options,
            candidates: Vec::with_capacity(tracks),
            taken: Vec::with_capacity(detections),
            identities: Vec::with_capacity(detections),
            last_stamp: None,
            next_id: 1,
            assignment: Assignment::new(tracks, detections),
            rows: Vec::with_capacity(tracks),
            columns: Vec::with_capacity(detections),
            pairs: Vec::with_capacity(tracks.min(detections)),
        })
    }

    /// Changes the score thresholds for the following frames; values out of range are ignored.
    pub fn set_scores(&mut self, high_score: f32, low_score: f32) {
        let options = TrackerOptions { high_score, low_score, ..self.options };
        if options.check().is_ok() {
            self.options = options;
        }
    }

    /// Ends all tracks. Their identities are not used again.
    pub fn forget(&mut self) {
        self.candidates.clear();
    }

    /// Takes in the detections of the frame taken at `stamp`, in nanoseconds of whatever clock.
    ///
    /// Time is only ever taken as the step since the frame before. A step of zero, of a stamp that came twice, moves
    /// nothing: the detections are a second look at the same instant. A stamp that lies before the last one moves
    /// nothing either, and time goes on from it. One that jumps by more than a second and more than `keep_unseen`,
    /// either way, says nothing about where anything is now: all tracks end. Boxes that are not finite are ignored.
    pub fn update(&mut self, stamp: i64, detections: &[Detection]) {
        let detections = &detections[..detections.len().min(self.options.max_detections)];
        self.taken.clear();
        self.taken.extend(detections.iter().map(|d| !d.bbox.is_finite()));
        self.identities.clear();
        self.identities.resize(detections.len(), 0);
        self.advance(stamp);

        let TrackerOptions { high_score, low_score, high_iou, low_iou, tentative_iou, .. } = self.options;
        let high = |d: &Detection| d.score >= high_score;
        let low = |d: &Detection| d.score >= low_score && d.score < high_score;
        self.associate(detections, high, Candidate::is_confirmed, high_iou);
        self.associate(detections, low, |c| c.is_confirmed() && c.missed == 0, low_iou);
        self.associate(detections, high, |c| !c.is_confirmed(), tentative_iou);

        self.settle();
        self.begin(detections, high);
    }

    /// The tracks that are alive, those not seen in the last frame among them, in the order in which they were begun.
    pub fn tracks(&self) -> impl Iterator<Item = Track> + '_ {
        self.candidates.iter().filter(|c| c.is_confirmed()).map(|c| Track {
            id: c.id,
            class: c.class,
            score: c.score,
            bbox: c.filter.bbox(),
            velocity: c.filter.velocity(),
            covariance: c.filter.covariance(),
            age: c.age,
            missed: c.missed,
        })
    }

    /// For each detection of the last frame the identity that it belongs to; 0 where it has none (yet).
    pub fn identities(&self) -> &[u64] {
        &self.identities
    }

    /// Moves every candidate to `stamp`, and ends those that have not been seen for too long.
    fn advance(&mut self, stamp: i64) {
        let step = self.last_stamp.map_or(0, |last| stamp.saturating_sub(last));
        self.last_stamp = Some(stamp);
        let (seconds, keep_unseen) = (step as f64 * 1e-9, self.options.keep_unseen);
        if seconds.abs() > keep_unseen.max(LONGEST_STEP) {
            self.candidates.clear();
        }
        let seconds = seconds.max(0.0);
        self.candidates.retain(|c| c.missed == 0 || c.unseen + seconds <= keep_unseen);
        for candidate in &mut self.candidates {
            candidate.filter.predict(seconds, candidate.missed > 0, &self.options.noise);
            candidate.bbox = candidate.filter.bbox();
            candidate.age = candidate.age.saturating_add(1);
            candidate.unseen += seconds;
            candidate.matched = false;
        }
    }

    /// One round: pairs the chosen candidates and detections that are still free, class by class, for the greatest sum
    /// of overlaps, and corrects the candidates.
    fn associate(
        &mut self,
        detections: &[Detection],
        detection_is_chosen: impl Fn(&Detection) -> bool,
        candidate_is_chosen: impl Fn(&Candidate) -> bool,
        least_iou: f32,
    ) {
        let Self { options, candidates, taken, identities, next_id, assignment, rows, columns, pairs, .. } = self;
        rows.clear();
        rows.extend((0..candidates.len()).filter(|&i| !candidates[i].matched && candidate_is_chosen(&candidates[i])));
        columns.clear();
        columns.extend((0..detections.len()).filter(|&i| !taken[i] && detection_is_chosen(&detections[i])));
        let weight = |row: usize, column: usize| {
            let (candidate, detection) = (&candidates[rows[row]], &detections[columns[column]]);
            if candidate.class != detection.class {
                return 0.0;
            }
            let iou = candidate.bbox.iou(&detection.bbox);
            // An overlap that is just enough weighs more than none.
            if iou > 0.0 && iou >= least_iou {
                f64::from(iou - least_iou) + 1e-6
            } else {
                0.0
            }
        };
        pairs.clear();
        assignment.solve(rows.len(), columns.len(), weight, |row, column| pairs.push((rows[row], columns[column])));
        for &(index, detection) in pairs.iter() {
            let candidate = &mut candidates[index];
            candidate.see(&detections[detection], &options.noise);
            if !candidate.is_confirmed() && candidate.age >= options.confirm_frames {
                candidate.confirm(next_id);
            }
            taken[detection] = true;
            identities[detection] = candidate.id;
        }
    }

    /// Counts who was not seen, and ends those of them that never were confirmed.
    fn settle(&mut self) {
        self.candidates.retain(|c| c.matched || c.is_confirmed());
        for candidate in self.candidates.iter_mut().filter(|c| !c.matched) {
            candidate.missed = candidate.missed.saturating_add(1);
        }
    }

    /// A candidate for each detection of high score that nobody claimed.
    fn begin(&mut self, detections: &[Detection], high: impl Fn(&Detection) -> bool) {
        let Self { options, candidates, taken, identities, next_id, .. } = self;
        for (index, detection) in detections.iter().enumerate() {
            if candidates.len() == options.max_tracks {
                return;
            }
            if taken[index] || !high(detection) {
                continue;
            }
            let mut candidate = Candidate::new(detection, &options.noise);
            if options.confirm_frames == 1 {
                candidate.confirm(next_id);
            }
            identities[index] = candidate.id;
            candidates.push(candidate);
        }
    }
}

#[cfg(test)]
mod tests {
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
}
