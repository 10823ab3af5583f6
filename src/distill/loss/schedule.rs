//! A weight or temperature that may change during a run.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// In TOML a number, or a table `{ from = 1.0, to = 0.0, begin = 0.5, end = 1.0, shape = "cosine"
/// }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Schedule {
    Constant(f64),
    Ramp(Ramp),
}

/// From one value to another between two fractions of the run's steps, each 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    pub from: f64,
    pub to: f64,
    #[serde(default)]
    pub begin: f64,
    #[serde(default = "one")]
    pub end: f64,
    #[serde(default)]
    pub shape: RampShape,
}

/// The curve of a [`Ramp`] from one value to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RampShape {
    #[default]
    Linear,
    /// Half a cosine, flat at both ends.
    Cosine,
}

fn one() -> f64 {
    1.0
}

impl Schedule {
    /// The value at `progress`, the fraction of the run that is done (0 to 1).
    pub fn at(&self, progress: f64) -> f64 {
        match *self {
            Self::Constant(value) => value,
            Self::Ramp(Ramp { from, to, begin, end, shape }) => {
                let linear = ((progress - begin) / (end - begin)).clamp(0.0, 1.0);
                let done = if shape == RampShape::Cosine { 0.5 * (1.0 - (PI * linear).cos()) } else { linear };
                from + (to - from) * done
            }
        }
    }

    /// Checks that every value lies in `low..=high` and that a ramp ends after it begins.
    ///
    /// # Errors
    /// A sentence that begins with `name`.
    pub fn check(&self, name: &str, low: f64, high: f64) -> Result<(), String> {
        let within = |v: f64| v.is_finite() && (low..=high).contains(&v);
        let fine = match self {
            Self::Constant(value) => within(*value),
            Self::Ramp(r) => {
                if !(r.begin >= 0.0 && r.begin < r.end && r.end <= 1.0) {
                    return Err(format!("{name}: begin and end are fractions of the run, 0 <= begin < end <= 1"));
                }
                within(r.from) && within(r.to)
            }
        };
        fine.then_some(()).ok_or_else(|| format!("{name} must lie between {low} and {high}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_holds_its_ends_and_is_halfway_in_the_middle() {
        for shape in [RampShape::Linear, RampShape::Cosine] {
            let ramp = Schedule::Ramp(Ramp { from: 4.0, to: 1.0, begin: 0.2, end: 0.6, shape });
            for (progress, value) in [(0.0, 4.0), (0.2, 4.0), (0.4, 2.5), (0.6, 1.0), (1.0, 1.0)] {
                assert!((ramp.at(progress) - value).abs() < 1e-9, "{shape:?} at {progress}");
            }
        }
    }

    #[test]
    fn toml_takes_a_number_or_a_table() {
        #[derive(Deserialize)]
        struct Weights {
            a: Schedule,
            b: Schedule,
        }
        let text = "a = 2\nb = { from = 1.0, to = 0.0, shape = 'cosine' }";
        let weights: Weights = toml::from_str(text).unwrap();
        assert_eq!(weights.a.at(0.3), 2.0);
        assert_eq!(weights.b.at(1.0), 0.0);
        assert!(weights.b.check("b", 0.5, 1.0).unwrap_err().contains('b'));
    }
}
