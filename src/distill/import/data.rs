//! A data set of another layout as `images/`, `labels/` and `dataset.toml`.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_core::files::write_atomically;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::left_out::LeftOut;
use super::write::{Numbers, Writer};
use crate::data::config::{DatasetConfig, CONFIG_FILE};
use crate::data::layout::{self, Classes, Listing};
use crate::data::{Address, Skipped};
use crate::lock::lock;
use crate::log::show;

/// The file that says what a folder was imported from.
const RECORD: &str = "import.json";
/// The list of what was left out.
const LEFT_OUT: &str = "left-out.txt";

/// Options for data sets.
#[derive(Debug, Clone, Default, Args)]
pub struct DataArgs {
    /// For data sets: the dataset.toml to use instead of the one found, or builtin:NAME.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// For data sets: write the objects' outlines as masks, instead of boxes. Pixels outside of all
    /// are void.
    #[arg(long)]
    pub masks: bool,
}

/// What a folder was imported from: an import is resumed only with the same.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    source: PathBuf,
    masks: bool,
    /// The configuration that was given or found.
    config: Option<DatasetConfig>,
}

/// What has been imported.
#[derive(Debug, Default)]
struct Summary {
    images: usize,
    unlabelled: usize,
    /// Images that an earlier, interrupted import had written.
    kept: usize,
    left_out: LeftOut,
}

/// Imports the data set `source` into the folder `out`: all its splits, or the one that is named.
///
/// # Errors
/// When the source cannot be read, or holds no usable image, or the folder cannot be written.
pub fn import(source: &Path, out: &Path, args: &DataArgs) -> anyhow::Result<()> {
    let address = Address::parse(source);
    let chosen = address.config.as_deref().or(args.config.as_deref());
    let given = DatasetConfig::find(&address.path, chosen)?;
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let _only = lock(out, "another import")?;
    let canonical = std::fs::canonicalize(&address.path).with_context(|| source.display().to_string())?;
    let record = Record {
        source: Address { path: canonical, ..address }.of(),
        masks: args.masks,
        config: given.as_ref().map(|(config, _)| config.clone()),
    };
    record.check(out)?;

    let splits = layout::splits(source)?;
    let (mut known, mut summary) = (given, Summary::default());
    for split in &splits {
        let (listing, name) = layout::detect::read(&Address::parse(split), known.clone(), args.masks)?;
        let name = name.or_else(|| split_folder(split, &splits));
        let folder = match (&name, splits.len()) {
            (Some(name), 2..) => out.join(name),
            _ => out.to_owned(),
        };
        println!("{}: {}, {} images", split.display(), listing.layout, listing.entries.len());
        let config = write_split(listing, &folder, args.masks, &mut summary)?;
        known = Some((config, out.join(CONFIG_FILE)));
    }
    ensure!(summary.images > 0, "{}: none of its images can be used: {}", source.display(), summary.left_out.first());
    let (mut config, _) = known.context("there is at least one split")?;
    if let (None, Some(name)) = (&record.config, record.source.file_name().filter(|_| splits.len() > 1)) {
        config.name = name.to_string_lossy().into_owned();
    }
    // The masks are written as indices.
    config.segmentation.iter_mut().for_each(|masks| masks.colours = None);
    let text = toml::to_string(&config).context("the configuration cannot be written")?;
    write_atomically(&out.join(CONFIG_FILE), text.as_bytes())?;
    write_atomically(&out.join(LEFT_OUT), summary.left_out.list().as_bytes())?;
    print!("{}", summary.text(out, &config));
    Ok(())
}

/// Writes the images and labels of a split, and returns the configuration with its classes.
fn write_split(listing: Listing, folder: &Path, masks: bool, summary: &mut Summary) -> anyhow::Result<DatasetConfig> {
    let Listing { mut config, entries, skipped, .. } = listing;
    let mut classes = Classes::new(&config.classes);
    let numbers = Numbers::of(&entries, &mut classes, masks);
    config.classes = classes.into_names();
    if masks {
        config = numbers.masked(config);
    } else if let (Some(map), Some(_)) = (&mut config.detection, numbers.ignore) {
        map.insert(numbers.ignore_name(), numbers.ignore_name());
    }
    let writer = Writer::new(folder, &config, &numbers, masks)?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} images, {per_sec:.0}, ETA {eta}")?;
    let progress = show(ProgressBar::new(entries.len() as u64).with_style(style));
    let targets = writer.targets(&entries);
    let written: Vec<_> = entries
        .into_par_iter()
        .zip(targets)
        .map(|(entry, target)| {
            let image = entry.image.clone();
            let written = writer.write(entry, target);
            progress.inc(1);
            (image, written)
        })
        .collect();
    progress.finish_and_clear();
    for (image, written) in written {
        match written? {
            Ok(written) => {
                summary.images += 1;
                summary.unlabelled += usize::from(!written.labelled);
                summary.kept += usize::from(written.kept);
            }
            Err(reason) => summary.left_out.add(Skipped { path: image, reason }),
        }
    }
    skipped.into_iter().for_each(|file| summary.left_out.add(file));
    Ok(config)
}

/// The name of a split that is a folder of its own.
fn split_folder(split: &Path, splits: &[PathBuf]) -> Option<String> {
    (splits.len() > 1).then(|| Address::parse(split).path.file_name()?.to_str().map(str::to_owned))?
}

impl Record {
    /// Writes the record, or compares it with the one of an earlier import.
    fn check(&self, out: &Path) -> anyhow::Result<()> {
        let path = out.join(RECORD);
        let Ok(bytes) = std::fs::read(&path) else {
            let mut entries = std::fs::read_dir(out).with_context(|| out.display().to_string())?.flatten();
            // A killed import leaves its lock, and perhaps a part of the record.
            let own = |name: &str| name.starts_with('.') || name.starts_with(RECORD);
            let other = entries.find(|entry| !own(&entry.file_name().to_string_lossy()));
            if let Some(other) = other {
                anyhow::bail!(
                    "{}: holds {:?}, which no import has written; give an empty or a new folder as --out",
                    out.display(),
                    other.file_name()
                );
            }
            return Ok(write_atomically(&path, &serde_json::to_vec_pretty(self)?)?);
        };
        let found: Self =
            serde_json::from_slice(&bytes).with_context(|| format!("{}: delete it, and the folder", path.display()))?;
        ensure!(
            found == *self,
            "{}: was imported from {} with other options or another dataset.toml; give another --out, or delete it",
            out.display(),
            found.source.display()
        );
        Ok(())
    }
}

impl Summary {
    fn text(&self, out: &Path, config: &DatasetConfig) -> String {
        let mut text = format!("{}: {} images, {} unlabelled", out.display(), self.images, self.unlabelled);
        if self.kept > 0 {
            text += &format!("; {} of them were there from an earlier import", self.kept);
        }
        let classes = config.segmentation.as_ref().map_or(&config.classes, |masks| &masks.classes);
        text += &format!("\nclasses: {}\n", classes.join(", "));
        text + &self.left_out.text(&out.join(LEFT_OUT))
    }
}
