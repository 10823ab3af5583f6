//! The records of an MCAP file or of a chunk of one (mcap.dev/spec), from any reader.
//!
//! The crate `mcap` is not used for this: its reader cannot go on behind a damaged chunk, and panics
//! (in builds with overflow checks) on a chunk that is shorter than its records.

use std::io::{self, ErrorKind, Read};

/// Longest record other than a message or chunk that is read, in bytes.
const MAX_RECORD: u64 = 1 << 26;

/// Opcode and length of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub opcode: u8,
    pub length: u64,
}

/// Bytes of a [`Head`] in the file.
pub const HEAD: u64 = 9;

/// The next record's head. `None` at the end.
///
/// # Errors
/// When the input ends within it, or cannot be read.
pub fn head(from: &mut impl Read) -> io::Result<Option<Head>> {
    let mut bytes = [0; HEAD as usize];
    let read = read_up_to(from, &mut bytes)?;
    match read {
        0 => Ok(None),
        _ if read < bytes.len() => Err(ErrorKind::UnexpectedEof.into()),
        _ => {
            let [opcode, length @ ..] = bytes;
            Ok(Some(Head { opcode, length: u64::from_le_bytes(length) }))
        }
    }
}

/// Reads until `bytes` is full or the input ends; how many bytes there were.
fn read_up_to(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match from.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Replaces `out` by the next `length` bytes. Memory grows with what is there, not with what is
/// claimed.
///
/// # Errors
/// When the input ends before, or `length` is above `limit`.
pub fn body(from: &mut impl Read, length: u64, limit: u64, out: &mut Vec<u8>) -> io::Result<()> {
    out.clear();
    if length > limit {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("a record claims to have {length} bytes")));
    }
    let read = from.take(length).read_to_end(out)?;
    if (read as u64) < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// A whole record other than a message or chunk.
///
/// # Errors
/// See [`body`].
pub fn small_body(from: &mut impl Read, length: u64, out: &mut Vec<u8>) -> io::Result<()> {
    body(from, length, MAX_RECORD, out)
}

/// Passes over `length` bytes.
///
/// # Errors
/// When the input ends before.
pub fn skip(from: &mut impl Read, length: u64) -> io::Result<()> {
    let skipped = io::copy(&mut from.take(length), &mut io::sink())?;
    if skipped < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Head of a message: channel and log time in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageHead {
    pub channel: u16,
    pub log_time: u64,
}

/// Bytes of a [`MessageHead`] in the file, with the sequence number and publish time that it leaves
/// out.
pub const MESSAGE_HEAD: u64 = 22;

/// Reads the head of a message of `length` bytes, which leaves `length` − [`MESSAGE_HEAD`] of data.
///
/// # Errors
/// When the message is too short, or the input ends before.
pub fn message_head(from: &mut impl Read, length: u64) -> io::Result<MessageHead> {
    let mut bytes = [0; MESSAGE_HEAD as usize];
    if length < MESSAGE_HEAD {
        return Err(io::Error::new(ErrorKind::InvalidData, "a message is shorter than its head"));
    }
    from.read_exact(&mut bytes)?;
    let [a, b, ..] = bytes;
    let log_time = bytes[6..14].try_into().expect("eight");
    Ok(MessageHead { channel: u16::from_le_bytes([a, b]), log_time: u64::from_le_bytes(log_time) })
}

/// Head of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkHead {
    /// Log times of its first and last message, in nanoseconds.
    pub span: (u64, u64),
    pub uncompressed: u64,
    pub compressed: u64,
    pub compression: Vec<u8>,
}

impl ChunkHead {
    /// Reads the head of a chunk of `length` bytes.
    ///
    /// # Errors
    /// When it is damaged, or the input ends before.
    pub fn read(from: &mut impl Read, length: u64) -> io::Result<Self> {
        let mut fixed = [0; 32];
        from.read_exact(&mut fixed)?;
        let number = |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().expect("eight"));
        let name = u32::from_le_bytes(fixed[28..].try_into().expect("four"));
        let damaged = || io::Error::new(ErrorKind::InvalidData, "a chunk's head is damaged");
        if name > 64 {
            return Err(damaged());
        }
        let mut compression = vec![0; name as usize];
        from.read_exact(&mut compression)?;
        let mut compressed = [0; 8];
        from.read_exact(&mut compressed)?;
        let compressed = u64::from_le_bytes(compressed);
        let head = Self { span: (number(0), number(8)), uncompressed: number(16), compressed, compression };
        // What follows the head is the chunk's data.
        let fits = head.bytes().checked_add(compressed).is_some_and(|bytes| bytes <= length);
        fits.then_some(head).ok_or_else(damaged)
    }

    /// Its length in the file.
    pub fn bytes(&self) -> u64 {
        40 + self.compression.len() as u64
    }
}
