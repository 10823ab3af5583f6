//! The messages of an MCAP file, in the order in which they lie there: all of it, or the chunks
//! that an index names.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::vec;

use super::channels::Channels;
use super::fields::{op, ChunkIndex, MAGIC};
use super::records::{body, head, message_head, skip, small_body, ChunkHead, Head, MessageHead, HEAD, MESSAGE_HEAD};
use super::summary::Summary;
use crate::zstd::Zstd;

/// Bytes read at a time.
const BLOCK: usize = 1 << 17;

/// Where to look for messages.
pub enum Places {
    /// At these offsets lie chunks.
    Chunks(vec::IntoIter<u64>),
    /// Everywhere.
    Everywhere,
}

impl Places {
    /// The chunks that `wanted` picks; everywhere if there is no summary.
    pub fn of(summary: Option<&Summary>, wanted: impl Fn(&ChunkIndex) -> bool) -> Self {
        let Some(summary) = summary else { return Self::Everywhere };
        let chosen = summary.chunks.iter().filter(|chunk| wanted(chunk)).map(|chunk| chunk.at);
        Self::Chunks(chosen.collect::<Vec<_>>().into_iter())
    }
}

/// A walk through a file.
pub struct Walk {
    path: PathBuf,
    file: BufReader<File>,
    length: u64,
    places: Places,
    /// Offset of the next record outside chunks. `None` once the file is at its end.
    at: Option<u64>,
    chunk: Option<Box<dyn Read + Send>>,
    channels: Channels,
    /// Bytes of the current message that have not been read.
    pending: u64,
    record: Vec<u8>,
    messages: u64,
}

