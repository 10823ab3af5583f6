//! A Kalman filter for one axis: a position, of which measurements come, and its velocity, of which none do.

use nalgebra::{Matrix2, Vector2};

/// Position (px) and velocity (px/s) along one axis, Gaussian.
///
/// The motion is constant velocity disturbed by white noise of acceleration (Bar-Shalom, Li & Kirubarajan 2001,
/// "Estimation with Applications to Tracking and Navigation", section 6.2.2). Its noise adds up in time, so that two
/// steps of prediction are the same as one of their sum, whatever the frame rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AxisFilter {
    /// (position, velocity).
    pub mean: Vector2<f64>,
    /// Symmetric and positive definite.
    pub covariance: Matrix2<f64>,
}

impl AxisFilter {
    /// A position measured once, and nothing known of the velocity but its variance around zero (px²/s²).
    pub fn new(position: f64, position_variance: f64, velocity_variance: f64) -> Self {
        Self {
            mean: Vector2::new(position, 0.0),
            covariance: Matrix2::from_diagonal(&Vector2::new(position_variance, velocity_variance)),
        }
    }

    /// Carries the state on by `seconds` (0 or more), with `density` the power spectral density of the acceleration's
    /// noise, in px²/s³.
    pub fn predict(&mut self, seconds: f64, density: f64) {
        let t = seconds;
        let transition = Matrix2::new(1.0, t, 0.0, 1.0);
        let noise = Matrix2::new(t * t * t / 3.0, t * t / 2.0, t * t / 2.0, t) * density;
        self.mean = transition * self.mean;
        self.covariance = symmetric(transition * self.covariance * transition.transpose() + noise);
    }

    /// Takes in a measured position of `variance` (px², above 0).
    ///
    /// The covariance is updated in Joseph's form, (I − KH) P (I − KH)ᵀ + K R Kᵀ, a sum of two positive terms, which
    /// rounding cannot turn negative as it can the shorter (I − KH) P (Bar-Shalom et al. 2001, section 5.2.6).
    pub fn update(&mut self, measured: f64, variance: f64) {
        let gain = self.covariance.column(0) / (self.covariance[(0, 0)] + variance);
        let rest = Matrix2::new(1.0 - gain[0], 0.0, -gain[1], 1.0);
        self.mean += gain * (measured - self.mean[0]);
        self.covariance = symmetric(rest * self.covariance * rest.transpose() + gain * gain.transpose() * variance);
    }

    pub fn position(&self) -> f64 {
        self.mean[0]
    }

    pub fn velocity(&self) -> f64 {
        self.mean[1]
    }
}

/// Both triangles the same to the last bit.
fn symmetric(m: Matrix2<f64>) -> Matrix2<f64> {
    (m + m.transpose()) * 0.5
}

#[cfg(test)]
mod tests {
    use nalgebra::{DMatrix, DVector};
    use proptest::prelude::*;

    use super::*;

    fn close(a: Matrix2<f64>, b: Matrix2<f64>, relative: f64) -> bool {
        (a - b).amax() <= relative * a.amax().max(b.amax()).max(1e-12)
    }

