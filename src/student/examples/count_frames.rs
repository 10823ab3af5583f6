//! Runs a package's network a number of times in one instruction set, and does nothing else, so that the difference of
//! two runs under an emulator that counts instructions is that of the frames between them (`bench/arm/count.sh`):
//! `count_frames PACKAGE portable|best FRAMES`, on one thread and zeros. A package in 8 bits runs in integers.

use std::error::Error;
use std::path::Path;

use peregrine_engine::cpu::int8::{Int8Engine, IntegerIsa};
use peregrine_engine::cpu::{CpuEngine, Isa};
use peregrine_engine::Engine;
use peregrine_student::Student;

const USAGE: &str = "usage: count_frames PACKAGE portable|best FRAMES";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [package, isa, frames] = &arguments[..] else { return Err(USAGE.into()) };
    let portable = match isa.as_str() {
        "portable" => true,
        "best" => false,
        _ => return Err(USAGE.into()),
    };
    let (name, mut engine) = engine(package.as_ref(), portable)?;
    for _ in 0..frames.parse::<usize>().map_err(|_| USAGE)? {
        engine.run()?;
    }
    println!("{name}");
    Ok(())
}

/// The engine, and the name of its instruction set.
fn engine(package: &Path, portable: bool) -> Result<(String, Box<dyn Engine>), Box<dyn Error>> {
    let student = Student::load(package)?;
    let graph = student.graph();
    if let Some(quantization) = &student.quantization {
        let isa = if portable { IntegerIsa::Portable } else { IntegerIsa::best() };
        let engine = Int8Engine::with_isa(&graph, &student.weights, quantization, 1, isa)?;
        return Ok((format!("int8 {isa:?}"), Box::new(engine)));
    }
    let isa = if portable { Isa::Portable } else { Isa::best() };
    Ok((format!("f32 {isa:?}"), Box::new(CpuEngine::with_isa(&graph, &student.weights, 1, isa)?)))
}
