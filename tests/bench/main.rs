//! `latency_bench` as its users meet it.

#[cfg(feature = "ros")]
mod any_node;
mod documents;
mod latency_bench;
#[cfg(feature = "distill")]
mod peers;
#[path = "../../src/recording/tests/recorder.rs"]
mod recorder;
#[cfg(feature = "video")]
#[path = "../../src/video/tests/support.rs"]
mod streams;
mod video;
