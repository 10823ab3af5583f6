//! `distill prune`: structured pruning of channels, with accuracy and latency before and after.
//!
//! - [`importance`]: importance criteria; [`choice`]: selection of the channels to prune;
//!   [`slice`](mod@slice): removal from the weights.
//!
//! The coupling of channels across shortcuts and concatenations follows from the graph
//! ([`channels`](peregrine_engine::channels)); the pruned widths are stored in the manifest, from
//! which node, engines and trainer build the pruned network.

pub mod choice;
pub mod importance;
pub mod slice;

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_engine::channels::Channels;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::Weights;
use peregrine_student::Student;
use serde::Serialize;

use super::before_after::{BeforeAfter, JudgeArgs};
use super::log::show;
use super::loss::segmentation;
use super::model_args::ModelArgs;
use super::net::{NetParams, TrainNet};
use super::train::config::{DataSource, StudentConfig};
use super::train::images::{Loading, TrainImages};
use super::train::step::LossComputer;
use super::train::survey::Survey;
use choice::Rates;
use importance::{Criterion, Moments};

/// Prune the least important channels of a student (structured pruning).
///
/// Channels that are coupled by shortcuts and concatenations are pruned together. The resulting
/// package can be run, and fine-tuned: name it as `init` in a `distill student` configuration, and
/// the unpruned one as teacher.
///
/// Example: distill prune --model models/peregrine-s --data data/vehicles/train --keep 0.7 --out
/// pruned --judge data/vehicles/val
#[derive(Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Labelled training data to measure importance on; may be given several times. Not needed for
    /// `l1`.
    #[arg(long = "data", value_name = "FOLDER")]
    data: Vec<PathBuf>,
    /// Fraction of the convolutions' cost to keep, 0 to 1.
    #[arg(long, default_value_t = 0.7)]
    keep: f64,
    /// What is counted as cost.
    #[arg(long, value_enum, default_value = "operations")]
    cost: Cost,
    /// Importance criterion.
    #[arg(long, value_enum, default_value = "taylor")]
    by: Criterion,
    /// Each layer keeps a multiple of this number of channels.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=64))]
    multiple: u64,
    /// Folder for the pruned package.
    #[arg(long, short)]
    out: PathBuf,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Number of images to measure importance on.
    #[arg(long, default_value_t = 256)]
    images: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write the report as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What channels are pruned to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Cost {
    /// Multiplications and additions.
    Operations,
    /// Time of the CPU engine with one thread, measured here for each layer of the unpruned network.
    /// A layer's time is taken as proportional to its operations; the report has the true time.
    Time,
}

/// The report, as `--json` writes it.
#[derive(Debug, Clone, Serialize)]
struct PruningReport {
    criterion: Criterion,
    cost: Cost,
    /// Requested fraction of the cost to keep.
    keep: f64,
    #[serde(flatten)]
    figures: BeforeAfter,
}

/// Batch size for measuring importance.
const BATCH: usize = 8;

