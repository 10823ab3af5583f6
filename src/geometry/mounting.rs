//! The camera's extrinsics: height over the ground and orientation.

use nalgebra::{Matrix3, Rotation3, Vector3};

/// The camera's pose in the ground frame: x ahead, y to the left, z up, the origin on the ground under the vehicle.
///
/// The angles are those of a ROS transform from vehicle to camera (REP 103: fixed axes, roll about x, then pitch about
/// y, then yaw about z). All zero looks straight ahead; a camera that looks down has a positive pitch, one that looks
/// to the left a positive yaw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mounting {
    /// In metres.
    pub position: Vector3<f64>,
    /// In radians.
    pub roll: f64,
    pub pitch: f64,
    pub yaw: f64,
}

impl Mounting {
    /// From the optical frame to the ground frame.
    pub fn rotation(&self) -> Rotation3<f64> {
        Rotation3::from_euler_angles(self.roll, self.pitch, self.yaw) * optical()
    }

    /// The derivative of the rotated `bearing` (of the optical frame) by roll, pitch and yaw, in columns.
    pub fn rotation_derivative(&self, bearing: &Vector3<f64>) -> Matrix3<f64> {
        let about = |axis: Vector3<f64>, angle: f64| Rotation3::from_scaled_axis(axis * angle);
        let (x, y, z) = (Vector3::x(), Vector3::y(), Vector3::z());
        let (pitched, yawed) = (about(y, self.pitch), about(z, self.yaw));
        // A rotation by an angle about an axis grows by axis × vector.
        let after_roll = about(x, self.roll) * (optical() * bearing);
        let after_pitch = pitched * after_roll;
        Matrix3::from_columns(&[
            yawed * (pitched * x.cross(&after_roll)),
            yawed * y.cross(&after_pitch),
            z.cross(&(yawed * after_pitch)),
        ])
    }
}

/// The optical frame (x right, y down, z ahead) in that of a camera body (x ahead, y left, z up).
fn optical() -> Rotation3<f64> {
    Rotation3::from_matrix_unchecked(Matrix3::new(0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looking(roll: f64, pitch: f64, yaw: f64) -> Mounting {
        Mounting { position: Vector3::new(0.0, 0.0, 1.5), roll, pitch, yaw }
    }

    fn ahead(mounting: Mounting) -> Vector3<f64> {
        mounting.rotation() * Vector3::z()
    }

    #[test]
    fn angles_turn_the_way_that_ros_turns_them() {
        assert!((ahead(looking(0.0, 0.0, 0.0)) - Vector3::x()).amax() < 1e-15);
        let down = ahead(looking(0.0, 0.1, 0.0));
        assert!((down - Vector3::new(0.1f64.cos(), 0.0, -(0.1f64.sin()))).amax() < 1e-15, "{down}");
        let left = ahead(looking(0.0, 0.0, 0.1));
        assert!((left - Vector3::new(0.1f64.cos(), 0.1f64.sin(), 0.0)).amax() < 1e-15, "{left}");
        // Rolled to the right, what is right of the axis lies lower.
        let right = looking(0.1, 0.0, 0.0).rotation() * Vector3::x();
        assert!((right - Vector3::new(0.0, -(0.1f64.cos()), -(0.1f64.sin()))).amax() < 1e-15, "{right}");
    }

    #[test]
    fn the_derivative_is_the_finite_difference() {
        let bearing = Vector3::new(0.2, -0.1, 1.0).normalize();
        let angles = [0.05, 0.3, -0.7];
        let derivative = looking(angles[0], angles[1], angles[2]).rotation_derivative(&bearing);
        for i in 0..3 {
            let turned = |step: f64| {
                let mut a = angles;
                a[i] += step;
                looking(a[0], a[1], a[2]).rotation() * bearing
            };
            let difference = (turned(1e-6) - turned(-1e-6)) / 2e-6;
            assert!((derivative.column(i) - difference).amax() < 1e-9, "{i}: {derivative} and {difference}");
        }
    }
}
