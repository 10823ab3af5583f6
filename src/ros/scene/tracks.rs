//! `peregrine_msgs/Track2DArray`.

use peregrine_track::Track;
use r2r::peregrine_msgs::msg::{Track2D, Track2DArray};
use r2r::NativeMsg;

use super::sequence::{name_of, resize, LONG_NAME};
use crate::messages::{set_header, set_string, NativeHeader};

/// With room for a fixed number of tracks.
pub struct TracksMessage {
    pub native: NativeMsg<Track2DArray>,
}

// SAFETY: as for `DetectionsMessage`: the message owns its memory, and nothing refers to the thread
// that made it.
unsafe impl Send for TracksMessage {}

impl TracksMessage {
    pub fn new(max_tracks: usize) -> Self {
        let blank = Track2D { class_id: LONG_NAME.into(), ..Default::default() };
        let message = Track2DArray { tracks: vec![blank; max_tracks], ..Default::default() };
        Self { native: NativeMsg::from(&message) }
    }

    pub fn fill(&mut self, header: &NativeHeader, tracks: &[Track], class_names: &[String]) {
        set_header(&mut self.native.header, header);
        for (slot, track) in resize!(self.native.tracks, tracks.len()).iter_mut().zip(tracks) {
            slot.id = track.id;
            set_string(&mut slot.class_id, name_of(class_names, track.class));
            slot.score = track.score;
            let b = &track.bbox;
            slot.bbox.center.position.x = f64::from(b.x_min + b.x_max) / 2.0;
            slot.bbox.center.position.y = f64::from(b.y_min + b.y_max) / 2.0;
            (slot.bbox.size_x, slot.bbox.size_y) = (f64::from(b.width()), f64::from(b.height()));
            [slot.velocity_x, slot.velocity_y] = track.velocity;
            // Row-major or column-major is the same: it is symmetric.
            slot.covariance.copy_from_slice(track.covariance.as_slice());
            (slot.age, slot.missed) = (track.age, track.missed);
        }
    }
}

#[cfg(test)]
mod tests {
    use nalgebra::Matrix4;

    use r2r::WrappedTypesupport;

    use super::*;
    use peregrine_core::BoundingBox;

    #[test]
    fn tracks_are_written_field_by_field_also_after_a_longer_list() {
        let mut message = TracksMessage::new(2);
        let names = ["car".into(), "two-wheeler".into()];
        let mut covariance = Matrix4::identity();
        (covariance[(0, 2)], covariance[(2, 0)]) = (0.5, 0.5);
        let track = Track {
            id: 7,
            class: 1,
            score: 0.5,
            bbox: BoundingBox::new(10.0, 20.0, 40.0, 60.0),
            velocity: [3.0, -4.0],
            covariance,
            age: 9,
            missed: 2,
        };
        let header = NativeMsg::from(&r2r::std_msgs::msg::Header { frame_id: "front".into(), ..Default::default() });
        message.fill(&header, &[track; 3], &names);
        assert_eq!(Track2DArray::from_native(&message.native).tracks.len(), 2, "there is room for two");
        message.fill(&header, &[track], &names);
        let sent = Track2DArray::from_native(&message.native);
        assert_eq!(sent.header.frame_id, "front");
        let [t] = &sent.tracks[..] else { panic!("{sent:?}") };
        assert_eq!((t.id, t.class_id.as_str(), t.score, t.age, t.missed), (7, "two-wheeler", 0.5, 9, 2));
        assert_eq!((t.bbox.center.position.x, t.bbox.center.position.y), (25.0, 40.0));
        assert_eq!((t.bbox.size_x, t.bbox.size_y, t.velocity_x, t.velocity_y), (30.0, 40.0, 3.0, -4.0));
        assert_eq!((t.covariance[0], t.covariance[2], t.covariance[8], t.covariance[1]), (1.0, 0.5, 0.5, 0.0));
    }
}
