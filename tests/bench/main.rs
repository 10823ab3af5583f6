//! `latency_bench` as its users meet it.

mod latency_bench;
