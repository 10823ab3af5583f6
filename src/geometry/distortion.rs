//! How a lens bends: from the ideal image plane, at distance 1 before the camera, to where the light really goes.

use nalgebra::{Matrix2, Vector2};

/// Steps of the iterations at most. Newton's method doubles its digits at each; those that need more do not converge.
const STEPS: usize = 30;
/// Distance on the plane at distance 1 at which an inversion has arrived: a billionth of a pixel for most cameras.
const ARRIVED: f64 = 1e-12;

/// A lens model, with the coefficients as `CameraInfo.d` has them.
///
/// Formulas: OpenCV's documentation of `calib3d` ("Detailed description") and of `fisheye`; the former is Brown's model
/// (Brown 1966), the latter Kannala & Brandt's (2006, section 2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distortion {
    None,
    /// `plumb_bob`, where k4 to k6 are zero, and `rational_polynomial`: radial k1 k2 k3 over k4 k5 k6, tangential p1 p2.
    Rational {
        k: [f64; 6],
        p: [f64; 2],
    },
    /// `equidistant`, OpenCV's fisheye: the angle to the axis is bent, θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸).
    Equidistant {
        k: [f64; 4],
    },
}

impl Distortion {
    /// Where the bearing (x, y, z) of the optical frame lands on the image plane, and the derivative of that by x, y and
    /// z in columns. None behind the camera, for models of a plane.
    pub fn distort(&self, bearing: [f64; 3]) -> Option<(Vector2<f64>, [Vector2<f64>; 3])> {
        let [x, y, z] = bearing;
        match self {
            Self::None | Self::Rational { .. } => {
                if z <= 0.0 {
                    return None;
                }
                let ideal = Vector2::new(x / z, y / z);
                let (point, by_ideal) = self.distort_plane(ideal);
                let [by_x, by_y] = [by_ideal.column(0) / z, by_ideal.column(1) / z];
                let by_z = -(by_x * ideal[0] + by_y * ideal[1]);
                Some((point, [by_x, by_y, by_z]))
            }
            Self::Equidistant { k } => {
                let radius = x.hypot(y);
                if radius <= 1e-12 * z.abs() {
                    // On the axis the lens does not bend: as a pinhole, whose limit this is.
                    let point = Vector2::new(x / z, y / z);
                    let by = [Vector2::new(1.0 / z, 0.0), Vector2::new(0.0, 1.0 / z), -point / z];
                    return (z > 0.0).then_some((point, by));
                }
                // Point = (x, y) · θd / radius.
                let theta = radius.atan2(z);
                let (bent, slope) = bend(k, theta);
                let squared = radius * radius + z * z;
                let (theta_by_radius, theta_by_z) = (z / squared, -radius / squared);
                let (cos, sin) = (x / radius, y / radius);
                let direction = Vector2::new(cos, sin);
                let across = Vector2::new(-sin, cos);
                let (along, turn) = (slope * theta_by_radius, bent / radius);
                let by_x = direction * (along * cos) - across * (turn * sin);
                let by_y = direction * (along * sin) + across * (turn * cos);
                Some((direction * bent, [by_x, by_y, direction * (slope * theta_by_z)]))
            }
        }
    }

    /// The bearing, of length 1, that lands on `point` of the image plane. None where the model's iteration does not
    /// get there: beyond the angles for which the lens was calibrated.
    pub fn undistort(&self, point: Vector2<f64>) -> Option<[f64; 3]> {
        if !point.iter().all(|v| v.is_finite()) {
            return None;
        }
        match self {
            Self::None => Some(unit([point[0], point[1], 1.0])),
            Self::Rational { .. } => {
                let mut ideal = point;
                for _ in 0..STEPS {
                    let (found, derivative) = self.distort_plane(ideal);
                    let error = found - point;
                    // A model folds back where its derivative loses its sign: what lies beyond is no image.
                    if derivative.determinant() <= 0.0 {
                        return None;
                    }
                    if error.amax() < ARRIVED {
                        return Some(unit([ideal[0], ideal[1], 1.0]));
                    }
                    ideal -= derivative.try_inverse()? * error;
                }
                // The last digits may never settle; a millionth of a pixel is still an answer.
                let settled = (self.distort_plane(ideal).0 - point).amax() < 1e-9;
                settled.then(|| unit([ideal[0], ideal[1], 1.0]))
            }
            Self::Equidistant { k } => {
                let bent = point.norm();
                let mut theta = bent.min(std::f64::consts::PI);
                for _ in 0..STEPS {
                    let (found, slope) = bend(k, theta);
                    if slope <= 0.0 {
                        return None;
                    }
                    if (found - bent).abs() < ARRIVED {
                        break;
                    }
                    theta -= (found - bent) / slope;
                }
                let arrived = (bend(k, theta).0 - bent).abs() < 1e-9 && (0.0..=std::f64::consts::PI).contains(&theta);
                let scale = if bent > 0.0 { theta.sin() / bent } else { 1.0 };
                arrived.then(|| unit([point[0] * scale, point[1] * scale, theta.cos()]))
            }
        }
    }

    /// The models of a plane: where an ideal point really lands, and the derivative.
    fn distort_plane(&self, ideal: Vector2<f64>) -> (Vector2<f64>, Matrix2<f64>) {
        let Self::Rational { k, p } = self else { return (ideal, Matrix2::identity()) };
        let (x, y) = (ideal[0], ideal[1]);
        let r2 = x * x + y * y;
        let above = 1.0 + r2 * (k[0] + r2 * (k[1] + r2 * k[2]));
        let below = 1.0 + r2 * (k[3] + r2 * (k[4] + r2 * k[5]));
        let radial = above / below;
        // By r².
        let above_slope = k[0] + r2 * (2.0 * k[1] + r2 * 3.0 * k[2]);
        let below_slope = k[3] + r2 * (2.0 * k[4] + r2 * 3.0 * k[5]);
        let slope = (above_slope - radial * below_slope) / below;
        let tangential = Vector2::new(
            2.0 * p[0] * x * y + p[1] * (r2 + 2.0 * x * x),
            p[0] * (r2 + 2.0 * y * y) + 2.0 * p[1] * x * y,
        );
        let cross = 2.0 * slope * x * y + 2.0 * p[0] * x + 2.0 * p[1] * y;
        let derivative = Matrix2::new(
            radial + 2.0 * slope * x * x + 2.0 * p[0] * y + 6.0 * p[1] * x,
            cross,
            cross,
            radial + 2.0 * slope * y * y + 6.0 * p[0] * y + 2.0 * p[1] * x,
        );
        (ideal * radial + tangential, derivative)
    }
}

/// The fisheye's bent angle, and its slope.
fn bend(k: &[f64; 4], theta: f64) -> (f64, f64) {
    let t2 = theta * theta;
    let factor = 1.0 + t2 * (k[0] + t2 * (k[1] + t2 * (k[2] + t2 * k[3])));
    let slope = 1.0 + t2 * (3.0 * k[0] + t2 * (5.0 * k[1] + t2 * (7.0 * k[2] + t2 * 9.0 * k[3])));
    (theta * factor, slope)
}

fn unit(v: [f64; 3]) -> [f64; 3] {
    let length = (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]).sqrt();
    v.map(|c| c / length)
}
