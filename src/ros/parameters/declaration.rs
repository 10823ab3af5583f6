//! What is declared of a parameter, and the check of a value against it.

use r2r::ParameterValue;

use super::error::ParameterError;

/// One parameter.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    pub name: &'static str,
    pub domain: Domain,
    /// Whether it may be set at any time (dynamic); otherwise only while the node is not
    /// configured.
    pub live: bool,
    /// Whether it keeps for good the value that it was started with, so that nobody who can set
    /// parameters can lift it.
    pub fixed: bool,
    /// Whether it may be given for one of several cameras, under a name such as `front.mounting`,
    /// as well as for all.
    pub per_camera: bool,
    pub description: &'static str,
}

/// The type, the default and the permitted values of a parameter. Bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Domain {
    Flag { default: bool },
    Integer { default: i64, min: i64, max: i64 },
    Real { default: f64, min: f64, max: f64 },
    Text { default: &'static str },
    Choice { default: &'static str, of: &'static [&'static str] },
}

impl Declaration {
    /// The default value.
    pub fn default(&self) -> ParameterValue {
        match self.domain {
            Domain::Flag { default } => ParameterValue::Bool(default),
            Domain::Integer { default, .. } => ParameterValue::Integer(default),
            Domain::Real { default, .. } => ParameterValue::Double(default),
            Domain::Text { default } | Domain::Choice { default, .. } => ParameterValue::String(default.to_owned()),
        }
    }

    /// Returns `value` if it is permitted; `name` is the name that it was given under. An integer
    /// is accepted for a real number, since `50` is what users write.
    ///
    /// # Errors
    /// [`ParameterError::NotPermitted`] for another type, or outside the range.
    pub fn check(&self, name: &str, value: ParameterValue) -> Result<ParameterValue, ParameterError> {
        let value = match (self.domain, value) {
            (Domain::Real { .. }, ParameterValue::Integer(i)) => ParameterValue::Double(i as f64),
            (_, value) => value,
        };
        let permitted = match (self.domain, &value) {
            (Domain::Flag { .. }, ParameterValue::Bool(_)) => true,
            (Domain::Integer { min, max, .. }, ParameterValue::Integer(i)) => (min..=max).contains(i),
            (Domain::Real { min, max, .. }, ParameterValue::Double(x)) => (min..=max).contains(x),
            (Domain::Text { .. }, ParameterValue::String(_)) => true,
            (Domain::Choice { of, .. }, ParameterValue::String(s)) => of.contains(&s.as_str()),
            _ => false,
        };
        if permitted {
            return Ok(value);
        }
        Err(ParameterError::NotPermitted { name: name.to_owned(), expected: self.expected(), found: shown(&value) })
    }

    /// The permitted values, for a sentence: `a number from 0 to 1`.
    fn expected(&self) -> String {
        match self.domain {
            Domain::Flag { .. } => "true or false".into(),
            Domain::Integer { min, max, .. } => format!("an integer from {min} to {max}"),
            Domain::Real { min, max, .. } => format!("a number from {min} to {max}"),
            Domain::Text { .. } => "a string".into(),
            Domain::Choice { of, .. } => format!("one of {}", of.join(", ")),
        }
    }

    /// The permitted values, for a table: `0 … 1`.
    pub fn range(&self) -> String {
        match self.domain {
            Domain::Flag { .. } => "true, false".into(),
            Domain::Integer { min, max, .. } => format!("{min} … {max}"),
            Domain::Real { min, max, .. } => format!("{min:?} … {max:?}"),
            Domain::Text { .. } => "string".into(),
            Domain::Choice { of, .. } => of.join(", "),
        }
    }
}

/// A value as it is written in a parameter file.
pub fn shown(value: &ParameterValue) -> String {
    match value {
        ParameterValue::Bool(v) => v.to_string(),
        ParameterValue::Integer(v) => v.to_string(),
        ParameterValue::Double(v) => format!("{v:?}"),
        ParameterValue::String(v) => format!("'{v}'"),
        ParameterValue::NotSet => "unset".into(),
        other => other.type_name().into(),
    }
}
