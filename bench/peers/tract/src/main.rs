//! tract as a peer of `bench/engines`: `tract-peer FOLDER THREADS`, with the protocol of
//! `bench/peers/serve.py`.

use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use tract_onnx::prelude::*;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = Path::new(arguments.get(1).context("FOLDER is missing")?);
    let threads: usize = arguments.get(2).context("THREADS is missing")?.parse()?;
    if threads > 1 {
        use tract_linalg::multithread::{set_default_executor, Executor};
        set_default_executor(Executor::multithread(threads));
    }
    let model = tract_onnx::onnx().model_for_path(folder.join("model.onnx"))?.into_optimized()?;
    let shape: Vec<usize> =
        model.input_fact(0)?.shape.as_concrete().context("the input has no fixed shape")?.to_vec();
    let model = model.into_runnable()?;
    let bytes = std::fs::read(folder.join("input.f32"))?;
    let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let input = Tensor::from_shape(&shape, &values)?;
    println!("ready tract 0.23.9");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (cpu, wall) = (cpu_milliseconds(), Instant::now());
        let outputs = model.run(tvec!(input.clone().into()))?;
        let wall = wall.elapsed().as_secs_f64() * 1e3;
        if line == "run" {
            println!("{wall} {}", cpu_milliseconds() - cpu);
        } else {
            let mut bytes = vec![];
            for output in outputs {
                let output = output.to_plain_array_view::<f32>()?;
                bytes.extend(output.iter().flat_map(|v| v.to_le_bytes()));
            }
            std::fs::write(folder.join("tract.f32"), bytes)?;
            println!("done");
        }
    }
    Ok(())
}

/// CPU time of all threads of this process.
fn cpu_milliseconds() -> f64 {
    extern "C" {
        fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    }
    let mut time = [0i64; 2];
    // SAFETY: on 64-bit Linux a timespec is two 64-bit integers; 2 is CLOCK_PROCESS_CPUTIME_ID.
    unsafe { clock_gettime(2, &mut time) };
    time[0] as f64 * 1e3 + time[1] as f64 / 1e6
}
