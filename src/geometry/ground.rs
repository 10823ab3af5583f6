//! Where on the ground a box stands, and how surely.

use nalgebra::{Matrix2, Matrix2x3, Matrix3, SMatrix, SVector, Vector2, Vector3};
use peregrine_core::BoundingBox;

use super::camera::Camera;
use super::mounting::Mounting;

/// 1-σ uncertainties of the inputs of a ground position, independent of each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Uncertainty {
    /// Of a box's edge, in sides of the box. A twentieth, as for tracking: see `peregrine_track::Noise`.
    pub box_side: f64,
    /// Of the camera's height over the road where the object stands, in metres: load, springs, and a road that is not
    /// quite flat.
    pub height: f64,
    /// Of roll, pitch and yaw, in radians: mounting, and a vehicle that nods.
    pub angle: f64,
}

impl Default for Uncertainty {
    /// A box's twentieth, 5 cm and half a degree.
    fn default() -> Self {
        Self { box_side: 0.05, height: 0.05, angle: 0.5f64.to_radians() }
    }
}

/// A place on the ground.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroundPoint {
    /// Metres ahead and to the left.
    pub position: Vector2<f64>,
    /// Square metres.
    pub covariance: Matrix2<f64>,
}

/// An object that stands on the ground, as far as one camera can tell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroundObject {
    /// Where the middle of the box's lower edge touches the ground.
    pub point: GroundPoint,
    /// From the origin of the camera to that point, over the ground: 0 is ahead, positive to the left, in radians.
    pub azimuth: f64,
    /// Width across the line of sight and height over the ground, in metres. How long the object is along the line of
    /// sight is not to be seen.
    pub width: f64,
    pub height: f64,
}

/// Intersects lines of sight with flat ground.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ground {
    pub camera: Camera,
    pub mounting: Mounting,
    pub uncertainty: Uncertainty,
    /// Maximum range from the camera's foot point in m; farther objects get no position. Near the horizon a pixel spans
    /// hundreds of metres.
    pub max_range: f64,
}

impl Ground {
    /// Where the line of sight through `pixel` meets the ground, and the derivative of that by the pixel, the camera's
    /// height, roll, pitch and yaw, in columns. None at and above the horizon, beyond the range, and where the lens
    /// model ends.
    pub fn intersect(&self, pixel: Vector2<f64>) -> Option<(Vector2<f64>, SMatrix<f64, 2, 6>)> {
        let bearing = self.camera.bearing(pixel)?;
        let (_, pixel_by_point) = self.camera.project_with_derivative(&bearing)?;
        let bearing_by_pixel = bearing_derivative(&pixel_by_point, &bearing)?;
        let rotation = self.mounting.rotation();
        let sight = rotation * bearing;
        let (position, height) = (self.mounting.position, self.mounting.position.z);
        if sight.z >= 0.0 || height <= 0.0 {
            return None;
        }
        let distance = -height / sight.z;
        let over_ground = Vector2::new(sight.x, sight.y) * distance;
        if !over_ground.norm().le(&self.max_range) {
            return None;
        }
        // The point is position + sight · distance, with distance = −height / sight.z.
        let by_sight =
            Matrix2x3::new(distance, 0.0, -over_ground[0] / sight.z, 0.0, distance, -over_ground[1] / sight.z);
        let by_pixel = by_sight * rotation.matrix() * bearing_by_pixel;
        let by_height = over_ground / height;
        let by_angles: Matrix2x3<f64> = by_sight * self.mounting.rotation_derivative(&bearing);
        let mut derivative = SMatrix::<f64, 2, 6>::zeros();
        derivative.fixed_columns_mut::<2>(0).copy_from(&by_pixel);
        derivative.set_column(2, &by_height);
        derivative.fixed_columns_mut::<3>(3).copy_from(&by_angles);
        Some((Vector2::new(position.x, position.y) + over_ground, derivative))
    }

    /// The ground at a pixel whose position has standard deviations of `sigma` pixels; to first order.
    pub fn locate(&self, pixel: Vector2<f64>, sigma: Vector2<f64>) -> Option<GroundPoint> {
        let (position, by) = self.intersect(pixel)?;
        let u = &self.uncertainty;
        let deviations = SVector::<f64, 6>::from([sigma[0], sigma[1], u.height, u.angle, u.angle, u.angle]);
        let scaled = by * SMatrix::<f64, 6, 6>::from_diagonal(&deviations);
        Some(GroundPoint { position, covariance: scaled * scaled.transpose() })
    }

