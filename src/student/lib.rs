//! The student: what it is built from, the package that holds it, and how that is loaded.
//!
//! - [`architecture`]: the description, and its lowering to a graph.
//! - [`backbone`]: its first part; [`presets`]: those to choose from by name.
//! - [`manifest`]: the package's `manifest.json`.
//! - `quantized`: the weights file of a quantized student; [`shared`]: of one whose weights share values.
//! - [`package`]: reading and writing a package folder, checked by shapes and hash.

pub mod architecture;
pub mod backbone;
pub mod manifest;
pub mod package;
pub mod presets;
mod quantized;
pub mod shared;

pub use architecture::{Architecture, DetectionLevel};
pub use manifest::Manifest;
pub use package::{PackageError, Student};
