//! The offline half: data, teachers, soft targets, training, evaluation.
//!
//! - [`data`]: labelled images on disk; [`inspect`]: what they hold.
//! - [`teacher`]: heavy networks and what they see; [`soften`]: their soft targets on disk.
//! - [`net`]: the training engine; [`loss`]: what the student is taught by; [`train`]: the run.
//! - [`text`]: the same for sentences.
//! - [`quantize`]: a student in 8 bits.
//! - [`metrics`]: AP and mIoU; [`evaluate`]: a package judged by them; [`export`]: a package for other runtimes.
//! - [`prune`]: a package with fewer channels; [`share`]: with fewer different weights; [`before_after`]: what that costs.
//! - [`lock`]: folders that one program at a time writes to. - [`log`]: log lines.
//! - [`ablate`]: many trainings compared.

pub mod ablate;
pub mod before_after;
pub mod data;
mod defaults;
pub mod evaluate;
pub mod export;
pub mod inspect;
pub mod lock;
pub mod log;
pub mod loss;
pub mod metrics;
pub mod net;
pub mod prune;
pub mod quantize;
pub mod share;
pub mod soften;
pub mod teacher;
pub mod text;
pub mod train;
