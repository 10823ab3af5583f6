//! `distill quantize`: post-training quantization of a student to 8 bits, with accuracy and latency
//! before and after.
//!
//! - [`observe`]: histograms of the activations; [`calibrate`]: their quantization ranges.
//! - [`weights`]: weights in 8 bits; [`assemble`]: the quantized student.
//! - [`sensitivity`]: error per layer; [`search`]: the layers that stay f32.
//! - [`latency`]: inference time; [`report`]: the report.

pub mod assemble;
pub mod calibrate;
pub mod latency;
pub mod observe;
pub mod report;
pub mod search;
pub mod sensitivity;
pub mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

pub use assemble::{quantize, Calibrated, QuantizationSettings};
use calibrate::CalibrationMethod;
use observe::Inputs;
use report::{Accuracies, Accuracy, QuantizationReport};
use search::{Search, SearchProgress};
use weights::WeightScale;

use super::data::{log_skipped, Address, Dataset, OnError, OpenOptions, Skipped};
use super::evaluate::{evaluate, judged, STUDENT_SCORE};
use super::log::show;
use super::model_args::ModelArgs;
use peregrine_core::files::{sha256, write_atomically};
use peregrine_student::Student;

/// Name of the report in the package's folder, with the extensions json and txt.
const REPORT: &str = "quantization";

/// Images on which each layer's sensitivity is measured.
const SENSITIVITY_IMAGES: usize = 8;

/// Timed inferences per student and number of threads.
const TIMED_RUNS: usize = 100;

