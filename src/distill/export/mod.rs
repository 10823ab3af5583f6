//! `distill export`: a student as ONNX for other runtimes, and as the package that the node reads.
//!
//! - [`onnx`]: a graph and its weights as an ONNX model; [`messages`]: ONNX's file format.
//! - [`check`]: the file in ONNX Runtime compared with the project's engine.
//! - [`graph`]: a graph alone, in JSON.

pub mod check;
pub mod graph;
pub mod messages;
pub mod onnx;

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use clap::Args;
use peregrine_core::files::write_atomically;
use peregrine_student::architecture::MAX_STRIDE;
use peregrine_student::head::BoxForm;
use peregrine_student::{DetectionLevel, Student};
use prost::Message;
use tracing::warn;

use super::model_args::ModelArgs;
use super::teacher::Runtime;

/// Export a student to ONNX for other runtimes, and compare the file with the project's own engine.
///
/// The model has one input `image` [1, 3, height, width], RGB, normalised as its metadata says, and
/// the outputs `class_8`, `sides_8`, `class_16`, `sides_16`, `class_32`, `sides_32` and
/// `segmentation`: raw logits. Its metadata (`metadata_props`) holds classes, normalisation,
/// strides and the meaning of the outputs, as JSON. Example: distill export --model
/// runs/first/student --out student.onnx
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The ONNX file to write.
    #[arg(long, short)]
    out: PathBuf,
    /// Also write the package (manifest.json and safetensors) into this folder, with the input size
    /// of --input.
    #[arg(long)]
    package: Option<PathBuf>,
    /// Input size as WIDTHxHEIGHT, multiples of 32; the student's own by default.
    #[arg(long, value_parser = parse_size)]
    input: Option<(usize, usize)>,
    /// Also write the network's layers as JSON into this file: with a run's checkpoint, what another framework needs to
    /// train the same network.
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
    /// Dynamic batch size.
    #[arg(long)]
    any_batch: bool,
    /// Do not compare the written file with the engine (which needs ONNX Runtime).
    #[arg(long)]
    no_check: bool,
    /// The libonnxruntime.so of an onnxruntime wheel.
    #[arg(long, env = "ORT_DYLIB_PATH")]
    onnxruntime: Option<PathBuf>,
}

/// Parses `WIDTHxHEIGHT` in pixels.
///
/// # Errors
/// A sentence on what is expected.
pub fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let sides = text.split_once(['x', '×']).and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    let usable = |side: usize| side > 0 && side.is_multiple_of(MAX_STRIDE) && side <= 4096;
    match sides {
        Some((w, h)) if usable(w) && usable(h) => Ok((w, h)),
        _ => Err(format!("write WIDTHxHEIGHT, both multiples of {MAX_STRIDE} up to 4096, such as 320x256")),
    }
}

/// Runs the command.
///
/// # Errors
/// Each names the invalid file; also when the written file differs from the engine.
pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let mut student = args.model.student()?;
    if let Some((width, height)) = args.input {
        let input = &mut student.manifest.architecture.input;
        (input.width, input.height) = (width, height);
    }
    // Opened before anything is written, so that a missing library leaves no incomplete export.
    let runtime = match (&args.onnxruntime, args.no_check) {
        (_, true) => None,
        (Some(path), false) => Some(Runtime::open(path)?),
        (None, false) => bail!(
            "comparing the file needs ONNX Runtime: give its library with --onnxruntime or ORT_DYLIB_PATH \
             (launch/setup/env.sh sets it), or skip the comparison with --no-check"
        ),
    };
    if student.quantization.is_some() {
        warn!("the student is quantized: the ONNX file holds its dequantized weights, and computes in f32");
    }
    let labels = labels(&student, args.any_batch);
    let graph = student.graph();
    let bytes = onnx::model(&graph, &student.weights, &labels)?.encode_to_vec();
    write_atomically(&args.out, &bytes)?;
    println!("{}: {} bytes, {} parameters", args.out.display(), bytes.len(), graph.parameters());
    if let Some(path) = &args.graph {
        write_atomically(path, graph::json(&graph).to_string().as_bytes())?;
        println!("{}: the layers", path.display());
    }
    if let Some(folder) = &args.package {
        student.save(folder)?;
        println!("{}: the package", folder.display());
    }
    if let Some(runtime) = runtime {
        report(&runtime, &args.out, &student, &labels)?;
    }
    Ok(())
}

