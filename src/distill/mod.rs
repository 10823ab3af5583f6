//! The offline half: data, teachers, soft targets, training, evaluation.

pub mod data;

pub mod net;
