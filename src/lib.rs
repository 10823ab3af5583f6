//! Peregrine: real-time perception for vehicles and drones, by distillation.
//!
//! One library, three programs. Arrows of dependency go one way, from top to bottom:
//!
//! ```text
//! bin/perception_node   bin/distill     bin/latency_bench
//!        │                   │                 │
//!      [ros]             [distill]          [bench]
//!        └───────────────────┼─────────────────┘
//!                       [pipeline]            one frame: image → boxes and mask, stamped stage by stage
//!              ┌────────────┼──────────┬──────────┐
//!        [preprocess]   [student]   [decode]    [track]   letterbox │ weights, manifest │ logits → boxes │ → objects
//!              └────────────┼──────────┘
//!                        [engine]             runs a graph of layers on the CPU; candle is the reference
//! ```
//!
//! Nothing below `ros` knows ROS; `distill` and `latency_bench` build without it.

pub mod bench;
pub mod decode;
pub mod distill;
pub mod engine;
pub mod geometry;
pub mod pipeline;
pub mod preprocess;
#[cfg(feature = "ros")]
pub mod ros;
pub mod student;
pub mod track;
