//! Training a student: images and targets in, a package for the node out.
//!
//! In the order of a step:
//! - [`args`]: the commands' arguments; [`config`]: the configuration of a run; `check`: its ranges;
//!   [`inputs`]: what it reads; [`init`], [`imagenet`], [`heads`]: initial weights.
//! - [`run`]: the run, with the training loop; [`student`], [`teacher`]: the two commands.
//! - [`survey`]: every file of the data read once; [`images`]: the images that are drawn from, with
//!   [`objects`]: labels merged with soft targets; [`image_cache`]: their pixels, up to a bound.
//! - [`plan`]: what a batch shows; [`batches`]: read and, but where the device does that, rendered
//!   ahead; [`augment`]: one random view; [`compose`]: mosaic and mixup; [`soft_view`]: soft masks
//!   and features in a view.
//! - [`online`]: a teacher that is run on the rendered batches; [`mean_teacher`]: the student's own
//!   average instead.
//! - [`distillation`]: the methods, and their inputs from the student's and the teacher's tensors.
//! - [`step`]: forward pass, losses, backward pass; [`device`]: CPU or CUDA; [`quantized`]: in 8
//!   bits.
//! - [`ranks`](crate::ranks): several processes, each with a part of every batch.
//! - [`optimizer`], [`checkpoint`]; `progress`, [`step_log`], [`provenance`], [`artifacts`],
//!   [`curves`]: the files of the run's folder.

pub mod args;
pub mod artifacts;
pub mod augment;
pub mod batches;
#[cfg(test)]
mod batches_tests;
mod check;
pub mod checkpoint;
pub mod compose;
pub mod config;
pub mod curves;
pub mod device;
pub mod distillation;
pub mod heads;
pub mod image_cache;
pub mod imagenet;
pub mod images;
pub mod init;
pub mod inputs;
pub mod mean_teacher;
pub mod objects;
#[cfg(test)]
mod on_ranks;
pub mod online;
pub mod optimizer;
pub mod plan;
mod progress;
pub mod provenance;
pub mod quantized;
pub mod run;
pub mod soft_view;
pub mod step;
pub mod step_log;
pub mod student;
pub mod survey;
pub mod teacher;
