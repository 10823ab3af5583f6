//! The offline half: data, teachers, soft targets, training, evaluation.
//!
//! - [`data`]: labelled images on disk.
//! - [`teacher`]: heavy networks and what they see; [`soften`]: their soft targets on disk.
//! - [`net`]: the training engine; [`loss`]: what the student is taught by; [`train`]: the run.

pub mod data;
pub mod loss;
pub mod net;
pub mod soften;
pub mod teacher;
pub mod train;
