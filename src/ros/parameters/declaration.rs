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
    Flag {
        default: bool,
    },
    Integer {
        default: i64,
        min: i64,
        max: i64,
    },
    Real {
        default: f64,
        min: f64,
        max: f64,
    },
    Text {
        default: &'static str,
    },
    /// One of several words. `N` at the end of one stands for a number from 0 to 255.
    Choice {
        default: &'static str,
        of: &'static [&'static str],
    },
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
            (Domain::Choice { of, .. }, ParameterValue::String(s)) => of.iter().any(|word| is_of(word, s)),
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

/// Whether `text` is the `word` of a choice.
fn is_of(word: &str, text: &str) -> bool {
    match word.strip_suffix('N') {
        Some(begin) => text.strip_prefix(begin).is_some_and(|number| number.parse::<u8>().is_ok()),
        None => text == word,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::table::DECLARATIONS;

    #[test]
    fn a_choice_may_end_in_a_number() {
        let device = DECLARATIONS.iter().find(|d| d.name == "device").unwrap();
        let check = |text: &str| device.check("device", ParameterValue::String(text.into()));
        for text in ["auto", "cuda", "cuda:0", "cuda:12"] {
            assert!(check(text).is_ok(), "{text}");
        }
        for text in ["cuda:", "cuda:N", "cuda:-1", "cuda:1000", "cuda1", "Cuda"] {
            let refused = check(text).unwrap_err().to_string();
            assert!(refused.contains("one of auto, cpu, cuda, cuda:N"), "{refused}");
        }
    }
}
