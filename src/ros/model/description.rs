//! A human-readable description of a loaded model, for the log and the diagnostics.

use std::sync::Arc;

use peregrine_engine::cpu::Isa;
use peregrine_pipeline::DeviceInUse;
use peregrine_student::Precision;

use super::classes::ModelClasses;

/// What a model was loaded from, and where it runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelDescription {
    pub student: String,
    /// Such as `cpu`; with the reason if it is not the preferred one.
    pub device: String,
    /// `f32` (on a GPU in halves) or `int8`; `auto` before a model is loaded.
    pub precision: Precision,
    /// What the degraded mode leaves out; `None` if it is off.
    pub degraded_mode: Option<String>,
    /// `None` before a model is loaded.
    pub classes: Option<Arc<ModelClasses>>,
}

/// A device: its kind first, then its name, or why it is not CUDA, and advice for a processor
/// without vector instructions.
pub(super) fn device_text(device: &DeviceInUse) -> String {
    let kind = device.name();
    let advice = Isa::best().advice().map_or(String::new(), |advice| format!("; {advice}"));
    match device {
        DeviceInUse::Cpu { instead_of_cuda: None } => format!("{kind}{advice}"),
        DeviceInUse::Cpu { instead_of_cuda: Some(why) } => format!("{kind} (not cuda: {why}){advice}"),
        DeviceInUse::Cuda(name) => format!("{kind} ({name})"),
    }
}
