//! H.264 and H.265, packet by packet as a camera sends them, to pictures: by ffmpeg's libavcodec,
//! which is loaded at run time, so that programs build and start without it.
//!
//! - [`Stream`]: packets in, each with what belongs to it, pictures out; every packet gets exactly
//!   one answer.
//! - [`Codec`]: which of the two, by the `format` of a message. [`Picture`]: what comes out, in a
//!   buffer that is used again. [`VideoFault`]: why a packet has no picture.
//! - `decoder`: one stream's decoder, and when its pictures can be trusted. `annex_b`: what a packet
//!   is, without decoding it. `libavcodec`: the library; all of this crate that is unsafe.

#![warn(missing_docs)]

mod annex_b;
mod codec;
mod decoder;
mod fault;
mod libavcodec;
mod picture;
mod stream;

pub use annex_b::is_annex_b;
pub use codec::Codec;
pub use fault::{LibraryFault, VideoFault};
pub use libavcodec::LIBRARY;
pub use picture::Picture;
pub use stream::Stream;
