//! `distill merge`: the parts of soft targets that several machines made, in one folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{bail, ensure, Context};
use clap::Args;
use peregrine_core::files::sha256;

use super::index::{Index, Share, INDEX};
use super::place::Place;
use crate::lock::lock;

/// Join the parts that `distill soften --shard I/N` made into one folder of soft targets.
///
/// Names the parts that are missing or not finished. The result is that of one machine, byte for
/// byte.
///
/// Example: distill merge parts/0 parts/1 parts/2 --out soft
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The folders of all parts, in any order, here or in an object store (s3://BUCKET/FOLDER).
    #[arg(required = true, value_name = "PART")]
    parts: Vec<PathBuf>,
    /// Folder for the soft targets, here or in an object store.
    #[arg(long, short)]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// When a part is missing, unfinished, damaged, given twice, or of other teachers or images.
pub fn run(args: &MergeArgs) -> anyhow::Result<()> {
    let parts = args.parts.iter().map(|part| Place::of(part)).collect::<anyhow::Result<Vec<_>>>()?;
    join(parts, &Place::of(&args.out)?)
}

/// Joins the parts, once none is missing.
pub(super) fn join(parts: Vec<Place>, out: &Place) -> anyhow::Result<()> {
    let parts = parts.into_iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
    let first = &parts[0];
    let mut by_number = BTreeMap::new();
    for part in &parts {
        ensure!(
            part.index.is_of(&first.index) && part.share.is_of(&first.share),
            "{} and {} are not parts of one run: their teachers, features, --flip, data sets or number of parts differ",
            first.place,
            part.place
        );
        if let Some(twin) = by_number.insert(part.share.part.index, part) {
            bail!("{} and {} are both part {}", twin.place, part.place, part.share.part);
        }
    }
    let of = first.share.part.of;
    let missing: Vec<String> = (0..of).filter(|i| !by_number.contains_key(i)).map(|i| format!("{i}/{of}")).collect();
    ensure!(missing.is_empty(), "parts are missing: soften with --shard {}, and merge again", missing.join(", "));
    let unfinished: Vec<String> = by_number.values().filter(|p| !p.share.complete).map(|p| p.describe()).collect();
    ensure!(unfinished.is_empty(), "not finished: {}; run them again, they go on", unfinished.join(", "));
    write(out, &by_number.into_values().collect::<Vec<_>>())
}

/// One part.
struct Found {
    place: Place,
    index: Index,
    share: Share,
}

impl Found {
    fn describe(&self) -> String {
        format!("{} (part {})", self.place, self.share.part)
    }
}

fn read(place: Place) -> anyhow::Result<Found> {
    let index = place.index_of_part()?;
    let share = index.share.clone();
    let share = share.with_context(|| format!("{place}: is no part, but soft targets of all images"))?;
    Ok(Found { place, index, share })
}

/// Copies the shards, each checked, then writes the index.
fn write(out: &Place, parts: &[&Found]) -> anyhow::Result<()> {
    let _lock = lock(out.work_folder()?, "another distill")?;
    let mut shards = Vec::new();
    for part in parts {
        let folder = part.place.shards(&part.index.shards)?;
        for shard in &part.index.shards {
            let from = folder.join(&shard.file);
            let bytes = std::fs::read(&from).with_context(|| from.display().to_string())?;
            ensure!(
                sha256(&bytes) == shard.sha256,
                "{}: its hash is not the one in index.json; delete it and that index's entry, and soften again",
                from.display()
            );
            out.write(&shard.file, bytes, &from.display())?;
            shards.push(shard.clone());
        }
    }
    let share = &parts[0].share;
    ensure!(
        shards.len() == share.shards,
        "the parts have {} shards of {}: their images are not the same on all machines",
        shards.len(),
        share.shards
    );
    let place = |dataset: &String| share.datasets.iter().position(|name| name == dataset);
    shards.sort_by(|a, b| (place(&a.dataset), &a.file).cmp(&(place(&b.dataset), &b.file)));
    let images: usize = shards.iter().map(|shard| shard.images.len()).sum();
    let index = Index { share: None, shards, ..parts[0].index.clone() };
    out.write(INDEX, serde_json::to_vec_pretty(&index)?, &"these parts")?;
    println!("{images} images of {} parts are in {out}", parts.len());
    Ok(())
}
