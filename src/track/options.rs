//! How to track, and the check of it.

use super::box_filter::Noise;

/// How to track. Scores and overlaps are 0 to 1.
///
/// The defaults are those of ByteTrack (Zhang et al. 2022, "ByteTrack: Multi-Object Tracking by Associating Every
/// Detection Box", section 4.1 and its code) where it has them; `tests/reference/track_quality.py` measures them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrackerOptions {
    /// From this score on a detection is associated first, and may begin a track.
    pub high_score: f32,
    /// From this score on a detection may continue a track; lower ones are passed over.
    pub low_score: f32,
    /// Least IoU of a detection of high score with the predicted box of a confirmed track.
    pub high_iou: f32,
    /// Least IoU of a detection of low score with the predicted box of a track that was seen in the last frame.
    pub low_iou: f32,
    /// Least IoU of a detection of high score with a track that was seen once only.
    pub tentative_iou: f32,
    /// Frames in a row in which an object must be seen before it is a track with an identity, 1 or more.
    pub confirm_frames: u32,
    /// Seconds for which a track goes on without being seen.
    pub keep_unseen: f64,
    /// Maximum number of tracks, confirmed or not; at the limit no new one starts.
    pub max_tracks: usize,
    /// Maximum number of detections per frame; excess ones are ignored.
    pub max_detections: usize,
    pub noise: Noise,
}

impl Default for TrackerOptions {
    fn default() -> Self {
        Self {
            high_score: 0.3,
            low_score: 0.1,
            high_iou: 0.2,
            low_iou: 0.5,
            tentative_iou: 0.3,
            confirm_frames: 2,
            keep_unseen: 1.0,
            max_tracks: 256,
            max_detections: 256,
            noise: Noise::default(),
        }
    }
}

/// Why a tracker cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("tracking: {option} is {value}; it must be {expected}")]
pub struct TrackError {
    pub option: &'static str,
    pub value: f64,
    pub expected: &'static str,
}

impl TrackerOptions {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first option at fault.
    pub fn check(&self) -> Result<(), TrackError> {
        let fractions = [
            ("high_score", self.high_score),
            ("low_score", self.low_score),
            ("high_iou", self.high_iou),
            ("low_iou", self.low_iou),
            ("tentative_iou", self.tentative_iou),
        ];
        for (option, value) in fractions {
            if !(0.0..=1.0).contains(&value) {
                return Err(TrackError { option, value: value.into(), expected: "0 to 1" });
            }
        }
        let sizes = [("max_tracks", self.max_tracks), ("max_detections", self.max_detections)];
        for (option, value) in sizes {
            if !(1..=1000).contains(&value) {
                return Err(TrackError { option, value: value as f64, expected: "1 to 1000" });
            }
        }
        if self.confirm_frames == 0 {
            return Err(TrackError { option: "confirm_frames", value: 0.0, expected: "1 or more" });
        }
        if !(self.keep_unseen >= 0.0 && self.keep_unseen <= 60.0) {
            return Err(TrackError { option: "keep_unseen", value: self.keep_unseen, expected: "0 to 60 s" });
        }
        let noise = &self.noise;
        let deviations = [
            ("noise.measurement", noise.measurement),
            ("noise.acceleration", noise.acceleration),
            ("noise.growth", noise.growth),
            ("noise.first_velocity", noise.first_velocity),
            ("noise.first_growth", noise.first_growth),
        ];
        for (option, value) in deviations {
            if !(value > 0.0 && value <= 1e6) {
                return Err(TrackError { option, value, expected: "above 0, and at most 1e6" });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_out_of_range_is_named() {
        let refused = TrackerOptions { low_iou: f32::NAN, ..TrackerOptions::default() }.check().unwrap_err();
        assert_eq!(refused.to_string(), "tracking: low_iou is NaN; it must be 0 to 1");
        let noise = Noise { measurement: 0.0, ..Noise::default() };
        assert!(TrackerOptions { noise, ..TrackerOptions::default() }.check().is_err());
    }
}