/// Runs the command.
///
/// # Errors
/// Each names the invalid file or option. The package is written before the report.
pub fn run(args: &PruneArgs) -> anyhow::Result<()> {
    ensure!(args.keep > 0.0 && args.keep <= 1.0, "--keep is {}; it must be above 0 and at most 1", args.keep);
    ensure!(
        !args.data.is_empty() || args.by == Criterion::L1,
        "--by {:?} needs data: name folders of training images with --data, or use --by l1",
        args.by
    );
    let student = args.model.student()?;
    ensure!(
        student.quantization.is_none(),
        "{} is quantized; prune the student that it was made from, then quantize the pruned one",
        student.manifest.name
    );
    let channels = Channels::of(&student.graph());
    let (importance, means) = measure(args, &student, &channels)?;
    let graph = student.graph();
    let rates = match args.cost {
        Cost::Operations => Rates::equal(&graph),
        Cost::Time => Rates::measured(&graph, &mut CpuEngine::new(&graph, &student.weights, 1)?),
    };
    let keep = choice::choose(&graph, &channels, &importance, &rates, args.keep, args.multiple as usize);
    let mut pruned = cut(&student, &channels, &keep, &means)?;
    pruned.manifest.training.command = match args.cost {
        Cost::Operations => format!("distill prune --keep {} of {}", args.keep, student.manifest.name),
        Cost::Time => format!("distill prune --cost time --keep {} of {}", args.keep, student.manifest.name),
    };

    let figures = BeforeAfter::measure(&student, &mut pruned, &args.judge)?;
    pruned.save(&args.out)?;
    print!("{}", figures.text());
    let report = PruningReport { criterion: args.by, cost: args.cost, keep: args.keep, figures };
    println!("pruned package: {}", args.out.display());
    if let Some(path) = &args.json {
        peregrine_core::files::write_atomically(path, &serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}

/// The student with only the channels to `keep`. `means` are the mean activations of each layer's
/// channels.
///
/// # Errors
/// When the remaining layers are not a valid network.
pub fn cut(student: &Student, channels: &Channels, keep: &[bool], means: &[Vec<f32>]) -> anyhow::Result<Student> {
    let graph = student.graph();
    let mut manifest = student.manifest.clone();
    let architecture = &mut manifest.architecture;
    architecture.widths.extend(slice::widths(&graph, channels, keep));
    if let Some(network) = &mut architecture.imported {
        // Its layers are data: each says itself how wide it is, and a slice where it begins.
        let narrow = channels.narrowed(&graph, keep);
        for layer in &mut network.layers {
            architecture.widths.remove(&layer.name);
            if let Some(left) = narrow.layers.iter().find(|left| left.name == layer.name) {
                (layer.op, layer.channels) = (left.op, left.shape.channels);
            }
        }
    }
    manifest.name = format!("{}-pruned", student.manifest.name);
    manifest.accuracy.clear();
    manifest.weights.cluster_bits = None;
    manifest.architecture.check().map_err(anyhow::Error::msg)?;
    let weights = slice::weights(&graph, &student.weights, channels, keep, means);
    let pruned = Student { manifest, weights, quantization: None };
    pruned.weights.check(&pruned.graph())?;
    Ok(pruned)
}

/// The channels' importance, and each layer's mean activations over the data (zero without data).
fn measure(args: &PruneArgs, student: &Student, channels: &Channels) -> anyhow::Result<(Vec<f64>, Vec<Vec<f32>>)> {
    let graph = student.graph();
    let l1 = || importance::by_channel(channels, &importance::l1(&graph, &student.weights), Criterion::L1);
    if args.data.is_empty() {
        return Ok((l1(), graph.layers.iter().map(|layer| vec![0.0; layer.shape.channels]).collect()));
    }
    let architecture = &student.manifest.architecture;
    let source = |folder: &PathBuf| DataSource { folder: folder.clone(), share: 1.0, config: None, unlabelled: false };
    let config = StudentConfig {
        batch: BATCH,
        seed: args.seed,
        data: args.data.iter().map(source).collect(),
        skip_bad: args.judge.skip_bad,
        ..StudentConfig::default()
    };
    let survey = Survey::make(config.open_data(architecture)?, None)?;
    let train_images = TrainImages::load(&config, survey, architecture, None, &[], Loading::default())?;
    let weights = segmentation::class_weights(train_images.mask_pixels());
    let loss_computer = LossComputer::new(architecture, weights);
    let mut net = trainable(&student.weights, student)?;
    let mut moments = Moments::new(&graph);
    let mut taylor = vec![Vec::new(); graph.layers.len()];
    let batches = args.images.div_ceil(BATCH).max(1) as u64;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} batches, ETA {eta}")?;
    let progress = show(ProgressBar::new(batches).with_style(style));
    for step in 0..batches {
        let batch = train_images.batch(step, &config, &architecture.input)?;
        if args.by == Criterion::Taylor {
            net.params.zero_gradients();
            let losses = loss_computer.gradients(&mut net, &batch, &config)?;
            let file = batch.files.first().map(|f| f.display().to_string()).unwrap_or_default();
            ensure!(losses.total().is_finite(), "the loss on a batch that begins with {file} is not finite");
            importance::add_taylor(&mut taylor, &net.params);
        }
        net.input().copy_from_slice(&batch.input);
        moments.add(&mut net)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    let importance = match args.by {
        Criterion::Taylor => importance::by_channel(channels, &taylor, args.by),
        Criterion::Scale => importance::by_channel(channels, &moments.scales(&graph), args.by),
        Criterion::L1 => l1(),
    };
    Ok((importance, moments.means(&graph)))
}

/// A network with a package's weights, without batch-norm.
fn trainable(weights: &Weights, student: &Student) -> anyhow::Result<TrainNet> {
    let graph = student.graph();
    let mut params = NetParams::random(&graph, 0);
    let taken = params.adopt(weights);
    ensure!(taken == params.convs.len(), "the package has no weights for some layers");
    Ok(TrainNet::new(graph, params, BATCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_engine::{Activation, Conv, Engine, Op, Padding};
    use peregrine_student::architecture::{Architecture, Input};
    use peregrine_student::head::{BoxForm, HeadForm};
    use peregrine_student::imported::{ImportedHead, ImportedLayer, ImportedLevel, ImportedNetwork};
    use proptest::prelude::*;

    fn outputs(student: &Student, input: &[f32]) -> Vec<Vec<f32>> {
        let graph = student.graph();
        let mut engine = CpuEngine::new(&graph, &student.weights, 1).unwrap();
        engine.input().copy_from_slice(input);
        engine.run().unwrap();
        (0..graph.outputs.len()).map(|i| engine.output(i).to_vec()).collect()
    }

    /// The embedded student at 64×64, with every channel not to `keep` set to zero.
    fn with_zeros(keep: &dyn Fn(usize) -> bool) -> (Student, Channels, Vec<bool>) {
        let mut student = Student::load(&peregrine_support::lite()).unwrap();
        let input = &mut student.manifest.architecture.input;
        (input.width, input.height) = (64, 64);
        let graph = student.graph();
        let channels = Channels::of(&graph);
        let keep: Vec<bool> = (0..channels.len()).map(|id| channels.fixed[id] || keep(id)).collect();
        for (layer, ids) in graph.layers.iter().zip(&channels.of) {
            let Some(conv) = student.weights.0.get_mut(&layer.name) else { continue };
            let taps = conv.weight.len() / conv.bias.len();
            for (c, _) in ids.iter().enumerate().filter(|(_, &id)| !keep[id]) {
                conv.weight[c * taps..][..taps].fill(0.0);
                conv.bias[c] = 0.0;
            }
        }
        (student, channels, keep)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6))]
        #[test]
        fn pruning_zero_channels_does_not_change_the_outputs(seed in 0u64..1000, share in 0.3f64..0.95) {
            let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(seed);
            let chosen: Vec<bool> = (0..20_000).map(|_| rand::Rng::random_bool(&mut rng, share)).collect();
            // Each layer keeps at least one channel.
            let first: Vec<usize> = {
                let graph = Student::load(&peregrine_support::lite()).unwrap().manifest.architecture.graph(64, 64);
                Channels::of(&graph).spaces().iter().map(|space| space[0]).collect()
            };
            let (student, channels, keep) = with_zeros(&|id| chosen[id] || first.contains(&id));
            let means: Vec<Vec<f32>> = student.graph().layers.iter().map(|l| vec![0.0; l.shape.channels]).collect();
            let pruned = cut(&student, &channels, &keep, &means).unwrap();
            prop_assert!(pruned.graph().parameters() < student.graph().parameters());
            let input = crate::net::check::values(3 * 64 * 64, seed);
            for (a, b) in outputs(&student, &input).iter().flatten().zip(outputs(&pruned, &input).iter().flatten()) {
                prop_assert!((a - b).abs() < 1e-3 * (1.0 + a.abs()), "{} {}", a, b);
            }
        }
    }

    #[test]
    fn a_constant_channel_is_folded_into_the_next_layers_biases() {
        // Only 1×1 consumers, so that padding has no effect: the first block's projection.
        let (mut student, channels, mut keep) = with_zeros(&|_| true);
        let graph = student.graph();
        let layer = graph.layers.iter().position(|l| l.name == "backbone.0.0.depthwise").unwrap();
        let id = channels.of[layer][3];
        keep[id] = false;
        for (l, ids) in graph.layers.iter().zip(&channels.of) {
            let (Some(conv), Some(c)) = (student.weights.0.get_mut(&l.name), ids.iter().position(|&i| i == id)) else {
                continue;
            };
            let taps = conv.weight.len() / conv.bias.len();
            conv.weight[c * taps..][..taps].fill(0.0);
            conv.bias[c] = 2.0;
        }
        let mut means: Vec<Vec<f32>> = graph.layers.iter().map(|l| vec![0.0; l.shape.channels]).collect();
        means[layer][3] = 2.0;
        let pruned = cut(&student, &channels, &keep, &means).unwrap();
        let input = crate::net::check::values(3 * 64 * 64, 1);
        for (a, b) in outputs(&student, &input).iter().flatten().zip(outputs(&pruned, &input).iter().flatten()) {
            assert!((a - b).abs() < 1e-3 * (1.0 + a.abs()), "{a} {b}");
        }
    }

    #[test]
    fn a_pruned_package_can_be_saved_loaded_and_pruned_again() {
        let (student, channels, _) = with_zeros(&|_| true);
        let importance: Vec<f64> = (0..channels.len()).map(|id| ((id * 7919) % 1009) as f64).collect();
        let means: Vec<Vec<f32>> = student.graph().layers.iter().map(|l| vec![0.0; l.shape.channels]).collect();
        let keep = choice::choose(&student.graph(), &channels, &importance, &Rates::equal(&student.graph()), 0.7, 8);
        let mut pruned = cut(&student, &channels, &keep, &means).unwrap();
        let dir = tempfile::tempdir().unwrap();
        pruned.save(dir.path()).unwrap();
        let loaded = Student::load(dir.path()).unwrap();
        assert_eq!(loaded.manifest.architecture, pruned.manifest.architecture);

        let channels = Channels::of(&loaded.graph());
        let importance: Vec<f64> = (0..channels.len()).map(|id| ((id * 31) % 1009) as f64).collect();
        let keep = choice::choose(&loaded.graph(), &channels, &importance, &Rates::equal(&loaded.graph()), 0.7, 8);
        let means: Vec<Vec<f32>> = loaded.graph().layers.iter().map(|l| vec![0.0; l.shape.channels]).collect();
        let twice = cut(&loaded, &channels, &keep, &means).unwrap();
        assert!(twice.graph().flops() < loaded.graph().flops());
    }

    /// An imported detector with a shuffle and a slice, of random weights.
    fn imported() -> Student {
        let layer = |name: &str, op, input: &str, channels| ImportedLayer {
            name: name.into(),
            op,
            inputs: vec![input.into()],
            channels,
        };
        let conv = |kernel, stride, activation| {
            Op::Conv(Conv { kernel, stride, depthwise: false, activation, padding: Padding::Even })
        };
        let level = ImportedLevel { stride: 8, class: "class".into(), boxes: "boxes".into(), objectness: None };
        let network = ImportedNetwork {
            layers: vec![
                layer("stem", conv(3, 4, Activation::Silu), "input", 8),
                layer("body", conv(3, 2, Activation::Hardswish), "stem", 12),
                layer("shuffled", Op::Shuffle { groups: 2 }, "body", 12),
                layer("part", Op::Slice { first: 4 }, "shuffled", 8),
                layer("class", conv(1, 1, Activation::Identity), "part", 2),
                layer("boxes", conv(1, 1, Activation::Identity), "part", 4),
            ],
            head: ImportedHead {
                classes: vec!["cone".into(), "person".into()],
                form: HeadForm { boxes: BoxForm::CenterSize, peaks: false },
                levels: vec![level],
            },
            mask_features: None,
            scene_feature: None,
        };
        let mut student = Student::load(&peregrine_support::lite()).unwrap();
        let input = Input { width: 64, height: 32, mean: [0.0; 3], std: [1.0; 3] };
        student.manifest.architecture = Architecture::imported(input, network);
        student.weights = peregrine_reference::random_weights(&student.graph(), 1);
        student
    }

    #[test]
    fn an_imported_network_is_pruned_through_its_slices() {
        let student = imported();
        let graph = student.graph();
        let channels = Channels::of(&graph);
        let body = graph.layers.iter().position(|layer| layer.name == "body").unwrap();
        let gone = channels.of[body][1];
        let keep: Vec<bool> = (0..channels.len()).map(|id| id != gone).collect();
        let means: Vec<Vec<f32>> = graph.layers.iter().map(|l| vec![0.0; l.shape.channels]).collect();
        let mut pruned = cut(&student, &channels, &keep, &means).unwrap();
        // Channels 1 and 7 share a place, 2 and 3 of the shuffled: the slice begins at 2.
        let narrow = pruned.graph();
        let part = narrow.layers.iter().find(|layer| layer.name == "part").unwrap();
        assert_eq!((narrow.layers[body].shape.channels, part.op), (10, Op::Slice { first: 2 }));
        let dir = tempfile::tempdir().unwrap();
        pruned.save(dir.path()).unwrap();
        assert_eq!(Student::load(dir.path()).unwrap().graph(), narrow);
    }
}
