//! `distill teacher`.

use clap::Args;

use super::args::TrainArgs;
use super::run::{train, Role};

/// Train a teacher: a ResNet or EfficientNet-Lite with the student's heads, from ImageNet weights.
///
/// The configuration is a student's with `backbone = "resnet18"` (or resnet34, resnet50, lite0 to
/// lite4), `init` an ImageNet classifier of that kind (ONNX, or a ResNet's safetensors by
/// torchvision's names), and usually a larger `input` and more steps. The run folder is like that
/// of `distill student`, with the package in `teacher/`. `distill soften --teacher FOLDER` runs it
/// on whole images; `[teacher] package = ` in a student's configuration runs it on each augmented
/// view.
///
/// Example: distill teacher teacher.toml --run runs/teacher
#[derive(Debug, Args)]
pub struct TeacherArgs {
    #[command(flatten)]
    training: TrainArgs,
}

/// Runs the command.
///
/// # Errors
/// Those of [`train`].
pub fn run(args: &TeacherArgs) -> anyhow::Result<()> {
    train(&args.training, Role::Teacher)
}
