//! Latency of the CUDA engine on this machine's GPU: the network alone, image to boxes, of several cameras and in several
//! encodings, and each layer with its bytes and operations. `make bench-gpu` runs it; `bench/gpu.sh` packs it for a
//! machine without a toolchain. Results are in bench/RESULTS-gpu.md.

mod export;
mod floors;
mod frames;
mod images;
mod layers;
mod measure;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use peregrine_core::ImageView;
use peregrine_engine::cuda::{CudaEngine, Model, Wait};
use peregrine_engine::Engine;
use peregrine_pipeline::cuda::FrameGraphs;
use peregrine_student::Student;
use peregrine_vision::decode::NmsIou;

use images::photo;
use measure::{measure, summary};

#[derive(Parser)]
#[command(about = "Latency of the CUDA engine on this machine's GPU; without one, says why and exits with 3")]
struct Arguments {
    /// Frames of each measurement.
    #[arg(long, default_value_t = 10_000)]
    frames: usize,
    /// Runs of each kernel for the table of layers.
    #[arg(long, default_value_t = 50)]
    runs: usize,
    /// The GPU's peak for half precision on tensor cores in TFLOP/s, and its memory's in GB/s, from
    /// its data sheet: adds each layer's limit to the table.
    #[arg(long, value_names = ["TFLOPS", "GBS"], num_args = 2)]
    peaks: Option<Vec<f64>>,
    /// Folder of a student package, such as a quantized one, instead of the embedded student.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Write the network for bench/peers/pytorch_gpu.py to this folder, and end.
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
    /// Only name the GPU.
    #[arg(long)]
    find: bool,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
    /// Passed by cargo: a machine without a GPU is then skipped and not a failure.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let student = match &arguments.model {
        Some(folder) => Student::load(folder)?,
        None => Student::embedded(),
    };
    if let Some(folder) = &arguments.export {
        return export::export(&student, folder);
    }
    let driver = match peregrine_engine::cuda::open(0) {
        Ok(driver) => driver,
        Err(why) if arguments.bench => {
            println!("skipped: {why}");
            return Ok(());
        }
        Err(why) => {
            eprintln!("nothing was measured: {why}");
            std::process::exit(3);
        }
    };
    let device = driver.device().clone();
    if arguments.find {
        println!(
            "{} (sm_{}), driver for CUDA {}.{}",
            device.name,
            device.architecture,
            device.driver / 1000,
            device.driver % 1000 / 10
        );
        return Ok(());
    }
    let model = Arc::new(Model::new(&driver, &student.graph(), &student.weights, student.quantization.as_ref())?);
    if !arguments.json {
        println!("{} (sm_{}), driver CUDA {}", device.name, device.architecture, device.driver);
    }
    let mut results = vec![];
    let mut note = |name: String, [p50, p99, p999, max]: [f64; 4]| {
        if !arguments.json {
            println!("{name:<70} p50 {p50:8.1}  p99 {p99:8.1}  p99.9 {p999:8.1}  max {max:8.1} us");
        }
        results.push((name, [p50, p99, p999, max]));
    };
    const NO_CLOCK: &str = "the device has a clock";
    for wait in [Wait::Block, Wait::Spin] {
        let mut engine = CudaEngine::new(&model, wait)?;
        note(format!("network, floats to floats, {wait:?}"), measure(arguments.frames, || engine.run())?);
        let by_device = summary(arguments.frames, || engine.device_time()?.context(NO_CLOCK))?;
        note(format!("network, floats to floats, {wait:?}, device"), by_device);
    }
    let mut tables = None;
    for wait in [Wait::Block, Wait::Spin] {
        let options = peregrine_pipeline::cuda::FrameOptions {
            max_detections: 100,
            decoding: peregrine_pipeline::cuda::Decoding::OnDevice,
            segmentation: true,
            wait,
            priority: 0,
            timeout: std::time::Duration::MAX,
        };
        let mut path = FrameGraphs::new(&model, &student.manifest.architecture, options)?;
        let photo = photo(640, 480)?;
        let image = ImageView::new("rgb8", 640, 480, 3 * 640, &photo)?;
        let (mut detections, mut mask) = (vec![], Default::default());
        let mut frame = || path.process(&image, (0.3, NmsIou::by_class(0.6)), &mut detections, &mut mask);
        note(format!("image to boxes and mask, {wait:?}"), measure(arguments.frames, &mut frame)?);
        let by_device = summary(arguments.frames, || path.device_time()?.context(NO_CLOCK))?;
        note(format!("image to boxes and mask, {wait:?}, device"), by_device);
        if wait == Wait::Spin {
            let times = path.profile(arguments.runs)?.context(NO_CLOCK)?;
            tables = Some((path.graph().context("a frame was processed")?.0.to_vec(), times));
        }
    }
    let of_frames = frames::measure(&driver, &student, arguments.frames)?;
    of_frames.times.into_iter().for_each(|(name, times)| note(name, times));
    let floors = floors::measure(&driver, 640 * 480 * 3, arguments.frames.min(1000))?;
    let (nodes, times) = tables.context("measured above")?;
    if arguments.json {
        let results: HashMap<_, _> = results.into_iter().collect();
        let ratios: HashMap<_, _> = of_frames.ratios.into_iter().collect();
        let layers: Vec<_> = times.iter().map(|(name, us)| serde_json::json!({"name": name, "us": us})).collect();
        let json = serde_json::json!({
            "device": device.name, "driver": device.driver, "architecture": device.architecture,
            "microseconds": results, "ratios": ratios, "layers": layers, "floors": floors,
        });
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(());
    }
    of_frames.ratios.iter().for_each(|(name, ratio)| println!("{name}: {ratio:.2}"));
    floors.iter().for_each(|(name, us)| println!("{name:<62} p50 {us:8.2} us"));
    layers::print(&model, &nodes, &times, arguments.peaks.as_deref());
    Ok(())
}
