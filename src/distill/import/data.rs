//! A data set of another layout as `images/`, `labels/` and `dataset.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_core::files::write_atomically;

use crate::data::{log_skipped, Dataset, OnError, OpenOptions};
use crate::log::show;

/// Options for data sets.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// The dataset.toml to use instead of the one found.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Imports the data set `source` into the folder `out`.
///
/// # Errors
/// When the source cannot be read, or the folder cannot be written.
pub fn import(source: &Path, out: &Path, args: &DataArgs) -> anyhow::Result<()> {
    let options = OpenOptions { config_path: args.config.clone(), on_error: OnError::Skip, ..Default::default() };
    let dataset = Dataset::open_with(source, &options)?;
    let images = out.join("images");
    fs::create_dir_all(&images).with_context(|| images.display().to_string())?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} images, {per_sec:.0}, ETA {eta}")?;
    let progress = show(ProgressBar::new(dataset.samples.len() as u64).with_style(style));
    for sample in &dataset.samples {
        let bytes = fs::read(&sample.image).with_context(|| sample.image.display().to_string())?;
        write_atomically(&images.join(sample.file_name()), &bytes)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    log_skipped(&dataset.skipped);
    Ok(())
}