    /// A prediction over seconds, or a measurement with its variance.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Predict(f64, f64),
        Update(f64, f64),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Twelve decades of variance, far beyond what any camera yields.
        let positive = |low: f64, high: f64| (low..high).prop_map(|exponent| 10f64.powf(exponent));
        prop_oneof![
            (0.0..5.0, positive(-6.0, 6.0)).prop_map(|(t, q)| Step::Predict(t, q)),
            (-1e4..1e4, positive(-6.0, 6.0)).prop_map(|(z, r)| Step::Update(z, r)),
        ]
    }

    proptest! {
        #[test]
        fn the_covariance_stays_symmetric_and_positive(steps in prop::collection::vec(step(), 1..300)) {
            let mut filter = AxisFilter::new(0.0, 1.0, 100.0);
            for step in steps {
                match step {
                    Step::Predict(t, q) => filter.predict(t, q),
                    Step::Update(z, r) => filter.update(z, r),
                }
                let p = filter.covariance;
                prop_assert_eq!(p[(0, 1)], p[(1, 0)]);
                prop_assert!(p[(0, 0)] > 0.0 && p[(1, 1)] > 0.0, "{}", p);
                prop_assert!(p.determinant() >= -1e-9 * p[(0, 0)] * p[(1, 1)], "{}", p);
                prop_assert!(filter.mean.iter().all(|v| v.is_finite()));
            }
        }

        #[test]
        fn two_predictions_are_one_over_their_sum(a in 0.0..2.0f64, b in 0.0..2.0f64, q in 0.01..100.0f64) {
            let mut once = AxisFilter::new(3.0, 2.0, 50.0);
            once.update(4.0, 1.0);
            let mut twice = once;
            once.predict(a + b, q);
            twice.predict(a, q);
            twice.predict(b, q);
            prop_assert!((once.mean - twice.mean).amax() < 1e-9);
            prop_assert!(close(once.covariance, twice.covariance, 1e-9));
        }
    }

    /// Without process noise the filter is least squares: here against the normal equations of a straight line, with
    /// the start as a prior.
    #[test]
    fn without_process_noise_it_is_the_least_squares_line() {
        let (times, positions) = ([0.1, 0.15, 0.4, 0.41, 0.9], [2.0, 2.6, 4.9, 5.3, 10.2]);
        let (r, p0, v0) = (0.7, 4.0, 9.0);
        let mut filter = AxisFilter::new(1.0, p0, v0);
        let mut last = 0.0;
        for (t, z) in times.into_iter().zip(positions) {
            filter.predict(t - last, 0.0);
            filter.update(z, r);
            last = t;
        }
        // Unknowns at time 0: position and velocity. Two rows of prior, then the measurements, all whitened.
        let mut rows = vec![(1.0 / p0.sqrt(), 0.0, 1.0 / p0.sqrt()), (0.0, 1.0 / v0.sqrt(), 0.0)];
        rows.extend(times.into_iter().zip(positions).map(|(t, z)| (1.0 / r.sqrt(), t / r.sqrt(), z / r.sqrt())));
        let a = DMatrix::from_fn(rows.len(), 2, |i, j| if j == 0 { rows[i].0 } else { rows[i].1 });
        let b = DVector::from_fn(rows.len(), |i, _| rows[i].2);
        let information = a.transpose() * &a;
        let at_zero = information.clone().try_inverse().unwrap() * a.transpose() * b;
        assert!((filter.position() - (at_zero[0] + last * at_zero[1])).abs() < 1e-10);
        assert!((filter.velocity() - at_zero[1]).abs() < 1e-10);
        let to_last = Matrix2::new(1.0, last, 0.0, 1.0);
        let covariance = information.try_inverse().unwrap();
        let covariance = Matrix2::new(covariance[(0, 0)], covariance[(0, 1)], covariance[(1, 0)], covariance[(1, 1)]);
        assert!(close(filter.covariance, to_last * covariance * to_last.transpose(), 1e-10));
    }

    /// A measurement of a position alone: the mean is weighted by the inverse variances.
    #[test]
    fn one_measurement_is_weighted_by_the_inverse_variances() {
        let mut filter = AxisFilter::new(10.0, 4.0, 1.0);
        filter.update(16.0, 2.0);
        assert!((filter.position() - (10.0 / 4.0 + 16.0 / 2.0) / (1.0 / 4.0 + 1.0 / 2.0)).abs() < 1e-12);
        assert!((filter.covariance[(0, 0)] - 1.0 / (1.0 / 4.0 + 1.0 / 2.0)).abs() < 1e-12);
        assert_eq!(filter.velocity(), 0.0, "uncorrelated at first");
    }

    /// The steady state of the continuous white-noise acceleration model solves the algebraic Riccati equation.
    #[test]
    fn in_the_steady_state_the_covariance_solves_the_riccati_equation() {
        let (t, q, r) = (1.0 / 30.0, 400.0, 9.0);
        let mut filter = AxisFilter::new(0.0, 1e3, 1e3);
        for _ in 0..2_000 {
            filter.predict(t, q);
            filter.update(0.0, r);
        }
        filter.predict(t, q);
        let p = filter.covariance;
        let (f, w) = (Matrix2::new(1.0, t, 0.0, 1.0), Matrix2::new(t * t * t / 3.0, t * t / 2.0, t * t / 2.0, t) * q);
        let h = Vector2::new(1.0, 0.0);
        let next = f * (p - p * h * h.transpose() * p / (p[(0, 0)] + r)) * f.transpose() + w;
        assert!(close(p, next, 1e-9), "{p} and {next}");
    }
}
