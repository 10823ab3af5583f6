//! `distill calibrate`: scores that say how often a detection is right.
//!
//! A score σ(z) becomes σ(a·z + b), with a and b by maximum likelihood over the detections in labelled
//! images (Platt 1999, "Probabilistic outputs for support vector machines"; with b = 0 it is the
//! temperature scaling of Guo et al. 2017). Both go into the weights and biases of the class layers: the
//! network stays as fast, and since the order of the scores stays, so does every AP.

use std::path::PathBuf;

use anyhow::{ensure, Context};
use clap::Args;
use peregrine_student::Student;
use peregrine_vision::decode::head::logit;

use super::before_after::{BeforeAfter, JudgeArgs};
use super::data::{Dataset, OnError, OpenOptions};
use super::evaluate::judged;
use super::evaluate::observe::observe;
use super::metrics::average_precision::outcomes;
use super::metrics::Evaluated;
use super::model_args::ModelArgs;

/// The least score of the detections that are fitted. There are many times as many below it, nearly all
/// of them wrong, and nobody publishes them.
const FITTED_FROM: f32 = 0.1;

/// The fewest detections, and right ones among them, that tell two numbers.
const FEWEST: usize = 50;

/// Make the scores of a student's detections say how often they are right.
///
/// Of detections with a score of 0.7, seven in ten should be right. Take labelled images that the
/// student was not trained on: of those that it knows by heart it is too sure. Costs no time on the
/// vehicle, and no AP. Quantize afterwards.
///
/// Example: distill calibrate --model runs/first/student --data my/val --out sure --judge my/other
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Images with labelled boxes to fit on; may be given several times.
    #[arg(long, required = true, value_name = "FOLDER")]
    data: Vec<PathBuf>,
    /// Folder for the package.
    #[arg(long, short)]
    out: PathBuf,
    #[command(flatten)]
    judge: JudgeArgs,
}

/// Runs the command.
///
/// # Errors
/// Each names the invalid file or option. The package is written before the report.
pub fn run(args: &CalibrateArgs) -> anyhow::Result<()> {
    let student = args.model.student()?;
    let name = &student.manifest.name;
    ensure!(student.quantization.is_none(), "{name} is quantized; calibrate the student that it was made from");
    let scores = scores_of(&student, args)?;
    let line = Line::fit(&scores).context("the scores cannot be calibrated")?;
    let mut calibrated = line.put_into(&student)?;
    let report = BeforeAfter::measure(&student, &mut calibrated, &args.judge)?;
    calibrated.save(&args.out)?;
    print!("{}", report.text());
    println!(
        "logit of a score, of {} detections: {:.3} times what it was, {:+.3}",
        scores.len(),
        line.slope,
        line.offset
    );
    println!("package with calibrated scores: {}", args.out.display());
    Ok(())
}

/// Each detection's score, and whether it is right at an IoU of 0.5.
fn scores_of(student: &Student, args: &CalibrateArgs) -> anyhow::Result<Vec<(f32, bool)>> {
    let on_error = if args.judge.skip_bad { OnError::Skip } else { OnError::Stop };
    let mut scores = Vec::new();
    for folder in &args.data {
        let options = OpenOptions { on_error, ..OpenOptions::of(&student.manifest.architecture) };
        let dataset = Dataset::open_with(folder, &options)?;
        let observed = observe(student, &dataset, judged(FITTED_FROM, 2), on_error, &|| ())?;
        let images: Vec<Evaluated> = observed.images.into_iter().filter_map(|image| image.objects).collect();
        let classes = 0..student.manifest.architecture.detection_classes().len();
        scores.extend(classes.filter(|&c| dataset.labelled[c]).flat_map(|c| outcomes(&images, c, 0.5)));
    }
    Ok(scores)
}

/// What becomes of the logit of a score.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    slope: f64,
    offset: f64,
}

