//! `distill import network.onnx`: a detector out of an ONNX file as a package.
//!
//! - [`model`]: the file; [`constant`] and `fold`: its constants. [`description`]: what the user
//!   says of it.
//! - [`head`]: where its head is. [`convert`]: its nodes as layers of a [`network`](mod@network);
//!   [`expression`]: activations that are spelt out.
//! - `simplify`: what can be folded. `package`: the result as a student. [`check`]: comparison with
//!   ONNX Runtime.

pub mod check;
pub mod constant;
pub mod convert;
pub mod description;
pub mod expression;
mod fold;
pub mod head;
pub mod model;
pub mod network;
mod package;
mod simplify;

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use clap::Args;
use peregrine_student::Student;
use tracing::warn;

use self::description::NetworkDescription;
use self::head::FoundLevel;
use self::model::OnnxFile;
use crate::teacher::Runtime;

/// What only networks need.
#[derive(Debug, Args)]
pub struct NetworkArgs {
    /// Of an ONNX file: the TOML file that says what its outputs and classes are.
    #[arg(long, value_name = "TOML")]
    description: Option<PathBuf>,
    /// Of an ONNX file: do not compare the package with it (which needs ONNX Runtime).
    #[arg(long)]
    no_check: bool,
    /// The libonnxruntime.so of an onnxruntime wheel, to compare with.
    #[arg(long, env = "ORT_DYLIB_PATH")]
    onnxruntime: Option<PathBuf>,
}

/// An imported network.
#[derive(Debug)]
pub struct Imported {
    pub student: Student,
    /// Where the head was found.
    pub levels: Vec<FoundLevel>,
    /// Width and height that the file was exported for.
    pub file_size: (usize, usize),
}

/// Imports `source` as the package `out`.
///
/// # Errors
/// Names what cannot be imported, and why; also when the package differs from the file.
pub fn import(source: &Path, out: &Path, args: &NetworkArgs) -> anyhow::Result<()> {
    let Some(description) = &args.description else {
        bail!(
            "{}: to import a network, give --description with a TOML file that says what its outputs are; docs/import.md \
             has examples",
            source.display()
        );
    };
    let d = NetworkDescription::read(description)?;
    // Opened before anything is written, so that a missing library leaves no package.
    let runtime = match (&args.onnxruntime, args.no_check) {
        (_, true) => None,
        (Some(path), false) => Some(Runtime::open(path)?),
        (None, false) => bail!(
            "comparing the package with the file needs ONNX Runtime: give its library with --onnxruntime or \
             ORT_DYLIB_PATH (launch/setup/env.sh sets it), or skip the comparison with --no-check"
        ),
    };
    let file = OnnxFile::read(source)?;
    let at = || source.display().to_string();
    let mut imported = network(&file, &d).with_context(at)?;
    imported.student.manifest.training.initialised_from = format!(
        "{} (sha256 {})",
        source.file_name().unwrap_or_default().display(),
        peregrine_core::files::sha256(&file.bytes)
    );
    if let Some(runtime) = runtime {
        let differences = check::compare(&runtime, &file, &d, &imported).with_context(at)?;
        let fault = differences.iter().find(|difference| difference.is_fault());
        if let Some(fault) = fault {
            bail!(
                "{}: the imported network differs from ONNX Runtime's {:?} by {:.2e} of values up to {:.1}; nothing is \
                 written: please report it with the file",
                source.display(),
                fault.output,
                fault.largest,
                fault.magnitude
            );
        }
        let largest = differences.iter().map(|difference| difference.largest).fold(0.0, f32::max);
        println!("largest difference between ONNX Runtime and the CPU engine on a random image: {largest:.2e}");
    } else {
        warn!("the package was not compared with the file");
    }
    imported.student.save(out)?;
    println!("{}", summary(&imported, out));
    Ok(())
}

/// The network in `file` that `d` describes.
///
/// # Errors
/// Names the node that cannot be imported, with the reason, or the field of the description that
/// does not fit.
pub fn network(file: &OnnxFile, d: &NetworkDescription) -> anyhow::Result<Imported> {
    let file_size = size(file, d)?;
    let tensors = head::HeadTensors::find(file, d)?;
    let mut converter = convert::Converter::new(file, file_size.0, file_size.1)?;
    converter.convert(&tensors.needed(file))?;
    head::check_scores(file, &tensors, d)?;
    let levels = tensors.levels(&mut converter, d)?;
    let student = package::student(converter.network, &levels, d, file_size)?;
    Ok(Imported { student, levels, file_size })
}

/// Width and height that the file is to be read for: its own, or the description's where the file
/// leaves them open.
fn size(file: &OnnxFile, d: &NetworkDescription) -> anyhow::Result<(usize, usize)> {
    let &[_, a, b, c] = &file.input_dims[..] else {
        bail!("its input {:?} has {} dimensions; an image has four", file.input, file.input_dims.len());
    };
    let (height, width) = if file.is_planar() { (b, c) } else { (a, b) };
    let own = d.input.map(|[width, height]| (width, height)).or_else(|| width.zip(height));
    let (w, h) = own.context("the file leaves the size of its input open: say input = [width, height]")?;
    let size = (width.unwrap_or(w), height.unwrap_or(h));
    let usable = |side: usize| (32..=4096).contains(&side);
    ensure!(usable(size.0) && usable(size.1), "its input is {}x{}; 32 to 4096 pixels are possible", size.0, size.1);
    Ok(size)
}

fn summary(imported: &Imported, out: &Path) -> String {
    let graph = imported.student.graph();
    let architecture = &imported.student.manifest.architecture;
    let strides: Vec<String> = architecture.detection_levels().iter().map(|level| level.stride.to_string()).collect();
    format!(
        "{}: {} layers, {} parameters, {:.2} GMAC at {}x{}, {} classes at strides {}",
        out.display(),
        graph.layers.len() - 1,
        graph.parameters(),
        graph.flops() as f64 / 2e9,
        architecture.input.width,
        architecture.input.height,
        architecture.detection_classes().len(),
        strides.join(", ")
    )
}
