//! The CPU engine beside ONNX Runtime, on the same graph, weights and input, frame by frame in turn.
//!
//! ```text
//! ORT_DYLIB_PATH=…/libonnxruntime.so cargo bench --bench engines -- PYTHON [RUNS]
//! ```
//! PYTHON has the packages onnx, numpy and safetensors, for `bench/peers/export_onnx.py`. Prints, for 1 and 2 threads,
//! least, median and 99th percentile; for 1 thread of the thread's CPU time, which other load on the machine disturbs
//! least, for 2 of wall time.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{anyhow, ensure, Context, Result};
use ort::environment::Environment;
use ort::session::Session;
use ort::value::TensorRef;
use peregrine::engine::cpu::{CpuEngine, Isa};
use peregrine::engine::{Engine, Graph, Op, Weights};
use peregrine::student::architecture::Architecture;
use safetensors::tensor::{Dtype, TensorView};

#[path = "../tests/engine_support/mod.rs"]
mod engine_support;
use engine_support::{random_input, random_weights};

fn main() -> Result<()> {
    // cargo adds `--bench` of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let Some(python) = arguments.first() else {
        println!("engines: skipped; give a Python with onnx, numpy and safetensors, and set ORT_DYLIB_PATH");
        return Ok(());
    };
    let runs = arguments.get(1).map_or(Ok(200), |n| n.parse()).context("RUNS must be a number")?;
    let architecture = Architecture::default_student();
    let graph = architecture.graph(architecture.input.width, architecture.input.height);
    let (weights, input) = (random_weights(&graph, 1), random_input(&graph, 2));
    let folder = std::env::temp_dir().join(format!("peregrine-engines-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let environment = ort::init().build().map_err(|e| anyhow!("ONNX Runtime: {e}"))?;
    let compared = export(&graph, &weights, python, &folder).and_then(|model| {
        [1, 2]
            .into_iter()
            .try_for_each(|threads| compare(&environment, &graph, &weights, &input, &model, threads, runs))
    });
    std::fs::remove_dir_all(&folder)?;
    compared
}

/// Writes graph and weights, and has the script make an ONNX model of them.
fn export(graph: &Graph, weights: &Weights, python: &str, folder: &Path) -> Result<std::path::PathBuf> {
    let pads = |size: usize, conv: &peregrine::engine::Conv| {
        let before = conv.pad_before(size);
        let total = ((size.div_ceil(conv.stride) - 1) * conv.stride + conv.kernel).saturating_sub(size);
        [before, total - before]
    };
    let layers: Vec<_> = graph
        .layers
        .iter()
        .map(|layer| {
            let mut json = serde_json::json!({
                "name": layer.name, "op": layer.op, "inputs": layer.inputs,
                "shape": [layer.shape.channels, layer.shape.height, layer.shape.width],
            });
            if let Op::Conv(conv) = &layer.op {
                let from = graph.layers[layer.inputs[0]].shape;
                json["pad_rows"] = serde_json::json!(pads(from.height, conv));
                json["pad_columns"] = serde_json::json!(pads(from.width, conv));
            }
            json
        })
        .collect();
    let json = serde_json::json!({ "layers": layers, "outputs": graph.outputs });
    std::fs::write(folder.join("graph.json"), serde_json::to_vec(&json)?)?;

    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors = HashMap::new();
    for (layer, _, shape) in graph.convs() {
        let values = weights.of(&layer.name);
        tensors.insert(format!("{}.weight", layer.name), (shape.to_vec(), bytes(&values.weight)));
        tensors.insert(format!("{}.bias", layer.name), (vec![shape[0]], bytes(&values.bias)));
    }
    let views = tensors.iter().map(|(name, (shape, data))| {
        (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("sizes come from the graph"))
    });
    std::fs::write(folder.join("weights.safetensors"), safetensors::serialize(views, None)?)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers/export_onnx.py");
    let model = folder.join("student.onnx");
    let status = Command::new(python).arg(script).arg(folder).arg(&model).status().context(python.to_owned())?;
    ensure!(status.success(), "the export failed");
    Ok(model)
}

fn compare(
    environment: &Environment,
    graph: &Graph,
    weights: &Weights,
    input: &[f32],
    model: &Path,
    threads: usize,
    runs: usize,
) -> Result<()> {
    let mut engines = vec![];
    let isas: Vec<Isa> = Isa::available().into_iter().filter(|&isa| isa != Isa::Portable).collect();
    for isa in if isas.is_empty() { vec![Isa::Portable] } else { isas } {
        let mut engine = CpuEngine::with_isa(graph, weights, threads, isa)?;
        engine.input().copy_from_slice(input);
        engines.push((format!("{isa:?}"), engine));
    }
    let ort = |e: &dyn std::fmt::Display| anyhow!("ONNX Runtime: {e}");
    let mut session = Session::builder(environment)
        .map_err(|e| ort(&e))?
        .with_intra_threads(threads)
        .map_err(|e| ort(&e))?
        .commit_from_file(model)
        .map_err(|e| ort(&e))?;
    let shape = graph.input_shape();
    let dims = [1, shape.channels, shape.height, shape.width];

    let mut times = vec![vec![]; engines.len() + 1];
    let mut worst = 0f32;
    for run in 0..runs + 20 {
        let start = Clock::now(threads);
        let tensor = TensorRef::from_array_view((dims, input)).map_err(|e| ort(&e))?;
        let found = session.run(ort::inputs![tensor]).map_err(|e| ort(&e))?;
        let mut measured = vec![start.milliseconds()];
        for (_, engine) in &mut engines {
            let start = Clock::now(threads);
            engine.run()?;
            measured.push(start.milliseconds());
        }
        if run == 0 {
            for i in 0..graph.outputs.len() {
                let (_, expected) = found[i].try_extract_tensor::<f32>().map_err(|e| ort(&e))?;
                let scale = expected.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
                for (_, engine) in &engines {
                    let differences = expected.iter().zip(engine.output(i)).map(|(a, b)| (a - b).abs() / scale);
                    worst = differences.fold(worst, f32::max);
                }
            }
            ensure!(worst < 1e-4, "the outputs differ by {worst}");
        }
        // The first runs warm caches and threads up.
        if run >= 20 {
            times.iter_mut().zip(measured).for_each(|(times, t)| times.push(t));
        }
    }
    let clock = if threads == 1 { "CPU time" } else { "wall time" };
    println!("\n{threads} thread(s), {runs} runs each in turn, {clock} in ms; outputs differ by at most {worst:.1e} relative");
    println!("{:<14} {:>8} {:>8} {:>8} {:>11} {:>14}", "engine", "min", "p50", "p99", "min / ORT", "p50 / ORT");
    times.iter_mut().for_each(|t| t.sort_by(f64::total_cmp));
    let at = |i: usize, q: f64| times[i][(q * (runs - 1) as f64).round() as usize];
    let names = std::iter::once("ONNX Runtime").chain(engines.iter().map(|(name, _)| name.as_str()));
    for (i, name) in names.enumerate() {
        let (min, median, p99) = (at(i, 0.0), at(i, 0.5), at(i, 0.99));
        let (least, typical) = (min / at(0, 0.0), median / at(0, 0.5));
        println!("{name:<14} {min:>8.3} {median:>8.3} {p99:>8.3} {least:>11.3} {typical:>14.3}");
    }
    Ok(())
}

/// This thread's CPU time where only it works, else wall time.
enum Clock {
    Cpu(f64),
    Wall(Instant),
}

impl Clock {
    fn now(threads: usize) -> Self {
        match (threads, thread_cpu_milliseconds()) {
            (1, Some(now)) => Self::Cpu(now),
            _ => Self::Wall(Instant::now()),
        }
    }

    fn milliseconds(&self) -> f64 {
        match self {
            Self::Cpu(start) => thread_cpu_milliseconds().expect("was there at the start") - start,
            Self::Wall(start) => start.elapsed().as_secs_f64() * 1e3,
        }
    }
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn thread_cpu_milliseconds() -> Option<f64> {
    extern "C" {
        fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = [0i64; 2];
    // SAFETY: on 64-bit Linux a timespec is two 64-bit integers, and the C library is linked anyway.
    let status = unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    (status == 0).then(|| time[0] as f64 * 1e3 + time[1] as f64 / 1e6)
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn thread_cpu_milliseconds() -> Option<f64> {
    None
}
