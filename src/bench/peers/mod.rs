//! Other inference engines beside ours, on files of the user's: `--peer onnxruntime:FILE` and `--peer openvino:FILE`.
//!
//! - [`process`]: a peer in a Python process of its own, that runs a frame on request.
//! - [`measure`]: rounds in which every engine runs one frame; [`quiet`]: what lies between their turns. [`report`]: their
//!   figures and ratios.

pub mod measure;
pub mod process;
pub mod quiet;
pub mod report;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// An inference engine that has a Python package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerKind {
    OnnxRuntime,
    OpenVino,
}

impl PeerKind {
    const ALL: [Self; 2] = [Self::OnnxRuntime, Self::OpenVino];

    /// Name of its package.
    pub fn package(self) -> &'static str {
        match self {
            Self::OnnxRuntime => "onnxruntime",
            Self::OpenVino => "openvino",
        }
    }
}

/// What is measured beside ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerChoice {
    /// The reference node, by this Python.
    Node(PathBuf),
    /// A network in another engine.
    Engine(PeerKind, PathBuf),
}

impl FromStr for PeerChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        for kind in PeerKind::ALL {
            match text.strip_prefix(kind.package()).and_then(|rest| rest.strip_prefix(':')) {
                Some("") => return Err(format!("{text} names no file: give {text}FILE")),
                Some(file) => return Ok(Self::Engine(kind, file.into())),
                None => {}
            }
        }
        Ok(Self::Node(text.into()))
    }
}

impl fmt::Display for PeerChoice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Node(python) => write!(f, "{}", python.display()),
            Self::Engine(kind, file) => write!(f, "{}:{}", kind.package(), file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_engine_with_a_file_or_a_python() {
        assert_eq!("openvino:a:b.xml".parse(), Ok(PeerChoice::Engine(PeerKind::OpenVino, "a:b.xml".into())));
        assert_eq!("/usr/bin/python3".parse(), Ok(PeerChoice::Node("/usr/bin/python3".into())));
        assert!("onnxruntime:".parse::<PeerChoice>().unwrap_err().contains("onnxruntime:FILE"));
        assert_eq!("onnxruntime:m.onnx".parse::<PeerChoice>().unwrap().to_string(), "onnxruntime:m.onnx");
    }
}
