//! H.264 and H.265, packet by packet as a camera sends them, to pictures: by ffmpeg's libavcodec,
//! which is loaded at run time, so that programs build and start without it.
//!
//! - [`Stream`]: packets in, each with what belongs to it, pictures out; every packet gets exactly
//!   one answer.
//! - [`Codec`]: which of the two, by the `format` of a message. [`Picture`]: what comes out, in a
//!   buffer that is used again. [`VideoFault`]: why a packet has no picture.
//! - `decoder`: one stream's decoder, and when its pictures can be trusted. `annex_b`: what a packet
//!   is, without decoding it. `copy`: any planar layout (`layout`) of any matrix of colours (`matrix`)
//!   to a picture. `libavcodec`: the library; all of this crate that is unsafe. `absent`:
//!   in its place without the feature `libavcodec`.

#![warn(missing_docs)]
#![cfg_attr(not(feature = "libavcodec"), allow(dead_code, reason = "there is nothing to decode with"))]

mod annex_b;
mod codec;
mod complaint;
mod copy;
mod decoder;
mod fault;
mod layout;
#[cfg(feature = "libavcodec")]
mod libavcodec;
#[cfg(not(feature = "libavcodec"))]
#[path = "absent.rs"]
mod libavcodec;
mod matrix;
mod picture;
mod stream;

pub use annex_b::{is_annex_b, is_key_frame};
pub use codec::Codec;
pub use fault::{LibraryFault, VideoFault, LIBRARY};
pub use picture::Picture;
pub use stream::Stream;
