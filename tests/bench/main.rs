//! `latency_bench` as its users meet it.

mod documents;
mod latency_bench;
