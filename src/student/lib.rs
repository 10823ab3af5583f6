//! The student: what it is built from, the package that holds it, and how that is loaded.
//!
//! - [`architecture`]: the description, and its lowering to a graph; `check`: whether it is possible;
//!   [`classes`]: the names that a head may have.
//! - [`imported`]: a network out of an ONNX file instead; [`head`]: what a detection head's values
//!   mean; [`scene`]: the head for the image as a whole.
//! - [`backbone`]: its first part; [`presets`]: those to choose from by name; `builder`: the graph
//!   under construction.
//! - [`manifest`]: the package's `manifest.json`.
//! - `quantized`: the weights file of a quantized student; [`clustered`]: of one with clustered
//!   weights; [`tensors`]: what they have in common.
//! - [`shape`]: a student of own classes and size, as a training's file declares it.
//! - [`package`]: reading and writing a package folder, checked by shapes and hash; [`twin`]: the same in
//!   8 bits, and which of both is taken.

pub mod architecture;
pub mod backbone;
mod builder;
mod check;
pub mod classes;
pub mod clustered;
pub mod head;
pub mod imported;
pub mod manifest;
pub mod package;
pub mod presets;
mod quantized;
pub mod scene;
pub mod shape;
pub mod tensors;
pub mod twin;

pub use architecture::{Architecture, DetectionLevel};
pub use manifest::Manifest;
pub use package::{PackageError, Student};
pub use scene::SceneHead;
pub use shape::StudentShape;
pub use twin::Precision;
