//! The frame path in process, without a middleware.

mod accounting;
mod degraded;
#[cfg(feature = "cuda")]
mod device;
mod in_process;
