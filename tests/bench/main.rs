//! `latency_bench` as its users meet it.

mod documents;
mod latency_bench;
#[path = "../../src/recording/tests/recorder.rs"]
mod recorder;
#[cfg(feature = "video")]
#[path = "../../src/video/tests/support.rs"]
mod streams;
mod video;