    /// The object in a box of the image. None if it does not stand on ground that is in sight and in range.
    pub fn object(&self, bbox: &BoundingBox) -> Option<GroundObject> {
        let (left, right) = (f64::from(bbox.x_min), f64::from(bbox.x_max));
        let (top, bottom) = (f64::from(bbox.y_min), f64::from(bbox.y_max));
        let middle = (left + right) / 2.0;
        let side = self.uncertainty.box_side;
        // The middle of two edges of independent error is off by less than either.
        let sigma = Vector2::new(side * (right - left) / 2f64.sqrt(), side * (bottom - top));
        let point = self.locate(Camera::pixel_of(middle, bottom), sigma)?;

        let origin = self.mounting.position;
        let out = Vector2::new(point.position[0] - origin.x, point.position[1] - origin.y);
        let azimuth = out[1].atan2(out[0]);
        let range = out.norm();
        let rotation = self.mounting.rotation();
        let sight = |x: f64, y: f64| Some(rotation * self.camera.bearing(Camera::pixel_of(x, y))?);
        // On the upright plane through the point that faces the camera, at `range` along the azimuth.
        let ahead = Vector3::new(azimuth.cos(), azimuth.sin(), 0.0);
        let across = Vector3::new(-azimuth.sin(), azimuth.cos(), 0.0);
        let on_plane = |s: Vector3<f64>| (s.dot(&ahead) > 1e-6).then(|| s * (range / s.dot(&ahead)));
        let (left, right) = (on_plane(sight(left, bottom)?)?, on_plane(sight(right, bottom)?)?);
        let top = on_plane(sight(middle, top)?)?;
        let (width, height) = ((left - right).dot(&across).abs(), (top.z + origin.z).max(0.0));
        Some(GroundObject { point, azimuth, width, height })
    }
}

