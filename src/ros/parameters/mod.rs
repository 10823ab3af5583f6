//! Every parameter of the node, declared once.
//!
//! From the `table` come the ROS descriptors, the checks at start and at `ros2 param set`, what
//! `perception_node --list-parameters` and `--describe` print, `docs/parameters.md` and
//! `launch/perception.yaml`.
//!
//! - `table`: the parameters. `declaration`: what is declared of one, and the check of a value.
//! - `values`: the values in force. `listing`: the table as text, Markdown and YAML.
//! - [`qos_overrides`]: the parameters whose names depend on the topics. `error`: why one is
//!   refused. `ignorable`: what of others' parameters is no fault.
//!
//! The parameters of a camera may also be given for one of several cameras: `front.mounting` is the
//! mounting of the camera `front`.

mod declaration;
mod error;
mod ignorable;
mod listing;
pub mod qos_overrides;
mod table;
mod values;

pub use declaration::{shown, Declaration, Domain};
pub use error::ParameterError;
pub use listing::{listing, markdown, yaml};
pub use table::{declaration, split_camera, DECLARATIONS, DEFAULT_ROAD};
pub use values::Parameters;
