//! In the place of libavcodec, in programs that were built without it: there is no decoder.

use super::complaint::Complaint;
use super::fault::LibraryFault;
use super::Codec;

/// None can be opened.
pub enum Decoder {}

/// None is decoded.
pub enum Frame {}

impl Decoder {
    pub fn open(_: Codec, _: usize) -> Result<Self, LibraryFault> {
        Err(LibraryFault::NotBuilt)
    }

    pub fn send(&mut self, _: &[u8], _: i64) -> bool {
        match *self {}
    }

    pub fn finish(&mut self) {
        match *self {}
    }

    pub fn receive(&mut self) -> Result<Option<Frame>, ()> {
        match *self {}
    }

    pub fn complaint(&self) -> Option<Complaint> {
        match *self {}
    }

    pub fn flush(&mut self) {
        match *self {}
    }
}

impl Frame {
    pub fn complaint(&self) -> Option<Complaint> {
        match *self {}
    }

    pub fn pts(&self) -> i64 {
        match *self {}
    }

    pub fn size(&self) -> (usize, usize) {
        match *self {}
    }

    pub fn pixel_format(&self) -> &'static str {
        match *self {}
    }

    pub fn is_full_range(&self) -> bool {
        match *self {}
    }

    pub fn matrix(&self) -> i64 {
        match *self {}
    }

    /// # Safety
    /// There is no picture.
    pub unsafe fn row(&self, _: usize, _: usize, _: usize) -> Option<&[u8]> {
        match *self {}
    }
}
