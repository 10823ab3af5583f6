//! `distill average`: the weights of several trainings of one network, averaged.
//!
//! Networks that were trained from the same start lie in one valley, and on the line between two of
//! them the loss is about as low as at its ends (Wortsman et al. 2022, "Model soups"). Between the
//! start and what a training on other data made of it, the average keeps most of what the start knew
//! of the rest of the world and most of what the training gained (Wortsman et al. 2022, "Robust
//! fine-tuning of zero-shot models"). Heads that the training made anew have no start: they are the
//! last package's alone.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::Args;
use peregrine_engine::{ConvWeights, Weights};
use peregrine_student::architecture::Input;
use peregrine_student::Student;

use super::before_after::{BeforeAfter, JudgeArgs};
use super::train::heads::class_rows;

/// Average the weights of students that were trained from the same start.
///
/// A training on images of one kind forgets what the start knew of others; between start and result
/// there is often a student that has most of both. Costs no time on the vehicle: it is one network.
/// The last package gives classes and input; what the others lack (a head made anew, rows of other
/// classes) is its own. In the report it is what the average is compared with.
///
/// Example: distill average nanodet runs/first/student --shares 0.4,0.6 --out both --judge data/val
#[derive(Debug, Args)]
pub struct AverageArgs {
    /// Packages, not quantized, of which each was trained from the first or from the same start.
    #[arg(required = true, num_args = 2.., value_name = "PACKAGE")]
    packages: Vec<PathBuf>,
    /// Their shares, in the same order and relative to each other; equal ones by default.
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS")]
    shares: Vec<f32>,
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
pub fn run(args: &AverageArgs) -> anyhow::Result<()> {
    let students = args.packages.iter().map(|folder| Student::load(folder)).collect::<Result<Vec<_>, _>>()?;
    let shares = if args.shares.is_empty() { vec![1.0; students.len()] } else { args.shares.clone() };
    let mut averaged = average(&students, &shares)?;
    let last = &students[students.len() - 1];
    let report = BeforeAfter::measure(last, &mut averaged, &args.judge)?;
    averaged.save(&args.out)?;
    print!("{}", report.text());
    println!("package with averaged weights: {}", args.out.display());
    Ok(())
}

/// The last student with weights that are the mean of all of them, weighted by their `shares`,
/// where the others have them.
///
/// # Errors
/// When a student is quantized, has no layer in common with the last, or reads its pixels in another
/// way, or the shares are not as many, 0 or above, and somewhere above 0.
pub fn average(students: &[Student], shares: &[f32]) -> anyhow::Result<Student> {
    ensure!(shares.len() == students.len(), "--shares has {} numbers for {} packages", shares.len(), students.len());
    let sum: f32 = shares.iter().sum();
    ensure!(
        shares.iter().all(|&s| s >= 0.0) && sum > 0.0 && sum.is_finite(),
        "--shares must be 0 or above, and not all 0"
    );
    let Some(last) = students.last() else { bail!("there is nothing to average") };
    let mut weights = Weights::default();
    for (student, share) in students.iter().zip(shares) {
        let adapted = adapted(student, last)?;
        for (name, from) in adapted.0 {
            let to = weights.0.entry(name).or_insert_with(|| ConvWeights {
                weight: vec![0.0; from.weight.len()],
                bias: vec![0.0; from.bias.len()],
            });
            let values = to.weight.iter_mut().chain(&mut to.bias).zip(from.weight.iter().chain(&from.bias));
            values.for_each(|(to, from)| *to += share / sum * from);
        }
    }
    let mut averaged = Student { weights, ..last.clone() };
    let names: Vec<_> =
        students.iter().zip(shares).map(|(s, share)| format!("{share} of {}", s.manifest.name)).collect();
    let manifest = &mut averaged.manifest;
    manifest.name = format!("{}-averaged", last.manifest.name);
    manifest.training.command = format!("distill average: {}", names.join(", "));
    manifest.training.data = each_once(students, |student| &student.manifest.training.data);
    manifest.training.teachers = each_once(students, |student| &student.manifest.training.teachers);
    let hashes = students.iter().flat_map(|student| student.manifest.training.data_sha256.clone());
    manifest.training.data_sha256 = hashes.collect();
    manifest.notice = each_once(students, |student| &student.manifest.notice);
    manifest.weights.cluster_bits = None;
    manifest.accuracy.clear();
    Ok(averaged)
}

/// `to`'s weights, in place of which stand `from`'s where it has them.
fn adapted(from: &Student, to: &Student) -> anyhow::Result<Weights> {
    let name = &from.manifest.name;
    ensure!(from.quantization.is_none(), "{name} is quantized; average the students in f32, then quantize");
    let (theirs, ours) = (&from.manifest.architecture, &to.manifest.architecture);
    let reads = |input: &Input| Input { width: 0, height: 0, ..input.clone() };
    ensure!(
        reads(&theirs.input) == reads(&ours.input),
        "{name} and {} read their pixels in other colours or by another normalisation",
        to.manifest.name
    );
    let mut weights = to.weights.clone();
    let rows = class_rows(theirs, ours);
    let mut common = 0;
    for (layer, values) in &mut weights.0 {
        let other = rows.get(layer);
        let Some(found) = from.weights.0.get(other.map_or(layer, |rows| &rows.layer)) else { continue };
        let taken = match other {
            Some(rows) => rows.copy(found, &mut values.weight, &mut values.bias),
            None => {
                let fits = (found.weight.len(), found.bias.len()) == (values.weight.len(), values.bias.len());
                if fits {
                    values.clone_from(found);
                }
                fits
            }
        };
        common += usize::from(taken);
    }
    ensure!(common > 0, "{name} and {} have no layer in common", to.manifest.name);
    Ok(weights)
}

/// The lines of all students' manifests, in their order.
fn each_once<'a>(students: &'a [Student], lines: impl Fn(&'a Student) -> &'a Vec<String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for line in students.iter().flat_map(lines) {
        if !all.contains(line) {
            all.push(line.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use peregrine_student::StudentShape;

    use super::*;

    fn with_biases(student: &Student, value: f32) -> Student {
        let mut other = student.clone();
        other.weights.0.values_mut().for_each(|layer| layer.bias.fill(value));
        other
    }

    #[test]
    fn each_weight_is_the_mean_by_shares() {
        let last = Student::load(&peregrine_support::lite()).unwrap();
        let mean = average(&[with_biases(&last, 1.0), with_biases(&last, 5.0)], &[3.0, 1.0]).unwrap();
        for (name, layer) in &mean.weights.0 {
            assert!(layer.bias.iter().all(|bias| (bias - 2.0).abs() < 1e-6), "{name}");
            let before = &last.weights.of(name).weight;
            assert!(layer.weight.iter().zip(before).all(|(mean, a)| (mean - a).abs() < 1e-5), "{name}");
        }
        assert_eq!(mean.manifest.notice, last.manifest.notice, "each credit once");
    }

    #[test]
    fn rows_of_the_same_class_are_averaged_and_others_the_last_s_alone() {
        let start = with_biases(&Student::load(&peregrine_support::lite()).unwrap(), 1.0);
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let shape = StudentShape {
            classes: names(&["cone", "truck"]),
            segmentation: names(&["floor"]),
            ..StudentShape::default()
        };
        let architecture = shape.of_package(start.manifest.architecture.clone()).unwrap();
        let graph = architecture.graph(64, 64);
        let mut last = Student { weights: crate::net::NetParams::random(&graph, 1).fold(), ..start.clone() };
        last.manifest.architecture = architecture;
        let last = with_biases(&last, 5.0);
        let mean = average(&[start, last], &[1.0, 1.0]).unwrap();
        assert_eq!(mean.weights.of("detect.16.class").bias, [5.0, 3.0], "cone is new, truck is in both");
        assert_eq!(mean.weights.of("segment.class").bias, [5.0]);
        assert!(mean.weights.of("backbone.stem").bias.iter().all(|&bias| bias == 3.0));
    }

    #[test]
    fn what_cannot_be_averaged_is_refused_with_the_reason() {
        let a = Student::load(&peregrine_support::lite()).unwrap();
        let mut b = a.clone();
        b.manifest.architecture.input.mean[0] += 1.0;
        let refused = average(&[a.clone(), b], &[1.0, 1.0]).unwrap_err().to_string();
        assert!(refused.contains("normalisation"), "{refused}");
        let mut strange = a.clone();
        strange.weights.0.clear();
        assert!(average(&[strange, a.clone()], &[1.0, 1.0]).unwrap_err().to_string().contains("no layer in common"));
        for shares in [&[1.0][..], &[0.0, 0.0], &[-1.0, 2.0], &[f32::NAN, 1.0]] {
            assert!(average(&[a.clone(), a.clone()], shares).unwrap_err().to_string().contains("--shares"));
        }
    }
}
