//! Writes MCAP files (mcap.dev/spec, version 0): messages in chunks, uncompressed, since images are
//! compressed already, with the index that players need to seek.

use std::collections::BTreeMap;
use std::io::{self, Write};

const MAGIC: &[u8; 8] = b"\x89MCAP0\r\n";

/// Bytes after which a chunk ends: a player reads a message with all others of its chunk.
const CHUNK: usize = 1 << 20;

/// What records begin with.
mod op {
    pub const HEADER: u8 = 0x01;
    pub const FOOTER: u8 = 0x02;
    pub const SCHEMA: u8 = 0x03;
    pub const CHANNEL: u8 = 0x04;
    pub const MESSAGE: u8 = 0x05;
    pub const CHUNK: u8 = 0x06;
    pub const MESSAGE_INDEX: u8 = 0x07;
    pub const CHUNK_INDEX: u8 = 0x08;
    pub const STATISTICS: u8 = 0x0b;
    pub const METADATA: u8 = 0x0c;
    pub const METADATA_INDEX: u8 = 0x0d;
    pub const DATA_END: u8 = 0x0f;
}

/// A channel of messages of one type.
#[derive(Debug, Clone)]
pub struct Topic<'a> {
    pub name: &'a str,
    /// Such as `sensor_msgs/msg/Image`.
    pub type_name: &'a str,
    /// In the form `ros2msg`.
    pub definition: &'a str,
}

/// A file that is being written. Its topics are known from the beginning.
pub struct McapWriter<W> {
    to: W,
    /// Bytes written so far.
    offset: u64,
    /// The topics' records, for the end of the file as well.
    topics: Vec<u8>,
    counts: Vec<u64>,
    chunk: Chunk,
    /// Of the chunks so far.
    index: Vec<u8>,
    chunks: u32,
    metadata: u32,
    span: Span,
}

/// First and last log time.
#[derive(Debug, Clone, Copy)]
struct Span(u64, u64);

impl Span {
    const EMPTY: Self = Self(u64::MAX, 0);

    fn include(&mut self, time: u64) {
        *self = Self(self.0.min(time), self.1.max(time));
    }

    /// As it is written: without messages 0 and 0.
    fn bounds(self) -> [u64; 2] {
        if self.0 > self.1 {
            [0, 0]
        } else {
            [self.0, self.1]
        }
    }
}

struct Chunk {
    records: Vec<u8>,
    span: Span,
    /// Of each channel, time and place of its messages.
    index: BTreeMap<u16, Vec<(u64, u64)>>,
}

impl Chunk {
    fn new() -> Self {
        Self { records: Vec::with_capacity(CHUNK), span: Span::EMPTY, index: BTreeMap::new() }
    }
}

