//! Latency of the CUDA engine on this machine's GPU: the network alone, image to boxes, and each
//! layer with its bytes and operations. `make bench-gpu` runs it; `bench/gpu.sh` packs it for a
//! machine without a toolchain. Results are in bench/RESULTS-gpu.md.

mod floors;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;
use peregrine_core::ImageView;
use peregrine_engine::cuda::launch::{Node, NodeWork};
use peregrine_engine::cuda::{CudaEngine, Model, Wait};
use peregrine_engine::{Engine, Op};
use peregrine_pipeline::cuda::FrameGraphs;
use peregrine_pipeline::{Pipeline, PipelineOptions};
use peregrine_student::Student;
use peregrine_vision::decode::NmsIou;
use peregrine_vision::preprocess::Letterbox;
use safetensors::tensor::{Dtype, TensorView};

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
        return export(&student, folder);
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
            println!("{name:<50} p50 {p50:8.1}  p99 {p99:8.1}  p99.9 {p999:8.1}  max {max:8.1} us");
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
        let photo = photo()?;
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
    let floors = floors::measure(&driver, 640 * 480 * 3, arguments.frames.min(1000))?;
    let (nodes, times) = tables.context("measured above")?;
    if arguments.json {
        let results: HashMap<_, _> = results.into_iter().collect();
        let layers: Vec<_> = times.iter().map(|(name, us)| serde_json::json!({"name": name, "us": us})).collect();
        let json = serde_json::json!({
            "device": device.name, "driver": device.driver, "architecture": device.architecture,
            "microseconds": results, "layers": layers, "floors": floors,
        });
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(());
    }
    floors.iter().for_each(|(name, us)| println!("{name:<62} p50 {us:8.2} us"));
    print_layers(&model, &nodes, &times, arguments.peaks.as_deref());
    Ok(())
}

/// Wall-clock microseconds of `work`, as [`summary`] returns them.
fn measure<E: std::error::Error + Send + Sync + 'static>(
    frames: usize,
    mut work: impl FnMut() -> Result<(), E>,
) -> anyhow::Result<[f64; 4]> {
    summary(frames, || {
        let start = Instant::now();
        work()?;
        Ok((start.elapsed().as_secs_f64() * 1e6) as f32)
    })
}

