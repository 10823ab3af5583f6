//! Device selection and fallback of a pipeline.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Requested device for inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// CUDA if there is a usable GPU, else the CPU; also once the GPU fails.
    Auto,
    #[default]
    Cpu,
    /// CUDA only: an error without it.
    Cuda,
}

impl fmt::Display for DeviceChoice {
    /// As [`FromStr`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(format!("invalid device {text:?}: use auto, cpu or cuda")),
        }
    }
}

/// GPU settings; no effect on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuOptions {
    pub wait: GpuWait,
    /// CUDA stream priority: 0 is normal, negative is more urgent; clamped to the device's range.
    pub priority: i32,
    /// Longest wait for a frame; then the CPU takes over where it may, and otherwise the frame fails.
    pub timeout: Duration,
}

impl Default for GpuOptions {
    fn default() -> Self {
        Self { wait: GpuWait::default(), priority: 0, timeout: Duration::from_millis(500) }
    }
}

/// GPU synchronisation: how the CPU waits for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuWait {
    /// Sleeps: frees the CPU.
    #[default]
    Block,
    /// Busy-waits: lower latency, uses a core.
    Spin,
}

impl FromStr for GpuWait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "block" => Ok(Self::Block),
            "spin" => Ok(Self::Spin),
            _ => Err(format!("invalid GPU synchronisation {text:?}: use block or spin")),
        }
    }
}

/// Device in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceInUse {
    Cpu {
        /// Why CUDA is not used although it was requested or tried: a sentence.
        instead_of_cuda: Option<String>,
    },
    /// Name of the device.
    Cuda(String),
}

impl DeviceInUse {
    /// `cpu` or `cuda`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu { .. } => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }
}

impl fmt::Display for DeviceInUse {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cpu { instead_of_cuda: None } => f.write_str("the CPU"),
            Self::Cpu { instead_of_cuda: Some(why) } => write!(f, "the CPU ({why})"),
            Self::Cuda(name) => f.write_str(name),
        }
    }
}
