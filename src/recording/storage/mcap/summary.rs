//! The summary at the end of an MCAP file: channels, counts, and where the chunks lie.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use super::channels::Channels;
use super::fields::{op, ChunkIndex, Statistics, MAGIC};
use super::records::{head, small_body};

/// Bytes of the footer's record and of the magic behind it.
const FOOTER: u64 = 9 + 20 + MAGIC.len() as u64;

/// What the summary says.
#[derive(Debug)]
pub struct Summary {
    pub channels: Channels,
    pub statistics: Option<Statistics>,
    /// In the order in which they lie in the file.
    pub chunks: Vec<ChunkIndex>,
}

impl Summary {
    /// The summary of a file of `length` bytes. `None` if it has none that can be used.
    pub fn read(file: &mut File, length: u64) -> Option<Self> {
        let at = length.checked_sub(FOOTER)?;
        let mut footer = [0; FOOTER as usize];
        file.seek(SeekFrom::Start(at)).ok()?;
        file.read_exact(&mut footer).ok()?;
        if footer[0] != op::FOOTER || !footer.ends_with(MAGIC) {
            return None;
        }
        let start = u64::from_le_bytes(footer[9..17].try_into().ok()?);
        if start == 0 || start >= at {
            return None;
        }
        file.seek(SeekFrom::Start(start)).ok()?;
        Self::parse(BufReader::new(file).take(at - start))
    }

    fn parse(mut from: impl Read) -> Option<Self> {
        let mut summary = Self { channels: Channels::default(), statistics: None, chunks: Vec::new() };
        let mut record = Vec::new();
        while let Some(head) = head(&mut from).ok()? {
            small_body(&mut from, head.length, &mut record).ok()?;
            match head.opcode {
                opcode if Channels::wants(opcode) => summary.channels.note(opcode, &record).ok()?,
                op::STATISTICS => summary.statistics = Some(Statistics::parse(&record)?),
                op::CHUNK_INDEX => summary.chunks.push(ChunkIndex::parse(&record)?),
                // Their indices and the offsets of the groups.
                op::ATTACHMENT_INDEX | op::METADATA_INDEX | op::SUMMARY_OFFSET | op::DATA_END => {}
                // Only what a summary may hold; otherwise the footer points elsewhere.
                opcode if opcode < op::PRIVATE => return None,
                _ => {}
            }
        }
        summary.chunks.sort_by_key(|chunk| chunk.at);
        Some(summary)
    }

    /// Whether the messages can be found by it: it has the channels that it counts, and the chunks,
    /// or there are no messages at all.
    pub fn is_index(&self) -> bool {
        let Some(statistics) = &self.statistics else { return false };
        let known = statistics.by_channel.keys().all(|&channel| self.channels.has(channel));
        known && (!self.chunks.is_empty() || statistics.messages == 0)
    }
}
