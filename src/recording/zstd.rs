//! zstd streams (RFC 8878) of any number of frames.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The bytes with which a frame begins.
pub const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The decompressed bytes of a reader.
pub struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    within_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    pub fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), within_frame: false }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.within_frame {
                while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                    let decoded = self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1));
                    decoded.map_err(io::Error::other)?;
                }
                let read = self.decoder.read(out)?;
                if read > 0 || out.is_empty() {
                    return Ok(read);
                }
                self.within_frame = false;
            }
            if self.source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            use FrameDecoderError::ReadFrameHeaderError as Head;
            match self.decoder.init(&mut self.source) {
                Ok(()) => self.within_frame = true,
                Err(Head(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{compress_to_vec, CompressionLevel};

    use super::*;

    #[test]
    fn frames_behind_each_other_are_one_stream() {
        let parts = [vec![7; 300_000], (0..=255).collect::<Vec<u8>>()];
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frame = |part: &Vec<u8>| compress_to_vec(&part[..], CompressionLevel::Fastest);
        let stream = [frame(&parts[0]), skippable.to_vec(), frame(&parts[1])].concat();
        let mut found = Vec::new();
        Zstd::new(&stream[..]).read_to_end(&mut found).unwrap();
        assert_eq!(found, parts.concat());
        assert!(Zstd::new(&stream[..stream.len() - 4]).read_to_end(&mut found).is_err());
    }
}
