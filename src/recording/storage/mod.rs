//! What files of recordings have in common: a list of topics, and the messages of one of them.

mod mcap;
mod plain;
mod sqlite;

use std::path::Path;

pub use plain::Plain;

use crate::error::RecordingError;
use crate::topic::Topic;

/// Longest message that is read, in bytes: an image of 8192×8192 in four channels. A longer one is
/// taken for damage.
pub const MAX_MESSAGE: u64 = 1 << 28;

/// What a file says about itself.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    pub topics: Vec<Topic>,
    /// Log times of the first and last message of any topic. `None` if there is none.
    pub span: Option<(u64, u64)>,
    /// What is wrong with it, as sentences without the file's name.
    pub warnings: Vec<String>,
}

impl Contents {
    /// Notes that a message of any topic was logged at `time`.
    fn include(&mut self, time: u64) {
        let (first, last) = self.span.unwrap_or((time, time));
        self.span = Some((first.min(time), last.max(time)));
    }
}

/// Log times, both inclusive.
pub type Span = (u64, u64);

/// The messages of one topic, one after another.
pub trait Messages: Send {
    /// Reads the next message into `data` and returns its log time. `None` after the last one.
    ///
    /// # Errors
    /// A sentence without the file's name: what is damaged. The next call goes on behind it, or
    /// ends.
    fn next(&mut self, data: &mut Vec<u8>) -> Result<Option<u64>, String>;
}

/// The contents of a `.mcap` or `.db3` file.
///
/// # Errors
/// When it is not such a file, or cannot be opened. Damage is not an error but a warning.
pub fn contents(file: &Plain) -> Result<Contents, RecordingError> {
    match file.kind() {
        Format::Mcap => mcap::contents(file.path()),
        Format::Sqlite => sqlite::contents(file.path()),
    }
    .map_err(|error| error.of(file.name()))
}

/// The messages of `topic` within `span`.
///
/// # Errors
/// See [`contents`].
pub fn messages(file: &Plain, topic: &Topic, span: Span) -> Result<Box<dyn Messages>, RecordingError> {
    let opened = match file.kind() {
        Format::Mcap => mcap::messages(file.path(), topic, span),
        Format::Sqlite => sqlite::messages(file.path(), topic, span),
    };
    opened.map_err(|error| error.of(file.name()))
}

/// How a file of a recording is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Mcap,
    Sqlite,
}

impl Format {
    /// The format and whether the whole file is compressed, by the file's name.
    pub fn of(path: &Path) -> Option<(Self, bool)> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let inner = name.strip_suffix(".zstd").or_else(|| name.strip_suffix(".zst"));
        let format = match inner.unwrap_or(&name) {
            name if name.ends_with(".mcap") => Self::Mcap,
            name if name.ends_with(".db3") => Self::Sqlite,
            _ => return None,
        };
        Some((format, inner.is_some()))
    }
}

/// Why a file cannot be opened: without its name, which [`OpenError::of`] adds.
#[derive(Debug)]
pub enum OpenError {
    Io(std::io::Error),
    Invalid(String),
}

impl OpenError {
    fn of(self, path: &Path) -> RecordingError {
        match self {
            Self::Io(source) => RecordingError::Io { path: path.to_owned(), source },
            Self::Invalid(why) => RecordingError::Invalid { path: path.to_owned(), why },
        }
    }
}

impl From<std::io::Error> for OpenError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}