impl Line {
    /// The line under which the `scores`, each with whether it was right, are most likely: Newton's
    /// method on a convex loss, with Platt's targets, which keep it finite where right and wrong do not
    /// overlap.
    ///
    /// # Errors
    /// When there are too few, or higher scores are not more often right.
    fn fit(scores: &[(f32, bool)]) -> anyhow::Result<Self> {
        let right = scores.iter().filter(|score| score.1).count();
        let wrong = scores.len() - right;
        ensure!(
            right.min(wrong) >= FEWEST,
            "{right} detections are right and {wrong} wrong, and {FEWEST} of each are needed; give more images"
        );
        let (hit, miss) = ((right as f64 + 1.0) / (right as f64 + 2.0), 1.0 / (wrong as f64 + 2.0));
        let mut line = Self { slope: 1.0, offset: 0.0 };
        for _ in 0..100 {
            // Gradient and Hessian of the negative log likelihood; a little on the diagonal keeps it
            // invertible where all scores are alike.
            let (mut gradient, mut hessian) = ([0.0; 2], [1e-9, 0.0, 1e-9]);
            for &(score, right) in scores {
                let z = f64::from(logit(score.clamp(1e-6, 1.0 - 1e-6)));
                let p = 1.0 / (1.0 + (-(line.slope * z + line.offset)).exp());
                let (error, weight) = (p - if right { hit } else { miss }, p * (1.0 - p));
                gradient = [gradient[0] + error * z, gradient[1] + error];
                hessian = [hessian[0] + weight * z * z, hessian[1] + weight * z, hessian[2] + weight];
            }
            let determinant = hessian[0] * hessian[2] - hessian[1] * hessian[1];
            let step = [
                (hessian[2] * gradient[0] - hessian[1] * gradient[1]) / determinant,
                (hessian[0] * gradient[1] - hessian[1] * gradient[0]) / determinant,
            ];
            line = Self { slope: line.slope - step[0], offset: line.offset - step[1] };
            if step[0].abs() + step[1].abs() < 1e-10 {
                break;
            }
        }
        let finite = line.slope.is_finite() && line.offset.is_finite();
        ensure!(finite && line.slope > 0.0, "higher scores are not more often right (slope {:.3})", line.slope);
        Ok(line)
    }

    /// The student with these scores.
    ///
    /// # Errors
    /// When a score is not the sigmoid of a layer's output alone.
    fn put_into(self, student: &Student) -> anyhow::Result<Student> {
        let mut calibrated = student.clone();
        let graph = student.graph();
        let levels = student.manifest.architecture.detection_levels();
        ensure!(!levels.is_empty(), "{} detects nothing", student.manifest.name);
        for level in levels {
            ensure!(
                level.objectness.is_none(),
                "a score is the product of class and objectness, which no line changes"
            );
            let name = &graph.layers[graph.outputs[level.class]].name;
            let layer = calibrated.weights.0.get_mut(name).with_context(|| format!("{name} is not a convolution"))?;
            layer.weight.iter_mut().for_each(|w| *w = (f64::from(*w) * self.slope) as f32);
            layer.bias.iter_mut().for_each(|b| *b = (f64::from(*b) * self.slope + self.offset) as f32);
        }
        let manifest = &mut calibrated.manifest;
        manifest.training.command = format!("{}; distill calibrate", manifest.training.command);
        manifest.weights.cluster_bits = None;
        manifest.accuracy.clear();
        Ok(calibrated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Calibration;

    /// Scores 0.1 to 0.9, each as often right as `sure` says.
    fn scores(sure: impl Fn(f64) -> f64) -> Vec<(f32, bool)> {
        let of = |score: u16| {
            let score = f64::from(score) / 100.0;
            let right = (200.0 * sure(score)).round() as usize;
            (0..200).map(move |i| (score as f32, i < right))
        };
        (10..90).flat_map(of).collect()
    }

    fn error(line: Line, scores: &[(f32, bool)]) -> f64 {
        let mut calibration = Calibration::default();
        for &(score, right) in scores {
            let z = line.slope * f64::from(logit(score)) + line.offset;
            calibration.add((1.0 / (1.0 + (-z).exp())) as f32, right);
        }
        calibration.error().unwrap()
    }

    #[test]
    fn a_line_in_the_logits_is_found_again() {
        let (slope, offset) = (1.7, -0.6);
        let scores = scores(|p| 1.0 / (1.0 + (-(slope * (p / (1.0 - p)).ln() + offset)).exp()));
        let line = Line::fit(&scores).unwrap();
        assert!((line.slope - slope).abs() < 0.02 && (line.offset - offset).abs() < 0.02, "{line:?}");
        let before = error(Line { slope: 1.0, offset: 0.0 }, &scores);
        assert!(error(line, &scores) < 0.01 && before > 0.05, "from {before}");
    }

    #[test]
    fn scores_that_say_nothing_or_are_too_few_are_refused() {
        let error = |scores: &[(f32, bool)]| Line::fit(scores).unwrap_err().to_string();
        assert!(error(&scores(|p| 1.0 - p)).contains("not more often right"));
        assert!(error(&scores(|_| 1.0)).contains("0 wrong"));
        assert!(error(&[]).contains("give more images"));
    }

    #[test]
    fn all_class_logits_are_moved_and_nothing_else() {
        let student = Student::embedded();
        let calibrated = Line { slope: 2.0, offset: 0.5 }.put_into(&student).unwrap();
        let moved: Vec<&String> =
            student.weights.0.keys().filter(|name| calibrated.weights.of(name) != student.weights.of(name)).collect();
        assert_eq!(moved.len(), 3, "{moved:?}");
        for name in moved {
            let (new, old) = (calibrated.weights.of(name), student.weights.of(name));
            assert!(new.weight.iter().zip(&old.weight).all(|(new, old)| *new == 2.0 * old), "{name}");
            assert!(new.bias.iter().zip(&old.bias).all(|(new, old)| (new - 2.0 * old - 0.5).abs() < 1e-5), "{name}");
        }
    }
}
