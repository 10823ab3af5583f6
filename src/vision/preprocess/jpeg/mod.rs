//! What is to be known of a JPEG before it is decoded: whether all of it is there, and whether it brings its own Huffman
//! tables. Decoders forgive too much for a camera on a vehicle: where data is lost they move the rest of the picture up,
//! or fill it with grey, and say nothing.
//!
//! - `markers`: the walk from marker to marker, and the count of restart intervals; cheap enough for every arrival.
//! - `entropy`: whether the compressed data holds as many blocks as the picture has.
//! - `tables`: the standard Huffman tables, for frames that were sent without any.

mod entropy;
mod frame;
mod huffman;
mod markers;
mod tables;

use std::borrow::Cow;

pub use markers::Structure;

/// Why a JPEG is refused before it is decoded. Made without allocation, since a camera may send thousands of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum JpegFault {
    /// The end of the file comes before the end of the image.
    #[error("ends before its end-of-image marker")]
    Truncated,
    /// A segment that does not fit its own length, or is missing.
    #[error("has a damaged {0}")]
    Header(&'static str),
    /// The number of a restart marker is not the next one.
    #[error("has restart marker {found} where {expected} is due: restart intervals were lost or doubled")]
    Restart {
        /// Number of the marker that was due, 0…7.
        expected: u8,
        /// Number of the marker that came.
        found: u8,
    },
    /// Too few or too many restart intervals for the size of the picture.
    #[error("has {found} restart intervals where its size asks for {expected}: some were lost or doubled")]
    Intervals {
        /// Number that follows from the size.
        expected: usize,
        /// Number that is there.
        found: usize,
    },
    /// A restart marker with no data behind it.
    #[error("has an empty restart interval, {interval}")]
    Empty {
        /// Index of the interval within its scan.
        interval: usize,
    },
    /// A restart marker, though the file declares no restart interval.
    #[error("has restart markers, but declares no restart interval")]
    UndeclaredRestart,
    /// The compressed data ends before the picture does.
    #[error(
        "lacks compressed data: it ends {missing} of {expected} units (MCU) early, in restart interval {interval}"
    )]
    Short {
        /// Minimum coded units that are missing from the interval.
        missing: usize,
        /// Minimum coded units of the interval.
        expected: usize,
        /// Index of the interval within its scan.
        interval: usize,
    },
    /// The picture ends before the compressed data does.
    #[error("has {bytes} bytes of compressed data too many in restart interval {interval}")]
    Surplus {
        /// Number of bytes that belong to no unit.
        bytes: usize,
        /// Index of the interval within its scan.
        interval: usize,
    },
    /// Bits that no code stands for.
    #[error("has compressed data that is no code of its tables, in restart interval {interval}")]
    Code {
        /// Index of the interval within its scan.
        interval: usize,
    },
}

/// A whole JPEG as any decoder reads it: with the standard Huffman tables if it was sent without, as MJPEG cameras do
/// (AVI1 convention). Only such a file is copied.
///
/// # Errors
/// What is damaged.
pub fn checked(data: &[u8]) -> Result<Cow<'_, [u8]>, JpegFault> {
    let structure = Structure::read(data)?;
    structure.check_data()?;
    if !structure.lacks_tables() {
        return Ok(Cow::Borrowed(data));
    }
    let mut complete = Vec::new();
    structure.write_with_tables(&mut complete);
    Ok(Cow::Owned(complete))
}
