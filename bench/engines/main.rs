//! The CPU engine beside other inference engines, on the same networks, weights and input,
//! alternating frame by frame. `make bench-engines` prepares the peers, runs this and updates
//! `bench/RESULTS.md`.
//!
//! - [`networks`]: the networks; [`export`]: their files for the peers;
//! - [`contender`]: an engine, in this process or in its own, that runs a frame on request;
//! - [`measure`]: the rounds; [`report`]: their tables;
//! - [`training`]: the same for a training step (`make bench-training`);
//! - [`roofline`]: the engine's time layer by layer; [`alone`]: one thread beside two; [`aims`]:
//!   performance targets and whether they are met.

mod aims;
mod alone;
mod contender;
mod export;
mod measure;
mod networks;
mod report;
mod roofline;
mod training;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use clap::Parser;
use peregrine_engine::cpu::int8::IntegerIsa;
use peregrine_engine::cpu::Isa;

use contender::{Contender, Ours, OursInt8, Peer};
use networks::Network;
use training::OursTraining;

#[derive(Parser)]
#[command(about = "The CPU engine beside its peers; `make bench-engines` runs it with all options")]
struct Arguments {
    /// A Python with the packages of bench/peers/requirements.txt; without it, only peers without
    /// Python are run.
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,

    /// The program that bench/peers/tract builds.
    #[arg(long, value_name = "FILE")]
    tract: Option<PathBuf>,

    /// Seconds for each network and number of threads.
    #[arg(long, default_value_t = 25.0)]
    seconds: f64,

    /// Only networks whose name contains this.
    #[arg(long, value_name = "NAME", default_value = "")]
    network: String,

    /// Measure the network of a package, too, such as one that `distill import` made of an ONNX file.
    #[arg(long, value_name = "FOLDER")]
    package: Vec<PathBuf>,

    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,

    /// Compare a training step of this number of images instead, on the student.
    #[arg(long, value_name = "IMAGES")]
    training: Option<usize>,

    /// Write the section into this Markdown file, replacing the last one.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,

    /// Serve as the candle peer, with outputs in a folder: for internal use.
    #[arg(long, num_args = 2, value_names = ["NETWORK", "FOLDER"], hide = true)]
    serve_candle: Vec<String>,

    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let [network, folder] = &arguments.serve_candle[..] {
        return contender::serve_candle(network, Path::new(folder));
    }
    let folder = tempfile::Builder::new().prefix("peregrine-engines-").tempdir()?;
    run(&arguments, folder.path())
}

fn run(arguments: &Arguments, folder: &Path) -> Result<()> {
    if let Some(images) = arguments.training {
        return train(arguments, images, folder);
    }
    let (mut tables, mut layers, mut alone) = (vec![], vec![], vec![]);
    let mut networks = Network::all()?;
    for package in &arguments.package {
        networks.push(Network::of_package(package)?);
    }
    for network in networks.iter().filter(|n| n.name.contains(&arguments.network)) {
        let folder = folder.join(&network.name);
        std::fs::create_dir_all(&folder)?;
        let input = peregrine_reference::random_input(&network.graph, 2);
        export::export(network, &input, &folder)?;
        if let Some(python) = &arguments.python {
            let int8 = network.quantized.is_some().then_some("export_int8.py");
            for script in ["export_ncnn.py"].into_iter().chain(int8) {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers").join(script);
                let status = Command::new(python).arg(path).arg(&folder).status();
                ensure!(status.with_context(|| python.display().to_string())?.success(), "{script} failed");
            }
        }
        for &threads in &arguments.threads {
            eprintln!("{}, {threads} thread(s): loading", network.describe());
            let (contenders, absent) = contenders(arguments, network, &folder, &input, threads)?;
            let table = measure::measure(contenders, absent, network, threads, arguments.seconds)?;
            println!("{}", table.markdown());
            tables.push(table);
        }
        if network.name == "student" {
            layers = roofline::measure(network, &input)?;
            layers.iter().for_each(|roofline| println!("{}", roofline.markdown()));
            alone = alone::measure(network, &input)?;
        }
    }
    let aims = aims::markdown(&tables, &layers, &alone);
    println!("{aims}");
    if let Some(results) = &arguments.results {
        let layers: String = layers.iter().map(|roofline| roofline.markdown()).collect();
        report::update(results, &report::Section::engines(), &tables, &(layers + &aims), arguments.seconds)?;
    }
    Ok(())
}

