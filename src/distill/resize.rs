//! `distill resize`: a student's network for images of another size.
//!
//! Convolutions have no size of their own: the weights stay, and time goes with the pixels. What is
//! far away is seen worse at a smaller input, and by a network that was trained on objects of other
//! sizes; hence the report.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::Args;
use peregrine_student::Student;

use super::before_after::{BeforeAfter, JudgeArgs};
use super::model_args::ModelArgs;

/// Give a student another input size, with the weights that it has.
///
/// The cheapest way to a faster, or to a more far-sighted, student: time goes with the pixels. Train
/// at the new size afterwards (`init` in train.toml) where the report shows a loss.
///
/// Example: distill resize --model runs/first/student --input 416x320 --out far --judge my/val
#[derive(Debug, Args)]
pub struct ResizeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Width and height in pixels, multiples of 32.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    input: [usize; 2],
    /// Name of the new package; by default the old one's and the size.
    #[arg(long)]
    name: Option<String>,
    /// Folder for the package.
    #[arg(long, short)]
    out: PathBuf,
    #[command(flatten)]
    judge: JudgeArgs,
}

fn size(text: &str) -> Result<[usize; 2], String> {
    let (width, height) = text.split_once('x').ok_or("it must be WIDTHxHEIGHT, such as 416x320")?;
    let number = |text: &str| text.parse().map_err(|e| format!("{text:?}: {e}"));
    Ok([number(width)?, number(height)?])
}

/// Runs the command.
///
/// # Errors
/// Each names the invalid file or option. The package is written before the report.
pub fn run(args: &ResizeArgs) -> anyhow::Result<()> {
    let student = args.model.student()?;
    let mut resized = resize(&student, args.input)?;
    if let Some(name) = &args.name {
        resized.manifest.name.clone_from(name);
    }
    let report = BeforeAfter::measure(&student, &mut resized, &args.judge)?;
    resized.save(&args.out)?;
    print!("{}", report.text());
    println!("package for images of {}x{}: {}", args.input[0], args.input[1], args.out.display());
    Ok(())
}

/// The student at an input of `width` by `height` pixels.
///
/// # Errors
/// When the student is quantized (its scales are of the old size), or cannot have that size.
pub fn resize(student: &Student, [width, height]: [usize; 2]) -> anyhow::Result<Student> {
    let name = &student.manifest.name;
    ensure!(student.quantization.is_none(), "{name} is quantized; resize the student that it was made from");
    let mut resized = student.clone();
    let manifest = &mut resized.manifest;
    (manifest.architecture.input.width, manifest.architecture.input.height) = (width, height);
    if let Err(why) = manifest.architecture.check() {
        bail!("--input {width}x{height}: {why}");
    }
    manifest.name = format!("{name}-{width}x{height}");
    manifest.training.command = format!("{}; distill resize --input {width}x{height}", manifest.training.command);
    manifest.accuracy.clear();
    Ok(resized)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_stay_and_the_time_goes_with_the_pixels() {
        let student = Student::embedded();
        let resized = resize(&student, [64, 32]).unwrap();
        assert!(resized.weights == student.weights);
        let pixels = |s: &Student| s.manifest.architecture.input.width * s.manifest.architecture.input.height;
        let share = pixels(&resized) as f64 / pixels(&student) as f64;
        let operations = resized.graph().flops() as f64 / student.graph().flops() as f64;
        assert!((operations / share - 1.0).abs() < 0.02, "{operations} of the operations, {share} of the pixels");
        assert!(resized.manifest.accuracy.is_empty() && resized.manifest.name.ends_with("-64x32"));
    }

    #[test]
    fn a_size_that_the_network_cannot_have_is_refused() {
        let error = resize(&Student::embedded(), [100, 64]).unwrap_err().to_string();
        assert!(error.contains("--input 100x64") && error.contains("32"), "{error}");
        for text in ["416", "416x", "x320", "416*320", "-1x32"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size("416x320"), Ok([416, 320]));
    }
}
