//! Why a parameter was refused.

/// One sentence that names the parameter and its permitted values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// With the parameter that was probably meant, if one is near.
    #[error("'{name}' is unknown{}; perception_node --list-parameters lists all parameters", meant(.near))]
    Unknown { name: String, near: Option<&'static str> },
    #[error("'{name}' must be {expected}, not {found}")]
    NotPermitted { name: String, expected: String, found: String },
    #[error("'{0}' is read-only while the node is configured; set it at start, or after a cleanup")]
    ReadOnly(String),
    #[error("'{0}' keeps the value that the node was started with; start the node anew with another")]
    Fixed(String),
    #[error("'{name}' {why}")]
    Invalid { name: String, why: String },
}

fn meant(near: &Option<&'static str>) -> String {
    near.map_or(String::new(), |near| format!("; did you mean '{near}'?"))
}
