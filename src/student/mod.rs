//! The student: what it is built from, the package that holds it, and how that is loaded.
//!
//! - [`architecture`]: the description, and its lowering to a graph.
//! - [`manifest`]: the package's `manifest.json`.
//! - [`package`]: reading and writing a package folder, checked by shapes and hash.

pub mod architecture;
pub mod manifest;
pub mod package;

pub use architecture::{Architecture, DetectionLevel};
pub use manifest::Manifest;
pub use package::{PackageError, Student};