/// How a bearing of length 1 changes with its pixel, from how a pixel changes with a point at the bearing's end: moves
/// along the bearing change no pixel, so the inverse is taken across it.
fn bearing_derivative(pixel_by_point: &Matrix2x3<f64>, bearing: &Vector3<f64>) -> Option<nalgebra::Matrix3x2<f64>> {
    // With the bearing itself as a third row, the matrix has an inverse, whose first two columns are across it.
    let rows = Matrix3::from_rows(&[pixel_by_point.row(0).into(), pixel_by_point.row(1).into(), bearing.transpose()]);
    Some(rows.try_inverse()?.fixed_columns::<2>(0).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::camera::CameraInfo;
    use super::*;

    fn ground(model: &str, d: &[f64], mounting: Mounting) -> Ground {
        let info = CameraInfo {
            width: 640,
            height: 480,
            distortion_model: model.into(),
            d: d.to_vec(),
            k: [500.0, 0.0, 319.5, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0],
            ..CameraInfo::default()
        };
        let camera = Camera::new(&info, false).unwrap();
        Ground { camera, mounting, uncertainty: Uncertainty::default(), max_range: 100.0 }
    }

    fn level() -> Mounting {
        Mounting { position: Vector3::new(1.0, 0.2, 1.5), roll: 0.0, pitch: 0.0, yaw: 0.0 }
    }

    /// By hand: a level camera 1.5 m up with 500 px of focal length sees the ground 10 m ahead 75 px under its axis.
    #[test]
    fn a_level_camera_measures_by_similar_triangles() {
        let ground = ground("", &[], level());
        let (point, _) = ground.intersect(Vector2::new(319.5, 239.5 + 75.0)).unwrap();
        assert!((point - Vector2::new(11.0, 0.2)).amax() < 1e-9, "{point}");
        // 50 px to the right at 10 m is 1 m.
        let (point, _) = ground.intersect(Vector2::new(369.5, 239.5 + 75.0)).unwrap();
        assert!((point - Vector2::new(11.0, -0.8)).amax() < 1e-9, "{point}");
    }

    #[test]
    fn sky_horizon_and_what_lies_beyond_the_range_have_no_place() {
        let ground = ground("", &[], level());
        for row in [0.0, 239.5, 239.5 + 7.4] {
            assert_eq!(ground.intersect(Vector2::new(319.5, row)), None, "{row}");
        }
        assert!(ground.intersect(Vector2::new(319.5, 239.5 + 7.6)).is_some());
        assert_eq!(ground.intersect(Vector2::new(f64::NAN, 300.0)), None);
    }

    /// A box that frames a standing rectangle 10 m ahead, 1.8 m wide and 1.2 m high.
    #[test]
    fn a_box_has_the_width_and_height_of_what_stands_in_it() {
        let ground = ground("", &[], level());
        let (middle, foot) = (320.0f32, 240.0 + 75.0);
        let bbox = BoundingBox::new(middle - 45.0, foot - 60.0, middle + 45.0, foot);
        let object = ground.object(&bbox).unwrap();
        assert!((object.point.position - Vector2::new(11.0, 0.2)).amax() < 1e-5, "{object:?}");
        assert!((object.width - 1.8).abs() < 1e-5 && (object.height - 1.2).abs() < 1e-5, "{object:?}");
        assert!(object.azimuth.abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn the_derivative_is_the_finite_difference(
            x in 0.0..640.0f64,
            y in 330.0..480.0f64,
            angles in [-0.1..0.1f64, 0.0..0.2f64, -1.5..1.5f64],
            height in 0.5..3.0f64,
            fisheye in any::<bool>(),
        ) {
            let at = |pixel: Vector2<f64>, height: f64, [roll, pitch, yaw]: [f64; 3]| {
                let mounting = Mounting { position: Vector3::new(0.3, -0.2, height), roll, pitch, yaw };
                let (model, d): (_, &[f64]) = match fisheye {
                    true => ("equidistant", &[-0.03, 0.008, -0.004, 0.0007]),
                    false => ("plumb_bob", &[-0.28, 0.07, 0.0008, -0.0003, 0.012]),
                };
                ground(model, d, mounting).intersect(pixel)
            };
            let pixel = Vector2::new(x, y);
            let Some((_, derivative)) = at(pixel, height, angles) else { return Ok(()) };
            for i in 0..6 {
                let (size, moved) = (1e-5, |step: f64| {
                    let (mut p, mut h, mut a) = (pixel, height, angles);
                    match i {
                        0 | 1 => p[i] += step,
                        2 => h += step,
                        _ => a[i - 3] += step,
                    }
                    at(p, h, a).map(|(point, _)| point)
                });
                let (Some(plus), Some(minus)) = (moved(size), moved(-size)) else { return Ok(()) };
                let difference = (plus - minus) / (2.0 * size);
                let error = (derivative.column(i) - difference).amax();
                prop_assert!(error < 1e-4 * (1.0 + difference.amax()), "{i}: {} and {difference}", derivative.column(i));
            }
        }

        #[test]
        fn the_covariance_is_symmetric_positive_and_grows_with_distance(x in 100.0..540.0f64, y in 260.0..479.0f64) {
            let ground = ground("plumb_bob", &[-0.1, 0.01, 0.0, 0.0, 0.0], level());
            let sigma = Vector2::new(2.0, 2.0);
            let near = ground.locate(Vector2::new(x, y), sigma).unwrap().covariance;
            prop_assert!((near - near.transpose()).amax() <= 1e-12 * near.amax());
            prop_assert!(near.trace() > 0.0 && near.determinant() > 0.0);
            let far = ground.locate(Vector2::new(x, y - 5.0), sigma).unwrap().covariance;
            prop_assert!(far.trace() > near.trace());
        }
    }

    /// First order against 20,000 draws.
    #[test]
    fn the_covariance_is_that_of_a_simulation() {
        use rand::SeedableRng;
        use rand_distr::{Distribution, Normal};
        let mounting = Mounting { pitch: 0.1, ..level() };
        let exact = ground("plumb_bob", &[-0.1, 0.01, 0.0, 0.0, 0.0], mounting);
        let (pixel, sigma) = (Vector2::new(420.0, 330.0), Vector2::new(1.5, 1.0));
        let found = exact.locate(pixel, sigma).unwrap();
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let mut normal = |deviation: f64| Normal::new(0.0, deviation).unwrap().sample(&mut random);
        let u = exact.uncertainty;
        let (mut sum, mut squares, draws) = (Vector2::zeros(), Matrix2::zeros(), 20_000);
        for _ in 0..draws {
            let mut drawn = exact;
            drawn.mounting.position.z += normal(u.height);
            drawn.mounting.roll += normal(u.angle);
            drawn.mounting.pitch += normal(u.angle);
            drawn.mounting.yaw += normal(u.angle);
            let pixel = pixel + Vector2::new(normal(sigma[0]), normal(sigma[1]));
            let off = drawn.intersect(pixel).unwrap().0 - found.position;
            sum += off;
            squares += off * off.transpose();
        }
        let mean = sum / f64::from(draws);
        let covariance = squares / f64::from(draws) - mean * mean.transpose();
        assert!((covariance - found.covariance).amax() < 0.1 * covariance.amax(), "{covariance} {}", found.covariance);
    }
}
