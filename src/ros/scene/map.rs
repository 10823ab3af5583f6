//! `nav_msgs/OccupancyGrid`: where the ground ahead is road.

use peregrine_geometry::occupancy::Extent;
use r2r::nav_msgs::msg::OccupancyGrid;
use r2r::NativeMsg;

use crate::messages::{set_header, set_string, NativeHeader};

/// In a frame that moves with the vehicle.
pub struct MapMessage {
    pub native: NativeMsg<OccupancyGrid>,
    frame: String,
}

// SAFETY: as for `DetectionsMessage`.
unsafe impl Send for MapMessage {}

impl MapMessage {
    pub fn new(frame: &str) -> Self {
        let mut message = OccupancyGrid::default();
        message.header.frame_id = frame.into();
        message.info.origin.orientation.w = 1.0;
        Self { native: NativeMsg::from(&message), frame: frame.into() }
    }

    /// `cells` as [`OccupancyGrid::fill`](peregrine_geometry::occupancy::OccupancyGrid::fill) gives
    /// them. Allocates only for a larger map than before.
    pub fn fill(&mut self, header: &NativeHeader, extent: &Extent, cells: &[i8]) {
        let m = &mut *self.native;
        set_header(&mut m.header, header);
        set_string(&mut m.header.frame_id, self.frame.as_bytes());
        let (ahead, across) = extent.cells();
        m.info.map_load_time.sec = header.stamp.sec;
        m.info.map_load_time.nanosec = header.stamp.nanosec;
        m.info.resolution = extent.resolution as f32;
        (m.info.width, m.info.height) = (ahead as u32, across as u32);
        m.info.origin.position.y = -(across as f64) * extent.resolution / 2.0;
        if m.data.capacity < cells.len() {
            m.data.update(cells);
        } else {
            m.data.size = cells.len();
            // SAFETY: there is room for `capacity` cells, and there are no more than that.
            unsafe { std::ptr::copy_nonoverlapping(cells.as_ptr(), m.data.data, cells.len()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use r2r::WrappedTypesupport;

    use super::*;

    #[test]
    fn the_map_lies_ahead_and_to_both_sides() {
        let mut message = MapMessage::new("base_link");
        let header = NativeMsg::from(&r2r::std_msgs::msg::Header { frame_id: "front".into(), ..Default::default() });
        let extent = Extent { length: 2.0, width: 1.5, resolution: 0.5 };
        message.fill(&header, &extent, &[-1, 0, 100, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        message.fill(&header, &extent, &[8, 0, 100, 0, 1, 2, 3, 4, 5, 6, 7, -1]);
        let sent = OccupancyGrid::from_native(&message.native);
        assert_eq!((sent.header.frame_id.as_str(), sent.info.width, sent.info.height), ("base_link", 4, 3));
        let origin = sent.info.origin;
        assert_eq!((origin.position.x, origin.position.y, origin.orientation.w), (0.0, -0.75, 1.0));
        assert_eq!(sent.data, [8, 0, 100, 0, 1, 2, 3, 4, 5, 6, 7, -1]);
    }
}