fn report(runtime: &Runtime, path: &Path, student: &Student, labels: &onnx::OnnxLabels) -> anyhow::Result<()> {
    let names: Vec<String> = labels.outputs.iter().map(|o| o.0.clone()).collect();
    let differences = check::compare(runtime, path, &student.graph(), &student.weights, &labels.input, &names)
        .context("the written file could not be compared")?;
    let largest = differences.iter().map(|d| d.largest).fold(0.0, f32::max);
    println!("largest difference between ONNX Runtime and the CPU engine on a random image: {largest:.2e}");
    for d in &differences {
        println!("  {:<14}{:.2e} of values up to {:.1}", d.output, d.largest, d.magnitude);
    }
    let fault = differences.iter().find(|d| d.is_fault());
    ensure!(
        fault.is_none(),
        "{}: output {} differs by more than rounding errors; the file is kept for inspection, do not use it",
        path.display(),
        fault.map_or("", |d| &d.output)
    );
    Ok(())
}

/// What the values of a box stand for, in words.
fn meaning(boxes: &BoxForm, stride: usize) -> String {
    let point = |center: f32| match center {
        0.5 => "the cell's centre".to_owned(),
        other => format!("{other} of the cell"),
    };
    match boxes {
        BoxForm::Distribution { bins, center } => format!(
            "box distribution (DFL): {bins} logits each for left, top, right, bottom; the softmax's mean times {stride} is \
             the distance in pixels from {} to that side of the box",
            point(*center)
        ),
        BoxForm::Distances { center } => format!(
            "left, top, right, bottom: times {stride} the distance in pixels from {} to that side of the box",
            point(*center)
        ),
        BoxForm::CenterSize => format!("times {stride}: centre from the cell's corner, and e to the power of width, height"),
        BoxForm::Anchors { anchors } => format!("YOLOv5's boxes of anchors {anchors:?}, stride {stride}"),
    }
}

/// Names and metadata of a student's ONNX model.
pub fn labels(student: &Student, any_batch: bool) -> onnx::OnnxLabels {
    let (manifest, architecture) = (&student.manifest, &student.manifest.architecture);
    let mut outputs = Vec::new();
    let form = architecture.head_form();
    for DetectionLevel { stride, objectness, .. } in architecture.detection_levels() {
        let class = format!("class logits (independent sigmoids), stride {stride}");
        let sides = form.as_ref().map_or_else(String::new, |form| meaning(&form.boxes, stride));
        outputs.extend([(format!("class_{stride}"), class), (format!("sides_{stride}"), sides)]);
        if objectness.is_some() {
            outputs
                .push((format!("object_{stride}"), "logits of there being an object: a factor of the scores".into()));
        }
    }
    for (group, classes) in architecture.scene.iter().flat_map(|head| head.groups()) {
        outputs.push((format!("scene_{group}"), format!("logits (softmax) of {}", classes.join(", "))));
    }
    if architecture.segmentation.is_some() {
        outputs.push(("segmentation".into(), "class logits (softmax), stride 4".into()));
    }
    let input = &architecture.input;
    let strides: Vec<usize> = architecture.detection_levels().iter().map(|level| level.stride).collect();
    let json = |value: serde_json::Value| value.to_string();
    let metadata = [
        ("name", manifest.name.clone()),
        ("classes", json(serde_json::json!(architecture.detection_classes()))),
        ("segmentation_classes", json(serde_json::json!(architecture.segmentation_classes()))),
        ("scene_classes", json(serde_json::json!(architecture.scene))),
        ("input", "RGB, planar; (value - mean) / std of values 0...255; letterboxed, padded with mean".into()),
        ("mean", json(serde_json::json!(input.mean))),
        ("std", json(serde_json::json!(input.std))),
        ("strides", json(serde_json::json!(strides))),
        ("bins", architecture.bins().to_string()),
        ("weights_sha256", manifest.weights.sha256.clone()),
        ("notice", manifest.notice.join("\n")),
    ];
    onnx::OnnxLabels {
        name: manifest.name.clone(),
        input: "image".into(),
        outputs,
        metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        any_batch,
    }
}
