//! The fields of a record, little-endian, read within bounds; and the records that are read whole.

use std::collections::BTreeMap;

/// The bytes with which an MCAP file begins and ends.
pub const MAGIC: &[u8; 8] = b"\x89MCAP0\r\n";

/// Opcodes of records.
pub mod op {
    pub const FOOTER: u8 = 0x02;
    pub const SCHEMA: u8 = 0x03;
    pub const CHANNEL: u8 = 0x04;
    pub const MESSAGE: u8 = 0x05;
    pub const CHUNK: u8 = 0x06;
    pub const CHUNK_INDEX: u8 = 0x08;
    pub const ATTACHMENT_INDEX: u8 = 0x0a;
    pub const STATISTICS: u8 = 0x0b;
    pub const METADATA_INDEX: u8 = 0x0d;
    pub const SUMMARY_OFFSET: u8 = 0x0e;
    pub const DATA_END: u8 = 0x0f;
    /// From here on each program has its own.
    pub const PRIVATE: u8 = 0x80;
}

/// The part of a record that has not been read. Every method gives `None` when it is too short.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        String::from_utf8(self.take(length)?.to_owned()).ok()
    }

    /// A map from channels to numbers.
    fn by_channel(&mut self) -> Option<BTreeMap<u16, u64>> {
        let length = self.u32()? as usize;
        let mut entries = Fields(self.take(length)?);
        let mut map = BTreeMap::new();
        while !entries.0.is_empty() {
            map.insert(entries.u16()?, entries.u64()?);
        }
        Some(map)
    }
}

/// A schema's id and name.
pub fn schema(record: &[u8]) -> Option<(u16, String)> {
    let mut fields = Fields(record);
    Some((fields.u16()?, fields.text()?))
}

/// Who sends messages on a topic.
#[derive(Debug, Clone)]
pub struct Channel {
    pub id: u16,
    pub schema: u16,
    pub topic: String,
    /// How its messages are encoded.
    pub encoding: String,
}

impl Channel {
    pub fn parse(record: &[u8]) -> Option<Self> {
        let mut fields = Fields(record);
        Some(Self { id: fields.u16()?, schema: fields.u16()?, topic: fields.text()?, encoding: fields.text()? })
    }
}

/// Counts and times of all messages.
#[derive(Debug, Clone)]
pub struct Statistics {
    pub messages: u64,
    /// Log times of the first and the last message, in nanoseconds.
    pub span: (u64, u64),
    pub by_channel: BTreeMap<u16, u64>,
}

impl Statistics {
    pub fn parse(record: &[u8]) -> Option<Self> {
        let mut fields = Fields(record);
        let messages = fields.u64()?;
        // Numbers of schemas, channels, attachments, metadata and chunks.
        fields.take(2 + 4 * 4)?;
        Some(Self { messages, span: (fields.u64()?, fields.u64()?), by_channel: fields.by_channel()? })
    }
}

/// Where a chunk lies and what is in it.
#[derive(Debug, Clone)]
pub struct ChunkIndex {
    /// Log times of its first and its last message, in nanoseconds.
    pub span: (u64, u64),
    /// Offset of its record in the file.
    pub at: u64,
    /// The channels that have messages in it; none if it is not indexed.
    pub channels: BTreeMap<u16, u64>,
}

impl ChunkIndex {
    pub fn parse(record: &[u8]) -> Option<Self> {
        let mut fields = Fields(record);
        let (span, at) = ((fields.u64()?, fields.u64()?), fields.u64()?);
        // The record's length.
        fields.u64()?;
        Some(Self { span, at, channels: fields.by_channel()? })
    }
}
