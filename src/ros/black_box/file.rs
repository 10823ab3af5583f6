//! One recording on disk.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use peregrine_core::files::{write_atomically_with, FileError};

use super::folder::Folder;
use super::mcap::{McapWriter, Topic};
use super::messages::Channel;
use super::ring::Message;
use super::schemas::SCHEMAS;

/// Name of the record that says why the file was written.
const METADATA: &str = "peregrine";

/// What is to be written.
pub struct Recording {
    pub folder: Folder,
    pub path: PathBuf,
    /// Name of each channel's topic.
    pub topics: Vec<(Channel, String)>,
    /// In the order of their times.
    pub messages: Vec<Message>,
    /// Why it is written, by whom, and so on.
    pub notes: BTreeMap<String, String>,
}

impl Recording {
    /// Writes the file, after making room for it in its folder. Returns how many older ones were
    /// removed.
    ///
    /// # Errors
    /// When the folder or the disk does not take it; then nothing is left of it.
    pub fn write(&self) -> Result<u64, FileError> {
        let bytes = self.messages.iter().map(|message| message.data.len() as u64 + 128).sum();
        let removed = self.folder.make_room(bytes)?;
        write_atomically_with(&self.path, |file| self.write_to(BufWriter::with_capacity(1 << 18, file)))?;
        Ok(removed)
    }

    fn write_to(&self, to: impl Write) -> io::Result<()> {
        let definition = |name| SCHEMAS.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| *text);
        let topics: Vec<_> = self
            .topics
            .iter()
            .map(|(channel, name)| Topic {
                name,
                type_name: channel.type_name(),
                definition: definition(channel.type_name()),
            })
            .collect();
        let mut writer = McapWriter::new(to, concat!("peregrine ", env!("CARGO_PKG_VERSION")), &topics)?;
        for Message { channel, log_time, sequence, data } in &self.messages {
            let Some(topic) = self.topics.iter().position(|(known, _)| known == channel) else { continue };
            writer.message(topic, *sequence as u32, u64::try_from(*log_time).unwrap_or(0), data)?;
        }
        writer.metadata(METADATA, &self.notes)?;
        writer.finish().map(drop)
    }
}
