//! Every parameter of the node, declared once.
//!
//! From the `table` come the ROS descriptors, the checks at start and at `ros2 param set`, what
//! `perception_node --list-parameters` prints, and the README's table.
//!
//! - `table`: the parameters. [`declaration`](self::declaration()): what is declared of one, and the check of a value.
//! - `values`: the values that hold. `listing`: the table as text.
//!
//! Besides these there are the `qos_overrides`, whose names depend on the topics: see [`qos`](super::qos). And those
//! that belong to a camera may be given for one of several: `front.mounting` is the mounting of the camera `front`.

mod declaration;
mod listing;
mod table;
mod values;

pub use declaration::{declaration, of_camera, shown, Declaration, Domain};
pub use listing::{listing, markdown};
pub use table::DECLARATIONS;
pub use values::Parameters;

/// Why a value was refused: one sentence that names the parameter and what it may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no parameter '{0}'; perception_node --list-parameters shows them all")]
    Unknown(String),
    #[error("'{name}' must be {expected}, not {found}")]
    NotPermitted { name: String, expected: String, found: String },
    #[error("'{0}' is read-only while the node is configured; set it at start, or after a cleanup")]
    ReadOnly(String),
    #[error("'{name}' {why}")]
    Unfit { name: String, why: String },
}
