//! What is declared of a parameter, and the check of a value against it.

use r2r::ParameterValue;

use super::{Refusal, DECLARATIONS};

/// One parameter: its name, what it may be, when and for what it may be set, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Declaration {
    pub name: &'static str,
    pub domain: Domain,
    /// Whether it may be set at any time; otherwise only while the node is not configured.
    pub live: bool,
    /// Whether it may be given for one of several cameras, under a name such as `front.mounting`, as well as for all.
    pub per_camera: bool,
    pub description: &'static str,
}

/// The type, the default and the permitted values of a parameter. Bounds belong to the range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Domain {
    Flag { default: bool },
    Integer { default: i64, min: i64, max: i64 },
    Real { default: f64, min: f64, max: f64 },
    Text { default: &'static str },
    Choice { default: &'static str, of: &'static [&'static str] },
}

/// The declaration of the parameter called `name`, be it that of all cameras or that of one.
///
/// # Errors
/// [`Refusal::Unknown`] when there is none.
pub fn declaration(name: &str) -> Result<&'static Declaration, Refusal> {
    let of_camera = || {
        let (_, own) = of_camera(name)?;
        DECLARATIONS.iter().find(|d| d.per_camera && d.name == own)
    };
    let of_all = DECLARATIONS.iter().find(|d| d.name == name);
    of_all.or_else(of_camera).ok_or_else(|| Refusal::Unknown(name.to_owned()))
}

/// Camera and parameter of a name such as `front.mounting`; none if it has no such form.
pub fn of_camera(name: &str) -> Option<(&str, &str)> {
    name.split_once('.')
}

impl Declaration {
    /// The value that holds when nobody sets one.
    pub fn default(&self) -> ParameterValue {
        match self.domain {
            Domain::Flag { default } => ParameterValue::Bool(default),
            Domain::Integer { default, .. } => ParameterValue::Integer(default),
            Domain::Real { default, .. } => ParameterValue::Double(default),
            Domain::Text { default } | Domain::Choice { default, .. } => ParameterValue::String(default.to_owned()),
        }
    }

    /// Returns `value` if it is permitted; `name` is what it was given under. A whole number is taken for a real one, since `50` is what people write.
    ///
    /// # Errors
    /// [`Refusal::NotPermitted`] for another type, or outside the range.
    pub fn check(&self, name: &str, value: ParameterValue) -> Result<ParameterValue, Refusal> {
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
        Err(Refusal::NotPermitted { name: name.to_owned(), expected: self.expected(), found: shown(&value) })
    }

    /// What the value must be, for a sentence: `a number from 0 to 1`.
    fn expected(&self) -> String {
        match self.domain {
            Domain::Flag { .. } => "true or false".into(),
            Domain::Integer { min, max, .. } => format!("a whole number from {min} to {max}"),
            Domain::Real { min, max, .. } => format!("a number from {min} to {max}"),
            Domain::Text { .. } => "a text".into(),
            Domain::Choice { of, .. } => format!("one of {}", of.join(", ")),
        }
    }

    /// The permitted values, for a table: `0 … 1`.
    pub fn range(&self) -> String {
        match self.domain {
            Domain::Flag { .. } => "true, false".into(),
            Domain::Integer { min, max, .. } => format!("{min} … {max}"),
            Domain::Real { min, max, .. } => format!("{min:?} … {max:?}"),
            Domain::Text { .. } => "text".into(),
            Domain::Choice { of, .. } => of.join(", "),
        }
    }
}

/// A value as one would write it in a parameter file.
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

    #[test]
    fn bounds_belong_to_the_range_and_what_lies_beyond_is_refused() {
        let check = |value| declaration("nms_iou").unwrap().check("nms_iou", ParameterValue::Double(value));
        assert!(check(0.0).is_ok() && check(1.0).is_ok());
        for value in [-1e-9, 1.0 + 1e-9, f64::NAN, f64::INFINITY] {
            let sentence = check(value).unwrap_err().to_string();
            assert!(sentence.starts_with("'nms_iou' must be a number from 0 to 1, not "), "{sentence}");
        }
    }

    #[test]
    fn a_whole_number_serves_as_a_real_one_but_not_the_other_way_round() {
        let real = declaration("deadline_ms").unwrap();
        assert_eq!(real.check("deadline_ms", ParameterValue::Integer(50)), Ok(ParameterValue::Double(50.0)));
        assert!(declaration("threads").unwrap().check("threads", ParameterValue::Double(2.0)).is_err());
    }
}
