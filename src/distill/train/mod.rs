//! Training a student: images and targets in, a package for the node out.
//!
//! In the order in which a step happens:
//! - [`config`]: what a run is given; [`init`], [`imagenet`]: weights to start from.
//! - [`run`]: the run: steps, log, checkpoints, export; [`student`], [`teacher`]: the two commands for it.
//! - [`batches`]: images drawn and rendered ahead; [`augment`]: one random view; [`compose`]: several in one; [`objects`]: labels and teacher together;
//!   [`soft_view`]: a segmenter's soft targets.
//! - [`online`]: a teacher that looks at the rendered batches; [`mean_teacher`]: the student's own average in its place.
//! - [`distillation`]: the teacher's tensors and the student's, brought to the methods.
//! - [`step`]: forward, losses, backward; [`device`]: where; [`quantized`]: all of it in 8 bits.
//! - [`optimizer`], [`checkpoint`]; [`log`], [`origin`], [`published`], [`curves`]: what the run's folder tells of it.

pub mod augment;
pub mod batches;
pub mod checkpoint;
pub mod compose;
pub mod config;
pub mod curves;
pub mod device;
pub mod distillation;
pub mod imagenet;
pub mod init;
pub mod log;
pub mod mean_teacher;
pub mod objects;
pub mod online;
pub mod optimizer;
pub mod origin;
pub mod published;
pub mod quantized;
pub mod run;
pub mod soft_view;
pub mod step;
pub mod student;
pub mod teacher;
