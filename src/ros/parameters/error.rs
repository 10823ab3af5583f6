//! Why a parameter was refused.

/// One sentence that names the parameter and its permitted values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    #[error("'{0}' is unknown; perception_node --list-parameters lists all parameters")]
    Unknown(String),
    #[error("'{name}' must be {expected}, not {found}")]
    NotPermitted { name: String, expected: String, found: String },
    #[error("'{0}' is read-only while the node is configured; set it at start, or after a cleanup")]
    ReadOnly(String),
    #[error("'{name}' {why}")]
    Invalid { name: String, why: String },
}