/// p50, p99, p99.9 and maximum in microseconds of `frames` calls, after a tenth as many to warm up.
fn summary(frames: usize, mut time: impl FnMut() -> anyhow::Result<f32>) -> anyhow::Result<[f64; 4]> {
    let frames = frames.max(10);
    let mut times = Vec::with_capacity(frames);
    for i in 0..frames + frames / 10 {
        let us = time()?;
        if i >= frames / 10 {
            times.push(f64::from(us));
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((share * frames as f64).ceil() as usize).clamp(1, frames) - 1];
    Ok([at(0.5), at(0.99), at(0.999), at(1.0)])
}

/// A line for each kernel: its time, the least bytes that it moves and its operations; with
/// `peaks`, which of the two limits it (the roofline model of Williams et al. 2009), and the
/// fraction of that limit.
fn print_layers(model: &Model, nodes: &[Node], times: &[(String, f32)], peaks: Option<&[f64]>) {
    println!("{:<28} {:<26} {:>8} {:>9} {:>9} {:>9} {:>9}", "step", "kernel", "us", "KiB", "MFLOP", "GB/s", "GFLOP/s");
    let plan = &model.network().layout.plan;
    for (node, (name, us)) in nodes.iter().zip(times) {
        let NodeWork::Kernel(launch) = &node.work else { continue };
        let step = plan.steps.iter().find(|s| &s.name == name);
        let flops = step.map_or(0, |s| plan.flops(s)) as f64;
        // Bytes are multiplied at twice the rate of halves.
        let rate = step.map_or(1.0, |s| 2.0 / model.network().view(s.inputs[0]).element.bytes() as f64);
        let bytes: u64 = node.reads.iter().chain(&node.writes).map(|s| s.end - s.start).sum();
        let (bytes, seconds) = (bytes as f64, f64::from(*us) * 1e-6);
        let limit = peaks.map_or(String::new(), |p| {
            let (compute, memory) = (flops / (rate * p[0] * 1e12), bytes / (p[1] * 1e9));
            let by = if compute > memory { "compute" } else { "memory" };
            format!("  {:5.1} % of its limit, {by}", 100.0 * compute.max(memory) / seconds)
        });
        println!(
            "{name:<28} {:<26} {us:>8.2} {:>9.1} {:>9.2} {:>9.1} {:>9.1}{limit}",
            launch.kernel,
            bytes / 1024.0,
            flops / 1e6,
            bytes / seconds / 1e9,
            flops / seconds / 1e9
        );
    }
}

/// 640×480 of a road, so that there is something to suppress.
fn photo() -> anyhow::Result<Vec<u8>> {
    let photo = image::load_from_memory(include_bytes!("../../models/frames/highway-00.jpg"))?;
    Ok(photo.resize_exact(640, 480, image::imageops::FilterType::Triangle).to_rgb8().into_raw())
}

/// Writes `network.json`, `weights.safetensors`, an image as `image.rgb`, and as `boxes.json` the
/// parameters of box decoding with the boxes that the CPU finds.
fn export(student: &Student, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let photo = photo()?;
    std::fs::write(folder.join("image.rgb"), &photo)?;
    let architecture = &student.manifest.architecture;
    let input = &architecture.input;
    let letterbox = Letterbox::new((640, 480), (input.width, input.height));
    let levels: Vec<_> = architecture
        .detection_levels()
        .iter()
        .map(|level| serde_json::json!({"stride": level.stride, "class": level.class, "sides": level.box_distribution}))
        .collect();
    // As the peers do it: each class by itself.
    let nms_iou = PipelineOptions::default().nms.same_class;
    let options = PipelineOptions { threads: 1, nms: NmsIou::by_class(nms_iou), ..PipelineOptions::default() };
    let threshold = options.score_threshold;
    let found = Pipeline::new(student, options)?
        .process(&ImageView::new("rgb8", 640, 480, 3 * 640, &photo)?)?
        .detections
        .iter()
        .map(|d| {
            let b = letterbox.to_input(d.bbox);
            serde_json::json!({"class": d.class, "score": d.score, "box": [b.x_min, b.y_min, b.x_max, b.y_max]})
        })
        .collect::<Vec<_>>();
    let boxes = serde_json::json!({
        "image": [480, 640, 3], "content": letterbox.content(), "pad": letterbox.pad(), "mean": input.mean, "std": input.std,
        "levels": levels, "bins": architecture.bins(), "mask": architecture.segmentation_output(),
        "score_threshold": threshold, "nms_iou": nms_iou, "found": found,
    });
    std::fs::write(folder.join("boxes.json"), serde_json::to_vec(&boxes)?)?;
    let graph = student.graph();
    let layers: Vec<_> = graph
        .layers
        .iter()
        .map(|layer| {
            let mut json = serde_json::json!({"name": layer.name, "inputs": layer.inputs, "op": layer.op});
            let s = layer.shape;
            json["shape"] = serde_json::json!([s.channels, s.height, s.width]);
            if let Op::Conv(conv) = layer.op {
                let from = graph.layers[layer.inputs[0]].shape;
                let pads = [from.height, from.width].map(|size| conv.window().around(size));
                json["pads"] = serde_json::json!(pads);
            }
            json
        })
        .collect();
    let json = serde_json::json!({"layers": layers, "outputs": graph.outputs});
    std::fs::write(folder.join("network.json"), serde_json::to_vec(&json)?)?;
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors = vec![];
    for (layer, _, shape) in graph.convs() {
        let values = student.weights.of(&layer.name);
        tensors.push((format!("{}.weight", layer.name), shape.to_vec(), bytes(&values.weight)));
        tensors.push((format!("{}.bias", layer.name), vec![shape[0]], bytes(&values.bias)));
    }
    let views = tensors.iter().map(|(name, shape, data)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("sizes come from the graph"))
    });
    std::fs::write(folder.join("weights.safetensors"), safetensors::serialize(views, None)?)?;
    Ok(())
}
