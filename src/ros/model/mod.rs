//! The model that frames are processed with: configured, loaded, warmed up, and replaced as a
//! whole.
//!
//! - `config`: [`ModelConfig`], from parameters to a loaded model. `degraded_mode`: what it may
//!   leave out.
//! - `loaded`: [`LoadedModel`], which the frame thread uses. `description`: its description.

mod classes;
mod config;
mod degraded_mode;
mod description;
mod loaded;

pub use classes::ModelClasses;
pub use config::ModelConfig;
pub use degraded_mode::DegradedMode;
pub use description::ModelDescription;
pub use loaded::LoadedModel;
