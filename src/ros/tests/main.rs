//! The frame path in process, without a middleware, and the node's command lines in the documents.

mod accounting;
mod black_box;
mod degraded;
#[cfg(feature = "cuda")]
mod device;
mod documents;
mod in_process;
mod stalls;
#[cfg(feature = "video")]
#[path = "../../video/tests/support.rs"]
mod streams;
#[cfg(feature = "video")]
mod video;
mod web;
