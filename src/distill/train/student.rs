//! `distill student`.

use clap::Args;

use super::args::TrainArgs;
use super::run::{train, Role};

/// Train a student on labels and a teacher's soft targets, and write a package that the node loads.
///
/// The run folder receives the configuration as used, origin.json (hashes of code, program and
/// data), images.json (what was found in the data's files, so that only changed ones are read at the
/// next start), log.jsonl (a line every ten steps), curves.svg, a checkpoint, the package
/// `student/` (with the moving average of the weights) and speed.json (images a second). Started again
/// with the same folder, the training resumes.
#[derive(Debug, Args)]
pub struct StudentArgs {
    #[command(flatten)]
    training: TrainArgs,
}

/// Runs the command.
///
/// # Errors
/// Those of [`train`].
pub fn run(args: &StudentArgs) -> anyhow::Result<()> {
    train(&args.training, Role::Student)
}
