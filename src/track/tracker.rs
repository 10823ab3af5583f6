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
mod tests;