/// Quantize a student to 8-bit integers (post-training), keeping the most sensitive layers in f32.
///
/// Ranges are calibrated on images of --data (training images; labels are not needed). Accuracy is
/// measured before and after on --evaluate, and the most sensitive layers stay f32 until the loss
/// of accuracy is below --max-drop. The resulting package runs wherever a student runs; its folder
/// also receives quantization.json and quantization.txt. An interrupted run resumes.
///
/// Example: distill quantize --data data/vehicles/train --data data/camvid/train --evaluate
/// data/vehicles/val --evaluate data/camvid/val --out student-int8
#[derive(Debug, Args)]
pub struct QuantizeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Data set folders to calibrate on.
    #[arg(long, required = true)]
    data: Vec<PathBuf>,
    /// Data set folders to measure accuracy on [default: the images of --data that calibration does
    /// not use].
    #[arg(long)]
    evaluate: Vec<PathBuf>,
    /// Folder for the quantized package and the report.
    #[arg(long, short)]
    out: PathBuf,
    /// Images to calibrate on, spread evenly over each folder of --data.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..))]
    images: u16,
    /// Calibration method of the activations.
    #[arg(long, value_enum, default_value_t = QuantizationSettings::default().activations)]
    activations: CalibrationMethod,
    /// Calibration method of the weights, per channel.
    #[arg(long, value_enum, default_value_t = QuantizationSettings::default().weights)]
    weights: WeightScale,
    /// Largest quantized weight in magnitude. 127 has less rounding error; up to 64 enables AVX2's
    /// fastest multiplication (VNNI has no such limit).
    #[arg(long, default_value_t = QuantizationSettings::default().largest_weight, value_parser = clap::value_parser!(i8).range(7..=127))]
    largest_weight: i8,
    /// Disable bias correction (for the mean error of the rounded weights).
    #[arg(long)]
    no_bias_correction: bool,
    /// A convolution that always stays f32, such as backbone.stem.
    #[arg(long)]
    keep_float: Vec<String>,
    /// Largest allowed drop of any metric on any data set, in percentage points. Choose it above
    /// the noise: on a hundred images AP50 varies by half a point.
    #[arg(long, default_value_t = 2.0)]
    max_drop: f64,
    /// Skip invalid images instead of stopping.
    #[arg(long)]
    skip_bad: bool,
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Runs the command.
///
/// # Errors
/// Each names the invalid file or option; the package is written atomically.
pub fn run(args: &QuantizeArgs) -> anyhow::Result<()> {
    let student = args.model.student()?;
    let settings = QuantizationSettings {
        activations: args.activations,
        weights: args.weights,
        largest_weight: args.largest_weight,
        bias_correction: !args.no_bias_correction,
        threads: args.threads,
    };
    ensure!(args.max_drop >= 0.0, "--max-drop is {}; it must be at least 0", args.max_drop);
    refuse_overlap(args)?;
    let (chosen, evaluation_sets) = choose_data(args, &student)?;
    let (images, inputs, calibrated_on) = read_inputs(&student, chosen, on_error(args))?;

    let bar = progress_bar("calibrating", 2 * inputs.0.len() as u64);
    let calibrated = Calibrated::new(&student, &inputs, &settings, &|| bar.inc(1))?;
    bar.finish_and_clear();
    let convs = calibrated.convs();
    if let Some(unknown) = args.keep_float.iter().find(|l| !convs.contains(l)) {
        anyhow::bail!("--keep-float {unknown}: no such convolution; there are {}", convs.join(", "));
    }

    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let evaluated: Vec<_> = evaluation_sets.iter().map(|d| (&d.name, d.samples.len())).collect();
    let identity = serde_json::json!([student.manifest.weights.sha256, settings, args.keep_float, images, evaluated]);
    let mut progress_file = SearchProgress::open(&args.out, &sha256(identity.to_string().as_bytes()))?;
    if progress_file.state.sensitivity.is_empty() {
        let bar = progress_bar("sensitivity of each layer", convs.len() as u64);
        let few = Inputs(evenly(inputs.0.iter().cloned(), inputs.0.len(), SENSITIVITY_IMAGES));
        progress_file.state.sensitivity = sensitivity::measure(&calibrated, &few, args.threads, &|| bar.inc(1))?;
        progress_file.save()?;
        bar.finish_and_clear();
    }

    // Where the program lies on this machine is nobody else's concern.
    let command = std::iter::once("distill".to_owned()).chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" ");
    let with_float = |layers: &BTreeSet<String>| calibrated.student(layers, &command, calibrated_on.clone());
    let evaluate_on_all = |student: &Student, what: &str| accuracy(student, &evaluation_sets, args, what);
    if progress_file.state.before.is_empty() {
        progress_file.state.before = evaluate_on_all(&student, "f32")?;
        progress_file.save()?;
    }
    let search = Search { keep_float: &args.keep_float, max_drop: args.max_drop };
    let float_layers = search.run(&mut progress_file, &mut |layers| {
        evaluate_on_all(&with_float(layers), &format!("int8, {} layers f32", layers.len()))
    })?;

    let mut quantized = with_float(&float_layers);
    let after = progress_file.state.tried[&search.count(&progress_file, &float_layers)].clone();
    for (dataset, accuracy) in &after {
        quantized.manifest.accuracy.insert(dataset.clone(), accuracy.known());
    }
    let timed = latency::measure(&student, &quantized, &inputs.0[0], TIMED_RUNS)?;
    quantized.save(&args.out)?;
    let report = QuantizationReport {
        model: quantized.manifest.name.clone(),
        settings,
        calibrated_on,
        max_drop: args.max_drop,
        float_layers: float_layers.into_iter().collect(),
        sensitivity: progress_file.state.sensitivity.clone(),
        tried: progress_file
            .state
            .tried
            .iter()
            .map(|(&k, a)| (k, report::worst_drop(&progress_file.state.before, a)))
            .collect(),
        before: progress_file.state.before.clone(),
        after,
        latency: timed,
        bytes: (student.weights_file().len(), quantized.weights_file().len()),
    };
    write_atomically(&args.out.join(REPORT).with_extension("json"), &serde_json::to_vec_pretty(&report)?)?;
    write_atomically(&args.out.join(REPORT).with_extension("txt"), report.text().as_bytes())?;
    progress_file.remove();
    print!("{}", report.text());
    Ok(())
}

/// Calibration and evaluation must use different images.
fn refuse_overlap(args: &QuantizeArgs) -> anyhow::Result<()> {
    let canonical = |name: &PathBuf| {
        let address = Address::parse(name);
        let path = address.whole_path().with_context(|| name.display().to_string())?;
        anyhow::Ok((path, address.split))
    };
    let data = args.data.iter().map(canonical).collect::<anyhow::Result<Vec<_>>>()?;
    for folder in &args.evaluate {
        let both = data.contains(&canonical(folder)?);
        ensure!(!both, "{} is given to --data and to --evaluate; calibrate on other images", folder.display());
    }
    Ok(())
}

fn on_error(args: &QuantizeArgs) -> OnError {
    if args.skip_bad {
        OnError::Skip
    } else {
        OnError::Stop
    }
}

