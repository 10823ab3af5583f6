//! Our engine beside itself: with one thread and with two, in turn, with no peer between them.

use std::time::Instant;

use anyhow::{Context, Result};
use peregrine_engine::cpu::int8::Int8Engine;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::Engine;

use crate::networks::Network;

/// Frames of each.
const FRAMES: usize = 400;

/// Times in milliseconds, frame by frame.
pub struct Alone {
    /// The network, and how it is computed.
    pub what: String,
    /// With one thread, and with two.
    pub times: Vec<(f64, f64)>,
}

/// `network` in f32, and in 8-bit integers where it has them.
///
/// # Errors
/// When an engine cannot be built.
pub fn measure(network: &Network, input: &[f32]) -> Result<Vec<Alone>> {
    let floats = |threads| Ok(Box::new(CpuEngine::new(&network.graph, &network.weights, threads)?) as Box<dyn Engine>);
    let mut all = vec![in_turn(format!("{}, f32", network.name), input, floats)?];
    if let Some(quantized) = &network.quantized {
        let quantization = quantized.quantization.as_ref().context("a quantized student has its quantization")?;
        let integers = |threads| {
            let engine = Int8Engine::new(&network.graph, &quantized.weights, quantization, threads)?;
            Ok(Box::new(engine) as Box<dyn Engine>)
        };
        all.push(in_turn(format!("{}, int8", network.name), input, integers)?);
    }
    Ok(all)
}

fn in_turn(what: String, input: &[f32], engine: impl Fn(usize) -> Result<Box<dyn Engine>>) -> Result<Alone> {
    let mut engines = [engine(1)?, engine(2)?];
    engines.iter_mut().for_each(|engine| engine.input().copy_from_slice(input));
    let mut times = vec![];
    for _ in 0..FRAMES {
        let mut pair = [0.0; 2];
        for (engine, time) in engines.iter_mut().zip(&mut pair) {
            // As beside the peers: the second frame counts.
            engine.run()?;
            let start = Instant::now();
            engine.run()?;
            *time = start.elapsed().as_secs_f64() * 1e3;
        }
        times.push((pair[0], pair[1]));
    }
    Ok(Alone { what, times })
}