/// A training step of the embedded student, which is imported, and of the default one, ours and PyTorch's.
fn train(arguments: &Arguments, images: usize, folder: &Path) -> Result<()> {
    let python = arguments.python.as_ref().context("--training needs --python")?;
    let lite = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/peregrine-lite");
    let mut tables = vec![];
    for network in [Network::all()?.swap_remove(0), Network::of_package(&lite)?] {
        let folder = folder.join(&network.name);
        std::fs::create_dir_all(&folder)?;
        let input: Vec<f32> =
            (0..images as u64).flat_map(|i| peregrine_reference::random_input(&network.graph, 2 + i)).collect();
        export::export(&network, &input, &folder)?;
        OursTraining::export(&network, &folder)?;
        for &threads in &arguments.threads {
            let mut command = Command::new(python);
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers/serve.py");
            command.arg(script).arg("torch-training").arg(&folder).arg(threads.to_string());
            let contenders: Contenders = vec![
                Box::new(OursTraining::new(&network, &input, threads)?),
                Box::new(Peer::start("torch-training", command, &folder)?),
            ];
            let table = measure::measure(contenders, vec![], &network, threads, arguments.seconds)?;
            println!("{}", table.markdown());
            tables.push(table);
        }
    }
    match &arguments.results {
        Some(results) => report::update(results, &report::Section::training(images), &tables, "", arguments.seconds),
        None => Ok(()),
    }
}

/// Ours first.
type Contenders = Vec<Box<dyn Contender>>;

/// Ours first, then the peers that started, and why the others did not.
fn contenders(
    arguments: &Arguments,
    network: &Network,
    folder: &Path,
    input: &[f32],
    threads: usize,
) -> Result<(Contenders, Vec<String>)> {
    let mut list: Contenders = vec![];
    for isa in Isa::available().into_iter().rev().filter(|&isa| isa != Isa::Portable || Isa::available().len() == 1) {
        list.push(Box::new(Ours::new(network, input, threads, isa)?));
    }
    if network.quantized.is_some() {
        list.push(Box::new(OursInt8::new(network, input, threads, IntegerIsa::best())?));
        if IntegerIsa::best() != IntegerIsa::Avx2 && IntegerIsa::available().contains(&IntegerIsa::Avx2) {
            list.push(Box::new(OursInt8::new(network, input, threads, IntegerIsa::Avx2)?));
        }
    }
    let mut commands = vec![];
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers/serve.py");
    let int8: &[_] = if network.quantized.is_some() { &["onnxruntime-int8", "openvino-int8"] } else { &[] };
    for &peer in ["onnxruntime", "openvino", "ncnn", "torch"].iter().chain(int8) {
        if let Some(python) = &arguments.python {
            let mut command = Command::new(python);
            command.arg(&script).arg(peer).arg(folder).arg(threads.to_string());
            commands.push((peer, command));
        }
    }
    if let Some(tract) = &arguments.tract {
        let mut command = Command::new(tract);
        command.arg(folder).arg(threads.to_string());
        commands.push(("tract", command));
    }
    if !network.from_package {
        let mut candle = Command::new(std::env::current_exe()?);
        candle.args(["--serve-candle", &network.name]).arg(folder).env("RAYON_NUM_THREADS", threads.to_string());
        commands.push(("candle", candle));
    }
    let mut absent = vec![];
    for (name, command) in commands {
        match Peer::start(name, command, folder) {
            Ok(peer) => list.push(Box::new(peer)),
            Err(error) => absent.push(format!("{name}: {error:#}")),
        }
    }
    Ok((list, absent))
}