impl<W: Write> McapWriter<W> {
    /// Begins a file of ROS 2 messages in CDR.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn new(mut to: W, library: &str, topics: &[Topic]) -> io::Result<Self> {
        let (mut head, mut records) = (MAGIC.to_vec(), Vec::new());
        put_record(&mut head, op::HEADER, &[text("ros2"), text(library)].concat());
        for (id, topic) in (1u16..).zip(topics) {
            let schema = [&id.to_le_bytes()[..], &text(topic.type_name), &text("ros2msg"), &text(topic.definition)];
            put_record(&mut records, op::SCHEMA, &schema.concat());
            let no_metadata = 0u32.to_le_bytes();
            let channel = [&id.to_le_bytes()[..], &id.to_le_bytes(), &text(topic.name), &text("cdr"), &no_metadata];
            put_record(&mut records, op::CHANNEL, &channel.concat());
        }
        to.write_all(&head)?;
        to.write_all(&records)?;
        Ok(Self {
            to,
            offset: (head.len() + records.len()) as u64,
            counts: vec![0; topics.len()],
            topics: records,
            chunk: Chunk::new(),
            index: Vec::new(),
            chunks: 0,
            metadata: 0,
            span: Span::EMPTY,
        })
    }

    /// Adds a message of the topic with that index.
    ///
    /// # Errors
    /// Those of the file.
    pub fn message(&mut self, topic: usize, sequence: u32, log_time: u64, data: &[u8]) -> io::Result<()> {
        let channel = topic as u16 + 1;
        let place = self.chunk.records.len() as u64;
        let time = log_time.to_le_bytes();
        let head = [&channel.to_le_bytes()[..], &sequence.to_le_bytes(), &time, &time].concat();
        put_head(&mut self.chunk.records, op::MESSAGE, head.len() + data.len());
        self.chunk.records.extend_from_slice(&head);
        self.chunk.records.extend_from_slice(data);
        self.chunk.index.entry(channel).or_default().push((log_time, place));
        self.chunk.span.include(log_time);
        self.span.include(log_time);
        self.counts[topic] += 1;
        if self.chunk.records.len() >= CHUNK {
            self.end_chunk()?;
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Chunk::new());
        if chunk.records.is_empty() {
            return Ok(());
        }
        let start = self.offset;
        let size = (chunk.records.len() as u64).to_le_bytes();
        let span = chunk.span.bounds().map(u64::to_le_bytes).concat();
        let crc = crc32fast::hash(&chunk.records).to_le_bytes();
        let head = [&span[..], &size, &crc, &text(""), &size].concat();
        let mut record = Vec::with_capacity(64);
        put_head(&mut record, op::CHUNK, head.len() + chunk.records.len());
        record.extend_from_slice(&head);
        self.put(&record)?;
        self.put(&chunk.records)?;
        let length = self.offset - start;

        let (mut places, mut indexes) = (Vec::new(), Vec::new());
        for (channel, messages) in &chunk.index {
            places.extend_from_slice(&channel.to_le_bytes());
            places.extend_from_slice(&(self.offset + indexes.len() as u64).to_le_bytes());
            let entries: Vec<u8> =
                messages.iter().flat_map(|(t, at)| [t.to_le_bytes(), at.to_le_bytes()].concat()).collect();
            put_record(&mut indexes, op::MESSAGE_INDEX, &[&channel.to_le_bytes()[..], &sized(&entries)].concat());
        }
        self.put(&indexes)?;
        let [start, length, indexes] = [start, length, indexes.len() as u64].map(u64::to_le_bytes);
        let entry = [&span[..], &start, &length, &sized(&places), &indexes, &text(""), &size, &size].concat();
        put_record(&mut self.index, op::CHUNK_INDEX, &entry);
        self.chunks += 1;
        Ok(())
    }

    /// Adds named values about the file.
    ///
    /// # Errors
    /// Those of the file.
    pub fn metadata(&mut self, name: &str, values: &BTreeMap<String, String>) -> io::Result<()> {
        self.end_chunk()?;
        let pairs: Vec<u8> = values.iter().flat_map(|(key, value)| [text(key), text(value)].concat()).collect();
        let mut record = Vec::new();
        put_record(&mut record, op::METADATA, &[text(name), sized(&pairs)].concat());
        let [start, length] = [self.offset, record.len() as u64].map(u64::to_le_bytes);
        put_record(&mut self.index, op::METADATA_INDEX, &[&start[..], &length, &text(name)].concat());
        self.metadata += 1;
        self.put(&record)
    }

    /// Ends the file with its summary, and gives back what it was written to.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_chunk()?;
        let mut end = Vec::new();
        put_record(&mut end, op::DATA_END, &0u32.to_le_bytes());
        self.put(&end)?;
        let start = self.offset;
        let mut summary = std::mem::take(&mut self.topics);
        put_record(&mut summary, op::STATISTICS, &self.statistics());
        summary.append(&mut self.index);
        put_head(&mut summary, op::FOOTER, 20);
        // Without offsets of its groups.
        summary.extend([start, 0].map(u64::to_le_bytes).concat());
        let crc = crc32fast::hash(&summary);
        summary.extend(crc.to_le_bytes());
        summary.extend(MAGIC);
        self.put(&summary)?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn statistics(&self) -> Vec<u8> {
        let (topics, messages) = (self.counts.len(), self.counts.iter().sum::<u64>());
        let by_channel: Vec<u8> = (1u16..)
            .zip(&self.counts)
            .flat_map(|(id, count)| [&id.to_le_bytes()[..], &count.to_le_bytes()].concat())
            .collect();
        let attachments = 0;
        let counts = [topics as u32, attachments, self.metadata, self.chunks].map(u32::to_le_bytes).concat();
        let span = self.span.bounds().map(u64::to_le_bytes).concat();
        [&messages.to_le_bytes()[..], &(topics as u16).to_le_bytes(), &counts, &span, &sized(&by_channel)].concat()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len() as u64;
        self.to.write_all(bytes)
    }
}

fn put_head(to: &mut Vec<u8>, opcode: u8, length: usize) {
    to.push(opcode);
    to.extend_from_slice(&(length as u64).to_le_bytes());
}

fn put_record(to: &mut Vec<u8>, opcode: u8, content: &[u8]) {
    put_head(to, opcode, content.len());
    to.extend_from_slice(content);
}

/// After their number in 32 bits.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

fn text(text: &str) -> Vec<u8> {
    sized(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_recording::Recording;

    fn written(messages: &[(usize, u64, usize)]) -> Vec<u8> {
        let topic = |name| Topic { name, type_name: "sensor_msgs/msg/CompressedImage", definition: "string data\n" };
        let mut writer = McapWriter::new(Vec::new(), "test", &[topic("/a"), topic("/b")]).unwrap();
        for (i, &(topic, time, bytes)) in messages.iter().enumerate() {
            writer.message(topic, i as u32, time, &vec![i as u8; bytes]).unwrap();
        }
        writer.metadata("notes", &[("why".to_owned(), "a test".to_owned())].into()).unwrap();
        writer.finish().unwrap()
    }

    fn opened(bytes: &[u8]) -> Recording {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.mcap");
        std::fs::write(&path, bytes).unwrap();
        Recording::open(&path).unwrap()
    }

    #[test]
    fn a_file_of_several_chunks_tells_its_topics_counts_and_times() {
        let recording = opened(&written(&[(0, 100, 700_000), (1, 150, 10), (0, 200, 700_000), (0, 300, 5)]));
        assert!(recording.warnings().is_empty(), "{:?}", recording.warnings());
        let counts: Vec<_> = recording.topics().iter().map(|t| (t.name.as_str(), t.count)).collect();
        assert_eq!(counts, [("/a", Some(3)), ("/b", Some(1))]);
        assert_eq!((recording.start(), recording.duration()), (100, 200));
    }

    #[test]
    fn a_file_without_messages_is_whole() {
        let recording = opened(&written(&[]));
        assert!(recording.warnings().is_empty() && recording.topics().len() == 2);
    }
}
