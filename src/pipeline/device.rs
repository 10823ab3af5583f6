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
    /// The CUDA device of that number, from 0: an error without it.
    Cuda(u32),
}

impl DeviceChoice {
    /// The number of the CUDA device that is to be tried, from 0; `None` for the CPU.
    pub fn cuda_device(self) -> Option<u32> {
        match self {
            Self::Cpu => None,
            Self::Auto => Some(0),
            Self::Cuda(number) => Some(number),
        }
    }

    /// Whether CUDA is asked for, and nothing else will do.
    pub fn is_cuda(self) -> bool {
        matches!(self, Self::Cuda(_))
    }
}

impl fmt::Display for DeviceChoice {
    /// As [`FromStr`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => match text.strip_prefix("cuda:").and_then(|number| number.parse().ok()) {
                Some(number) => Ok(Self::Cuda(number)),
                None => Err(format!("invalid device {text:?}: use auto, cpu or cuda (cuda:N for device N, from 0)")),
            },
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

#[cfg(test)]
mod tests {
    use super::DeviceChoice;

    #[test]
    fn a_device_is_read_as_it_is_shown() {
        for (text, choice) in
            [("auto", DeviceChoice::Auto), ("cpu", DeviceChoice::Cpu), ("cuda", DeviceChoice::Cuda(0))]
        {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda:1".parse(), Ok(DeviceChoice::Cuda(1)));
        assert_eq!(DeviceChoice::Cuda(1).to_string(), "cuda:1");
        for wrong in ["gpu", "cuda:", "cuda:-1", "cuda:one", "cuda1"] {
            let why = wrong.parse::<DeviceChoice>().unwrap_err();
            assert!(why.contains(wrong) && why.contains("cuda:N"), "{why}");
        }
    }
}
