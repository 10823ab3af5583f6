//! Training a student: images and targets in, a package for the node out.
//!
//! In the order in which a step happens:
//! - [`config`]: what a run is given. - [`student`]: the run: steps, log, checkpoints, export.
//! - [`batches`]: images drawn and rendered ahead; [`augment`]: one random view; [`objects`]: labels and teacher together.
//! - [`step`]: forward, losses, backward.
//! - [`optimizer`], [`checkpoint`].

pub mod augment;
pub mod batches;
pub mod checkpoint;
pub mod config;
pub mod objects;
pub mod optimizer;
pub mod step;
pub mod student;