impl Walk {
    /// Begins a walk; `path` is where chunks are opened.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn new(file: File, path: &Path, places: Places) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(BLOCK, file),
            length,
            places,
            at: Some(MAGIC.len() as u64),
            chunk: None,
            channels: Channels::default(),
            pending: 0,
            record: Vec::new(),
            messages: 0,
        })
    }

    /// Takes over what a summary knows.
    pub fn adopt(&mut self, channels: Channels) {
        self.channels = channels;
    }

    pub fn channels(&self) -> &Channels {
        &self.channels
    }

    /// The head of the next message of any topic; [`data`](Self::data) reads the rest. `None` after
    /// the last one.
    ///
    /// # Errors
    /// A sentence that says what is damaged. The next call goes on behind it, or ends.
    pub fn next(&mut self) -> Result<Option<MessageHead>, String> {
        loop {
            let found = if self.chunk.is_some() { self.within_chunk() } else { self.outside() };
            match found {
                Ok(Found::Message(message)) => {
                    self.messages += 1;
                    return Ok(Some(message));
                }
                Ok(Found::Nothing) => {}
                Ok(Found::End) => return Ok(None),
                Err(error) => return Err(self.damaged(error)),
            }
        }
    }

    /// Replaces `out` by the data of the message whose head was read last.
    ///
    /// # Errors
    /// See [`next`](Self::next).
    pub fn data(&mut self, limit: u64, out: &mut Vec<u8>) -> Result<(), String> {
        let length = std::mem::take(&mut self.pending);
        let read = match &mut self.chunk {
            Some(chunk) => body(chunk, length, limit, out),
            None => body(&mut self.file, length, limit, out),
        };
        read.map_err(|error| self.damaged(error))
    }

    /// Leaves what is damaged behind, and says so.
    fn damaged(&mut self, error: io::Error) -> String {
        let place = if self.chunk.is_some() { "a chunk" } else { "it" };
        let cut = error.kind() == ErrorKind::UnexpectedEof && self.at.is_none_or(|at| at >= self.length);
        self.pending = 0;
        // Behind a chunk there may be more; behind a damaged record nobody knows where the next begins.
        if self.chunk.take().is_none() && matches!(self.places, Places::Everywhere) {
            self.at = None;
        }
        // A decompressor does not say that its input ends early.
        if cut || self.at.is_some_and(|at| at > self.length) {
            self.at = None;
            return format!("is cut short after {} messages: the rest was never written, or is lost", self.messages);
        }
        format!("{place} is damaged after {} messages ({error}): what lies in it is lost", self.messages)
    }

    fn within_chunk(&mut self) -> io::Result<Found> {
        let chunk = self.chunk.as_mut().expect("checked by the caller");
        skip(chunk, std::mem::take(&mut self.pending))?;
        let Some(head) = head(chunk)? else {
            self.chunk = None;
            return Ok(Found::Nothing);
        };
        if head.opcode == op::MESSAGE {
            let message = message_head(chunk, head.length)?;
            self.pending = head.length - MESSAGE_HEAD;
            return Ok(Found::Message(message));
        }
        if !Channels::wants(head.opcode) {
            skip(chunk, head.length)?;
            return Ok(Found::Nothing);
        }
        small_body(chunk, head.length, &mut self.record)?;
        self.note(head.opcode)
    }

    fn note(&mut self, opcode: u8) -> io::Result<Found> {
        let noted = self.channels.note(opcode, &self.record);
        noted.map(|()| Found::Nothing).map_err(|why| io::Error::new(ErrorKind::InvalidData, why))
    }

    fn outside(&mut self) -> io::Result<Found> {
        self.pending = 0;
        let at = match &mut self.places {
            Places::Chunks(offsets) => offsets.next(),
            Places::Everywhere => self.at,
        };
        let Some(at) = at else { return Ok(Found::End) };
        if at > self.length {
            self.at = Some(at);
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let ahead = at.checked_sub(self.file.stream_position()?).and_then(|ahead| i64::try_from(ahead).ok());
        match ahead {
            Some(ahead) => self.file.seek_relative(ahead)?,
            None => self.file.seek(SeekFrom::Start(at)).map(drop)?,
        }
        let Some(Head { opcode, length }) = head(&mut self.file)? else {
            self.at = None;
            // A whole file ends with its footer.
            return Err(ErrorKind::UnexpectedEof.into());
        };
        self.at = Some(at.saturating_add(HEAD).saturating_add(length));
        match opcode {
            op::CHUNK => {
                let chunk = ChunkHead::read(&mut self.file, length)?;
                self.chunk = Some(self.open(at + HEAD + chunk.bytes(), &chunk)?);
                Ok(Found::Nothing)
            }
            _ if matches!(self.places, Places::Chunks(_)) => {
                Err(io::Error::new(ErrorKind::InvalidData, "its index names a chunk where there is none"))
            }
            op::MESSAGE => {
                let message = message_head(&mut self.file, length)?;
                self.pending = length - MESSAGE_HEAD;
                Ok(Found::Message(message))
            }
            op::DATA_END | op::FOOTER => {
                self.at = None;
                Ok(Found::End)
            }
            opcode if Channels::wants(opcode) => {
                small_body(&mut self.file, length, &mut self.record)?;
                self.note(opcode)
            }
            _ => Ok(Found::Nothing),
        }
    }

    /// The records of a chunk whose data begins at `at`.
    fn open(&self, at: u64, head: &ChunkHead) -> io::Result<Box<dyn Read + Send>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(at))?;
        let data = BufReader::with_capacity(BLOCK, file.take(head.compressed));
        Ok(match head.compression.as_slice() {
            b"" => Box::new(data),
            b"zstd" => Box::new(Zstd::new(data).take(head.uncompressed)),
            b"lz4" => Box::new(lz4_flex::frame::FrameDecoder::new(data).take(head.uncompressed)),
            other => {
                let why = format!("its compression {:?} is not known", String::from_utf8_lossy(other));
                return Err(io::Error::new(ErrorKind::Unsupported, why));
            }
        })
    }
}

enum Found {
    Message(MessageHead),
    Nothing,
    End,
}