/// Images to calibrate on, each with the name of its data set.
type Chosen = Vec<(String, PathBuf)>;

/// The images that can be read, the network's inputs for them, and their number per data set.
fn read_inputs(
    student: &Student,
    chosen: Chosen,
    on_error: OnError,
) -> anyhow::Result<(Vec<PathBuf>, Inputs, BTreeMap<String, usize>)> {
    let (mut images, mut inputs, mut skipped, mut used) = (vec![], vec![], vec![], BTreeMap::new());
    for (dataset, path) in chosen {
        match observe::input(student, &path) {
            Ok(input) => {
                inputs.push(input);
                images.push(path);
                *used.entry(dataset).or_default() += 1;
            }
            Err(e) if on_error == OnError::Stop => return Err(e.into()),
            Err(e) => skipped.push(Skipped { path, reason: e.to_string() }),
        }
    }
    log_skipped(&skipped);
    ensure!(!images.is_empty(), "none of the images of --data can be read");
    Ok((images, Inputs(inputs), used))
}

/// The calibration images, and the data sets to evaluate on.
fn choose_data(args: &QuantizeArgs, student: &Student) -> anyhow::Result<(Chosen, Vec<Dataset>)> {
    let architecture = &student.manifest.architecture;
    let options = OpenOptions { on_error: on_error(args), ..OpenOptions::of(architecture) };
    let open = |folder: &PathBuf| Dataset::open_with(Path::new(folder), &options);
    let (mut images, mut left) = (vec![], vec![]);
    for (i, folder) in args.data.iter().enumerate() {
        let mut dataset = open(folder)?;
        let share =
            usize::from(args.images) * (i + 1) / args.data.len() - usize::from(args.images) * i / args.data.len();
        let all = dataset.samples.iter().map(|s| s.image.clone());
        let chosen: Vec<PathBuf> = evenly(all, dataset.samples.len(), share);
        dataset.samples.retain(|s| !chosen.contains(&s.image));
        images.extend(chosen.into_iter().map(|image| (dataset.name.clone(), image)));
        left.push(dataset);
    }
    ensure!(!images.is_empty(), "--images {}: fewer than there are --data folders", args.images);
    if !args.evaluate.is_empty() {
        return Ok((images, args.evaluate.iter().map(open).collect::<Result<_, _>>()?));
    }
    left.retain(|d| d.samples.iter().any(|s| s.boxes.is_some() || s.mask.is_some() || s.scene.is_labelled()));
    ensure!(
        !left.is_empty(),
        "calibration uses all labelled images of --data, so that none is left to evaluate on; give --evaluate, or fewer \
         --images"
    );
    Ok((images, left))
}

/// At most `wanted` of `count` items, evenly spaced.
fn evenly<T>(items: impl Iterator<Item = T>, count: usize, wanted: usize) -> Vec<T> {
    let wanted = wanted.min(count);
    items.enumerate().filter(|(i, _)| i * wanted / count != (i + 1) * wanted / count).map(|(_, item)| item).collect()
}

fn accuracy(student: &Student, datasets: &[Dataset], args: &QuantizeArgs, what: &str) -> anyhow::Result<Accuracies> {
    let options = judged(STUDENT_SCORE, args.threads);
    let mut accuracies = Accuracies::new();
    for dataset in datasets {
        let bar = progress_bar(&format!("{what} on {}", dataset.name), dataset.samples.len() as u64);
        let e = evaluate(student, dataset, options.clone(), on_error(args), &|| bar.inc(1))?;
        bar.finish_and_clear();
        let (ap50, ap, mean_iou, scene_accuracy) = (e.ap50, e.ap, e.mean_iou, e.scene_accuracy);
        accuracies.insert(dataset.name.clone(), Accuracy { ap50, ap, mean_iou, scene_accuracy });
    }
    Ok(accuracies)
}

fn progress_bar(what: &str, count: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} ETA {eta} {msg}").expect("the template is well-formed");
    show(ProgressBar::new(count).with_style(style).with_message(what.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_images_are_evenly_spaced() {
        assert_eq!(evenly(0..10, 10, 3), [3, 6, 9]);
        assert_eq!(evenly(0..4, 4, 9), [0, 1, 2, 3]);
        assert_eq!(evenly(0..0, 0, 3), [0; 0]);
    }
}
