//! `distill import`: what people have, brought into this project's own formats.
//!
//! One file for each kind of source: [`data`]: labelled images in anybody's layout; [`onnx`]: a
//! network; [`recording`]: bags and videos. [`kind`] tells from the content which it is. - `write`,
//! `outline`: labels in this project's layout; [`left_out`]: what was left out, by reason.

pub mod data;
pub mod kind;
pub mod left_out;
pub mod onnx;
mod outline;
pub mod recording;
mod write;

use std::path::PathBuf;

use clap::Args;

use data::DataArgs;
use kind::Kind;
use onnx::NetworkArgs;
use recording::RecordingArgs;

/// Import a data set in another tool's layout, a ROS 2 bag, an MCAP file or a video as a folder of
/// images/, labels/ and dataset.toml, or a detector in an ONNX file as a package.
///
/// The kind of the source is told from its content. An interrupted import is resumed by giving the
/// command again. What is left out is listed with its reason.
///
/// Example: distill import downloads/coco/annotations/instances_val2017.json --out data/coco-val
///
/// Example: distill import nanodet.onnx --description nanodet.toml --out models/nanodet
///
/// Example: distill import drive --topic /camera/image_raw --every 0.5s --out data/drive
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The folder or file to import.
    source: PathBuf,
    /// The folder to write.
    #[arg(long, short)]
    out: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    recording: RecordingArgs,
}

/// Runs the command.
///
/// # Errors
/// When the source is of no known kind, or cannot be read, or the folder cannot be written.
pub fn run(args: &ImportArgs) -> anyhow::Result<()> {
    match Kind::of(&args.source)? {
        Kind::Data => data::import(&args.source, &args.out, &args.data),
        Kind::Network => onnx::import(&args.source, &args.out, &args.network),
        Kind::Recording => recording::import(&args.source, &args.out, &args.recording),
    }
}
