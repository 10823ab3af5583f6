//! `distill student`.

use clap::Args;

use super::run::{train, Role, TrainArgs};

/// Train a student on labels and a teacher's soft targets, into a package that the node loads.
///
/// The run folder receives the configuration as used, origin.json (code, program and data by their hashes), log.jsonl (a
/// line every ten steps), curves.svg, a checkpoint and the package `student/` (the weights' moving average). Started again
/// with the same folder it goes on where it was.
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
