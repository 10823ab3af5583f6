//! A box that moves, and how much it is assumed to wander and to be mismeasured.

use nalgebra::Matrix4;
use peregrine_core::BoundingBox;

use super::kalman::AxisFilter;

/// The assumed noise, in widths of the box for what is horizontal and heights for what is vertical: a near object
/// moves over more pixels, and is misjudged by more, than a far one.
///
/// Scaling by the box's own sides, and a measurement's deviation of a twentieth of them, are those of BoT-SORT
/// (Aharon, Orfaig & Bobrovsky 2022, section 3.1), which took the twentieth from DeepSORT (Wojke et al. 2017). Their
/// process noise is a step each frame; here it is a density, since frames come at any distance in time. DeepSORT's
/// 1/160 a frame on the velocity, at 30 Hz, is a density of (30/160)² · 30 = 1.05 sides²/s³; its additional step of
/// 1/20 on the position stands for what constant velocity does not model, above all a camera that turns, and is made
/// up for by the larger density here. `tests/reference/track_quality.py` shows what comes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Standard deviation of a measured centre or side, in sides.
    pub measurement: f64,
    /// Density of the noise of a centre's acceleration, in sides²/s³.
    pub acceleration: f64,
    /// Density of the noise of the second derivative of width and height, in sides²/s³.
    pub growth: f64,
    /// Standard deviation of a centre's velocity before anything is known of it, in sides/s.
    pub first_velocity: f64,
    /// The same for the growth of width and height, in sides/s.
    pub first_growth: f64,
}

impl Default for Noise {
    fn default() -> Self {
        Self { measurement: 0.05, acceleration: 4.0, growth: 0.25, first_velocity: 2.0, first_growth: 0.5 }
    }
}

/// Sides that a prediction cannot go below, in pixels.
const LEAST_SIDE: f64 = 1.0;

/// Centre and size of a box, each at constant velocity.
///
/// Neither the motion nor the measurement couples one of the four with another, so the filter of eight states is
/// exactly four filters of two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxFilter {
    pub x: AxisFilter,
    pub y: AxisFilter,
    pub width: AxisFilter,
    pub height: AxisFilter,
}

impl BoxFilter {
    /// A box seen for the first time.
    pub fn new(bbox: &BoundingBox, noise: &Noise) -> Self {
        let [x, y, width, height] = parts(bbox);
        let axis = |at: f64, side: f64, velocity: f64| {
            let side = side.max(LEAST_SIDE);
            AxisFilter::new(at, (noise.measurement * side).powi(2), (velocity * side).powi(2))
        };
        Self {
            x: axis(x, width, noise.first_velocity),
            y: axis(y, height, noise.first_velocity),
            width: axis(width, width, noise.first_growth),
            height: axis(height, height, noise.first_growth),
        }
    }

    /// Carries the box on by `seconds`. While `unseen`, it keeps its size: what growth was seen last is no guide for
    /// long, and a box that swells or shrinks away meets no detection again.
    pub fn predict(&mut self, seconds: f64, unseen: bool, noise: &Noise) {
        let (width, height) = self.sides();
        if unseen {
            self.width.mean[1] = 0.0;
            self.height.mean[1] = 0.0;
        }
        self.x.predict(seconds, noise.acceleration * width * width);
        self.y.predict(seconds, noise.acceleration * height * height);
        self.width.predict(seconds, noise.growth * width * width);
        self.height.predict(seconds, noise.growth * height * height);
        for side in [&mut self.width, &mut self.height] {
            side.mean[0] = side.mean[0].max(LEAST_SIDE);
        }
    }

    /// Takes in a box that was measured.
    pub fn update(&mut self, bbox: &BoundingBox, noise: &Noise) {
        let (width, height) = self.sides();
        let variance = |side: f64| (noise.measurement * side).powi(2);
        let [x, y, w, h] = parts(bbox);
        self.x.update(x, variance(width));
        self.y.update(y, variance(height));
        self.width.update(w, variance(width));
        self.height.update(h, variance(height));
    }

    /// The estimated box.
    pub fn bbox(&self) -> BoundingBox {
        let (width, height) = self.sides();
        let (x, y) = (self.x.position(), self.y.position());
        let corner = |centre: f64, half: f64| (centre + half) as f32;
        BoundingBox::new(
            corner(x, -width / 2.0),
            corner(y, -height / 2.0),
            corner(x, width / 2.0),
            corner(y, height / 2.0),
        )
    }

    /// Velocity of the centre, in px/s.
    pub fn velocity(&self) -> [f64; 2] {
        [self.x.velocity(), self.y.velocity()]
    }

    /// Covariance of (centre x, centre y, velocity x, velocity y) in px and px/s.
    pub fn covariance(&self) -> Matrix4<f64> {
        let mut all = Matrix4::zeros();
        for (axis, filter) in [&self.x, &self.y].into_iter().enumerate() {
            for (row, column) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                all[(axis + 2 * row, axis + 2 * column)] = filter.covariance[(row, column)];
            }
        }
        all
    }

    fn sides(&self) -> (f64, f64) {
        (self.width.position().max(LEAST_SIDE), self.height.position().max(LEAST_SIDE))
    }
}

