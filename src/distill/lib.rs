//! Distillation, offline: data, teachers, soft targets, training, evaluation.
//!
//! - [`data`]: labelled images on disk; [`inspect`]: data set statistics and errors; [`import`]:
//!   other tools' layouts, and networks.
//! - [`teacher`]: teacher networks; [`soften`]: their soft targets on disk.
//! - [`net`]: the training engine; [`loss`]: the losses; [`tensor`]: what they are written with;
//!   [`picture`]: what an input shows, rendered.
//! - [`train`]: training runs; [`ranks`]: processes that train one network together.
//! - [`text`]: distillation of a text model.
//! - [`select`]: which unlabelled frames are worth labelling.
//! - [`quantize`]: post-training quantization to 8 bits.
//! - [`metrics`]: AP and mIoU; [`evaluate`]: evaluation of a package; [`export`]: ONNX.
//! - [`prune`]: channel pruning; [`cluster`]: weight clustering; [`average`]: of several trainings'
//!   weights; [`resize`]: another input size; [`calibrate`]: of the scores; [`before_after`]: comparison.
//! - [`ablate`]: ablation studies.
//! - [`model_args`]: which student a command is about. - [`meant`]: whose classes it means.
//! - [`store`]: folders in an object store. - [`lock`]: exclusive access to a folder. - [`log`]: log lines.
//! - [`file_index`]: what is known of files that have not changed since they were read.

pub mod ablate;
pub mod average;
pub mod before_after;
pub mod calibrate;
pub mod cluster;
pub mod data;
mod defaults;
pub mod evaluate;
pub mod export;
pub mod file_index;
pub mod gpu;
pub mod import;
pub mod inspect;
pub mod lock;
pub mod log;
pub mod loss;
pub mod meant;
pub mod metrics;
pub mod model_args;
pub mod net;
pub mod picture;
pub mod prune;
pub mod quantize;
pub mod ranks;
pub mod resize;
pub mod select;
pub mod soften;
pub mod store;
pub mod teacher;
pub mod tensor;
mod tensor_file;
pub mod text;
pub mod train;
