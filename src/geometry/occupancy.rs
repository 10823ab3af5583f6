//! A map of the ground before the vehicle: where the segmentation sees road, where something else, where nothing.

use nalgebra::Vector3;
use peregrine_core::ClassMask;

use super::camera::Camera;
use super::mounting::Mounting;

/// State of a cell, with the values of `nav_msgs/OccupancyGrid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum Occupancy {
    /// Not in the image.
    Unknown = -1,
    Free = 0,
    Occupied = 100,
}

/// The extent of a map: ahead of the origin of the ground frame, and as far to the left as to the right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// Metres ahead.
    pub length: f64,
    /// Metres from the left edge to the right one.
    pub width: f64,
    /// Metres a cell.
    pub resolution: f64,
}

impl Extent {
    /// Cells ahead (`nav_msgs` calls it the map's width, along x) and across.
    pub fn cells(&self) -> (usize, usize) {
        let count = |metres: f64| ((metres / self.resolution).round() as usize).max(1);
        (count(self.length), count(self.width))
    }
}

/// A table from the cells of the map to places in the image, made once for camera and mounting.
#[derive(Debug, Clone)]
pub struct OccupancyGrid {
    extent: Extent,
    /// For each cell of the map, row by row from the right to the left and within a row ahead, where it is seen: in
    /// widths and heights of the image, so that it holds for masks of any size.
    table: Vec<Option<[f32; 2]>>,
    cells: Vec<i8>,
}

impl OccupancyGrid {
    /// Allocates, and takes some microseconds a cell.
    pub fn new(camera: &Camera, mounting: &Mounting, extent: Extent) -> Self {
        let (ahead, across) = extent.cells();
        let to_optical = mounting.rotation().inverse();
        let size = camera.size();
        let seen_at = |row: usize, column: usize| {
            let x = (column as f64 + 0.5) * extent.resolution;
            let y = (row as f64 + 0.5) * extent.resolution - across as f64 * extent.resolution / 2.0;
            let point = to_optical * (Vector3::new(x, y, 0.0) - mounting.position);
            let pixel = camera.project(&point)?;
            // Beyond the angles that a lens model is made for, it may fold back into the image.
            let back = camera.bearing(pixel)?;
            if (back - point.normalize()).amax() > 1e-6 {
                return None;
            }
            let share = |at: f64, pixels: u32| {
                let share = ((at + 0.5) / f64::from(pixels)) as f32;
                (0.0..1.0).contains(&share).then_some(share)
            };
            Some([share(pixel[0], size.0)?, share(pixel[1], size.1)?])
        };
        let table: Vec<_> = (0..across).flat_map(|row| (0..ahead).map(move |column| seen_at(row, column))).collect();
        Self { extent, cells: vec![Occupancy::Unknown as i8; table.len()], table }
    }

    pub fn extent(&self) -> &Extent {
        &self.extent
    }

    /// The map that `mask` shows, row by row from the right to the left and within a row ahead. A cell is free where the
    /// mask's class is `drivable`. All unknown for an empty mask.
    pub fn fill(&mut self, mask: &ClassMask, is_drivable: impl Fn(u8) -> bool) -> &[i8] {
        let (width, height) = (mask.width as f32, mask.height as f32);
        for (cell, &seen) in self.cells.iter_mut().zip(&self.table) {
            let index = |[u, v]: [f32; 2]| (v * height) as usize * mask.width + (u * width) as usize;
            let class = seen.and_then(|at| mask.classes.get(index(at)));
            let occupancy = match class {
                None => Occupancy::Unknown,
                Some(&class) if is_drivable(class) => Occupancy::Free,
                Some(_) => Occupancy::Occupied,
            };
            *cell = occupancy as i8;
        }
        &self.cells
    }
}

#[cfg(test)]
mod tests {
    use super::super::camera::CameraInfo;
    use super::*;

    fn grid(yaw: f64) -> OccupancyGrid {
        let info = CameraInfo {
            width: 640,
            height: 480,
            k: [500.0, 0.0, 319.5, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0],
            ..CameraInfo::default()
        };
        let mounting = Mounting { position: Vector3::new(0.0, 0.0, 1.5), roll: 0.0, pitch: 0.0, yaw };
        let extent = Extent { length: 20.0, width: 10.0, resolution: 0.5 };
        OccupancyGrid::new(&Camera::new(&info, false).unwrap(), &mounting, extent)
    }

    /// Class 3 left of the image's middle, 4 right of it.
    fn halves() -> ClassMask {
        let classes = (0..80 * 60).map(|i| if i % 80 < 40 { 3 } else { 4 }).collect();
        ClassMask { width: 80, height: 60, classes }
    }

    #[test]
    fn left_and_right_near_and_far_lie_where_they_are_seen() {
        let mut grid = grid(0.0);
        let cells = grid.fill(&halves(), |class| class == 3).to_vec();
        assert_eq!(cells.len(), 40 * 20);
        let at = |x: f64, y: f64| cells[((y + 5.0) / 0.5) as usize * 40 + (x / 0.5) as usize];
        assert_eq!(at(10.2, 1.2), Occupancy::Free as i8);
        assert_eq!(at(10.2, -1.2), Occupancy::Occupied as i8);
        // The image ends 240 px under the axis, which is 3.1 m ahead, and 32.6 degrees aside.
        assert_eq!(at(2.7, 0.2), Occupancy::Unknown as i8);
        assert_eq!(at(4.2, 4.2), Occupancy::Unknown as i8);
        assert_ne!(at(19.7, 4.7), Occupancy::Unknown as i8);
    }

    #[test]
    fn nothing_is_known_of_the_ground_behind_the_camera() {
        let mut grid = grid(std::f64::consts::PI);
        assert!(grid.fill(&halves(), |class| class == 3).iter().all(|&c| c == -1));
    }

    #[test]
    fn without_a_mask_nothing_is_known_and_a_small_one_will_do() {
        let mut grid = grid(0.0);
        assert!(grid.fill(&ClassMask::default(), |class| class == 3).iter().all(|&c| c == -1));
        let mask = ClassMask { width: 1, height: 1, classes: vec![3] };
        assert!(grid.fill(&mask, |class| class == 3).iter().all(|&c| c == -1 || c == 0));
    }
}
