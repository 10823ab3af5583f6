//! `distill`: from labelled images and a heavy teacher to a small student that the node loads.

use clap::{Parser, Subcommand};
use peregrine::distill::ablate::{self, AblateArgs};
use peregrine::distill::evaluate::{self, EvaluateArgs};
use peregrine::distill::export::{self, ExportArgs};
use peregrine::distill::inspect::{self, InspectArgs};
use peregrine::distill::prune::{self, PruneArgs};
use peregrine::distill::quantize::{self, QuantizeArgs};
use peregrine::distill::share::{self, ShareArgs};
use peregrine::distill::soften::{self, SoftenArgs};
use peregrine::distill::text::command::{self as text, TextArgs};
use peregrine::distill::train::student::{self, StudentArgs};
use peregrine::distill::train::teacher::{self, TeacherArgs};

// Training allocates and frees buffers of megabytes at each step; glibc would hand them back to the system each time.
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
    Teacher(TeacherArgs),
    Soften(SoftenArgs),
    Student(StudentArgs),
    Prune(PruneArgs),
    Share(ShareArgs),
    Evaluate(EvaluateArgs),
    Export(ExportArgs),
    Text(TextArgs),
    Quantize(QuantizeArgs),
    Ablate(AblateArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Teacher(args) => teacher::run(&args),
        Command::Soften(args) => soften::run(&args),
        Command::Student(args) => student::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Share(args) => share::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Text(args) => text::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Ablate(args) => ablate::run(&args),
    }
}