/// Centre x, centre y, width and height.
fn parts(bbox: &BoundingBox) -> [f64; 4] {
    let (x_min, y_min) = (f64::from(bbox.x_min), f64::from(bbox.y_min));
    let (x_max, y_max) = (f64::from(bbox.x_max), f64::from(bbox.y_max));
    [(x_min + x_max) / 2.0, (y_min + y_max) / 2.0, x_max - x_min, y_max - y_min]
}

#[cfg(test)]
mod tests {
    use nalgebra::{SMatrix, SVector};

    use super::*;

    fn at(x: f32, y: f32, width: f32, height: f32) -> BoundingBox {
        BoundingBox::new(x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0)
    }

    /// The same as one filter of eight states, written out with its whole matrices.
    #[test]
    fn four_axes_are_one_filter_of_eight_states() {
        let noise = Noise::default();
        let mut filter = BoxFilter::new(&at(100.0, 80.0, 40.0, 60.0), &noise);
        // States: x, y, w, h and their velocities.
        let mut mean = SVector::<f64, 8>::from([100.0, 80.0, 40.0, 60.0, 0.0, 0.0, 0.0, 0.0]);
        let sides = |m: &SVector<f64, 8>| [m[2], m[3], m[2], m[3]];
        let first = [noise.first_velocity, noise.first_velocity, noise.first_growth, noise.first_growth];
        let mut p = SMatrix::<f64, 8, 8>::zeros();
        for i in 0..4 {
            p[(i, i)] = (noise.measurement * sides(&mean)[i]).powi(2);
            p[(i + 4, i + 4)] = (first[i] * sides(&mean)[i]).powi(2);
        }
        let h = SMatrix::<f64, 4, 8>::identity();
        for (t, z) in [(0.03, at(103.0, 80.5, 41.0, 61.0)), (0.07, at(110.0, 82.0, 44.0, 65.0))] {
            let s = sides(&mean);
            let (mut f, mut q) = (SMatrix::<f64, 8, 8>::identity(), SMatrix::<f64, 8, 8>::zeros());
            for i in 0..4 {
                f[(i, i + 4)] = t;
                let density = if i < 2 { noise.acceleration } else { noise.growth } * s[i] * s[i];
                q[(i, i)] = density * t.powi(3) / 3.0;
                q[(i, i + 4)] = density * t.powi(2) / 2.0;
                q[(i + 4, i)] = q[(i, i + 4)];
                q[(i + 4, i + 4)] = density * t;
            }
            mean = f * mean;
            p = f * p * f.transpose() + q;
            let r =
                SMatrix::<f64, 4, 4>::from_fn(
                    |i, j| {
                        if i == j {
                            (noise.measurement * sides(&mean)[i]).powi(2)
                        } else {
                            0.0
                        }
                    },
                );
            let gain = p * h.transpose() * (h * p * h.transpose() + r).try_inverse().unwrap();
            mean += gain * (SVector::from(parts(&z)) - h * mean);
            p = (SMatrix::identity() - gain * h) * p;
            filter.predict(t, false, &noise);
            filter.update(&z, &noise);
        }
        for (i, axis) in [filter.x, filter.y, filter.width, filter.height].into_iter().enumerate() {
            assert!((axis.position() - mean[i]).abs() < 1e-9 && (axis.velocity() - mean[i + 4]).abs() < 1e-9);
        }
        let covariance = filter.covariance();
        let states = [0, 1, 4, 5];
        for (i, j) in (0..4).flat_map(|i| (0..4).map(move |j| (i, j))) {
            assert!((covariance[(i, j)] - p[(states[i], states[j])]).abs() < 1e-9, "{i}, {j}");
        }
    }

    #[test]
    fn an_unseen_box_moves_on_at_its_size() {
        let noise = Noise::default();
        let mut filter = BoxFilter::new(&at(0.0, 0.0, 20.0, 20.0), &noise);
        for i in 1..20 {
            filter.predict(0.1, false, &noise);
            filter.update(&at(3.0 * i as f32, 0.0, 20.0 + i as f32, 20.0), &noise);
        }
        let before = filter.bbox();
        filter.predict(0.1, true, &noise);
        let after = filter.bbox();
        assert!((after.center().0 - before.center().0 - 3.0).abs() < 0.3, "{before:?}, {after:?}");
        assert!((after.width() - before.width()).abs() < 1e-4);
    }

    #[test]
    fn a_box_that_shrinks_keeps_a_side() {
        let noise = Noise::default();
        let mut filter = BoxFilter::new(&at(0.0, 0.0, 20.0, 20.0), &noise);
        for side in [15.0, 10.0, 5.0] {
            filter.predict(0.1, false, &noise);
            filter.update(&at(0.0, 0.0, side, side), &noise);
        }
        filter.predict(5.0, false, &noise);
        assert!(filter.bbox().width() >= 0.99 && filter.bbox().height() >= 0.99, "{:?}", filter.bbox());
    }
}
