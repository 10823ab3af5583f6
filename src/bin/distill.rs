//! `distill`: from labelled images and a heavy teacher to a small student that the node loads.

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use peregrine_distill::ablate;
use peregrine_distill::ablate::AblateArgs;
use peregrine_distill::average;
use peregrine_distill::average::AverageArgs;
use peregrine_distill::calibrate;
use peregrine_distill::calibrate::CalibrateArgs;
use peregrine_distill::cluster;
use peregrine_distill::cluster::ClusterArgs;
use peregrine_distill::evaluate;
use peregrine_distill::evaluate::EvaluateArgs;
use peregrine_distill::export;
use peregrine_distill::export::ExportArgs;
use peregrine_distill::gpu::NoGpu;
use peregrine_distill::import;
use peregrine_distill::import::ImportArgs;
use peregrine_distill::inspect;
use peregrine_distill::inspect::InspectArgs;
use peregrine_distill::log;
use peregrine_distill::prune;
use peregrine_distill::prune::PruneArgs;
use peregrine_distill::quantize;
use peregrine_distill::quantize::QuantizeArgs;
use peregrine_distill::resize;
use peregrine_distill::resize::ResizeArgs;
use peregrine_distill::select;
use peregrine_distill::select::SelectArgs;
use peregrine_distill::soften;
use peregrine_distill::soften::merge::MergeArgs;
use peregrine_distill::soften::SoftenArgs;
use peregrine_distill::text::args::TextArgs;
use peregrine_distill::text::command as text;
use peregrine_distill::train::student;
use peregrine_distill::train::student::StudentArgs;
use peregrine_distill::train::teacher;
use peregrine_distill::train::teacher::TeacherArgs;
use tracing::warn;

// Training allocates and frees buffers of megabytes at each step; glibc would hand them back to the
// system each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// From labelled images and a heavy teacher to a small student that the node loads.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Inspect(InspectArgs),
    Import(ImportArgs),
    Teacher(TeacherArgs),
    Select(SelectArgs),
    Soften(SoftenArgs),
    Merge(MergeArgs),
    Student(StudentArgs),
    Average(AverageArgs),
    Resize(ResizeArgs),
    Calibrate(CalibrateArgs),
    Prune(PruneArgs),
    // Its name up to 0.1.0.
    #[command(alias = "share")]
    Cluster(ClusterArgs),
    Evaluate(EvaluateArgs),
    Export(ExportArgs),
    Text(TextArgs),
    Quantize(QuantizeArgs),
    Ablate(AblateArgs),
}

/// Where neither an option nor the environment names an ONNX Runtime, the one beside which this was
/// built is taken.
fn remember_onnx_runtime() {
    const VARIABLE: &str = "ORT_DYLIB_PATH";
    let built_beside = option_env!("PEREGRINE_ONNXRUNTIME").filter(|path| Path::new(path).is_file());
    if let (None, Some(path)) = (std::env::var_os(VARIABLE), built_beside) {
        std::env::set_var(VARIABLE, path);
    }
}

/// The exit status where the GPU that was asked for cannot be used, so that a script can tell.
const NO_GPU: u8 = 3;

fn main() -> anyhow::Result<ExitCode> {
    remember_onnx_runtime();
    let cli = Cli::parse();
    log::init();
    match run(cli.command) {
        Err(error) if error.is::<NoGpu>() => {
            // One sentence, without the backtrace of a failure.
            eprintln!("Error: {error:#}");
            Ok(NO_GPU.into())
        }
        result => result.map(|()| ExitCode::SUCCESS),
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Teacher(args) => teacher::run(&args),
        Command::Select(args) => select::run(&args),
        Command::Soften(args) => soften::run(&args),
        Command::Merge(args) => soften::merge::run(&args),
        Command::Student(args) => student::run(&args),
        Command::Average(args) => average::run(&args),
        Command::Resize(args) => resize::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Cluster(args) => {
            if std::env::args_os().nth(1).is_some_and(|name| name == "share") {
                warn!("distill share is now distill cluster; the old name will be removed");
            }
            cluster::run(&args)
        }
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Text(args) => text::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Ablate(args) => ablate::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use peregrine_support::documents::{documents, words};

    use super::*;

    fn assert_understood(words: &[String], place: &str) {
        if let Err(e) = Cli::try_parse_from(words) {
            assert!(e.kind() == clap::error::ErrorKind::DisplayHelp, "{place}: {words:?}\n{e}");
        }
    }

    #[test]
    fn every_command_line_in_the_documents_is_understood() {
        let mut found = 0;
        for document in documents() {
            for line in document.lines_of("distill").iter().filter(|line| line[1] != "COMMAND") {
                assert_understood(line, &document.path);
                found += 1;
            }
        }
        assert!(found >= 30, "{found}");
    }

    #[test]
    fn every_command_s_example_is_understood() {
        let mut found = 0;
        for command in Cli::command().get_subcommands() {
            let about = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            for example in about.split("Example: ").skip(1) {
                assert_understood(&words(example), command.get_name());
                found += 1;
            }
        }
        assert!(found >= 5, "{found}");
    }
}
