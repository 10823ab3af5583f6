//! The images of a bag, an MCAP file or a video as `images/` and `dataset.toml`.
//!
//! - `journal`: what has been imported, to resume from. `picture`: one image as a file.
//!   `tally`: what was left out, and why.

mod journal;
mod picture;
mod tally;

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_core::files::write_atomically;
use peregrine_recording::{Every, Images, LevelOptions, Recording, Selection, Topic};
use tracing::{info, warn};

use crate::data::config::CONFIG_FILE;
use crate::inspect::distance;
use crate::lock::lock;
use crate::log::show;
use journal::{Journal, Kept, Settings};
use picture::{Pictures, RawFormat};
use tally::Tally;

/// Options for bags and videos.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bags and videos")]
pub struct RecordingArgs {
    /// The topic whose images to import; needed where a bag has several of images.
    #[arg(long)]
    topic: Option<String>,
    /// Leave out what is earlier than so many seconds from the recording's beginning.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    from: Option<f64>,
    /// Leave out what is later than so many seconds from the recording's beginning.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    to: Option<f64>,
    /// Import every nth image (such as 10), or one of so many seconds (such as 0.5s).
    #[arg(long, value_name = "N|Ts", default_value = "1")]
    every: Every,
    /// Leave out an image whose difference hash equals that of one imported before but for so many
    /// of its 256 bits; none keeps all.
    #[arg(long, value_name = "BITS|none", default_value = "8", value_parser = alike)]
    alike: Alike,
    /// How to write raw images and pictures of videos: png, without loss, or jpeg, of quality 95.
    /// Compressed images are written as they are.
    #[arg(long, value_enum, default_value = "png")]
    raw: RawFormat,
    #[command(flatten)]
    levels: LevelOptions,
}

/// The largest Hamming distance of near-duplicates; `None` if none are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Alike(Option<u32>);

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..1e9).contains(&seconds) => Ok(seconds),
        _ => Err("give seconds from the recording's beginning, such as 12.5".into()),
    }
}

fn alike(text: &str) -> Result<Alike, String> {
    match text.parse::<u32>() {
        _ if text == "none" => Ok(Alike(None)),
        Ok(bits @ 0..=256) => Ok(Alike(Some(bits))),
        _ => Err("give a number of bits up to 256, or none".into()),
    }
}

/// Imports the images of `source` into the folder `out`.
///
/// # Errors
/// When the recording cannot be read, its topic is not there, or the folder cannot be written or
/// holds another import.
pub fn import(source: &Path, out: &Path, args: &RecordingArgs) -> anyhow::Result<()> {
    let selection = Selection { from: args.from, to: args.to, every: args.every };
    if let (Some(from), Some(to)) = (args.from, args.to) {
        ensure!(from <= to, "--from {from} --to {to}: nothing lies between; give --from the smaller one");
    }
    let recording = Recording::open(source)?;
    recording.warnings().iter().for_each(|warning| warn!("{warning}"));
    let topic = recording.image_topic(args.topic.as_deref())?;

    let images = out.join("images");
    fs::create_dir_all(&images).with_context(|| images.display().to_string())?;
    let _lock = lock(out, "another import")?;
    let settings = Settings::new(&recording, topic, &selection, args.alike.0, args.raw, args.levels);
    let mut journal = Journal::open(out, &settings)?;
    let resumed = journal.kept().len();
    if resumed > 0 {
        info!("{}: resumed after {resumed} images", out.display());
    }
    let progress = progress(&recording, &selection)?;
    let mut found = recording.images(topic, &selection);
    let mut import = Import {
        journal: &mut journal,
        pictures: Pictures::new(&images, &name(&recording, topic), args.raw, args.levels),
        alike: args.alike.0,
        start: recording.start(),
    };
    let tally = import.run(&mut found, &progress)?;
    progress.finish_and_clear();

    write_config(out, &recording, topic)?;
    found.warnings().iter().for_each(|warning| warn!("{warning}"));
    let kept = journal.kept().len();
    tally.report(kept, found.passed_over(), &args.every);
    ensure!(kept > 0, "{}: no image of {} could be imported; why is said above", source.display(), topic.name);
    info!("{}: {kept} images of {}, unlabelled", out.display(), topic.name);
    Ok(())
}

/// An import at work.
struct Import<'a> {
    journal: &'a mut Journal,
    pictures: Pictures,
    alike: Option<u32>,
    /// Log time of the recording's first message.
    start: u64,
}

impl Import<'_> {
    /// Imports all images that have not been imported before; returns what was left out.
    fn run(&mut self, found: &mut Images, progress: &ProgressBar) -> anyhow::Result<Tally> {
        self.pictures.reserve(self.journal.kept().iter().map(|kept| kept.file.clone()));
        let mut tally = self.journal.tally();
        let (done, mut position) = (self.journal.position(), 0);
        while let Some(image) = found.next() {
            position += 1;
            if position <= done {
                continue;
            }
            let image = match image {
                Ok(image) => image,
                Err(unreadable) => {
                    tally.unreadable(&unreadable.why);
                    continue;
                }
            };
            progress.set_position(image.log_time.saturating_sub(self.start) / 1_000_000);
            let picture = match self.pictures.open(&image) {
                Ok(picture) => picture,
                Err(why) => {
                    tally.unreadable(&why.to_string());
                    continue;
                }
            };
            let print = picture.fingerprint();
            if self.alike.is_some_and(|most| self.journal.kept().iter().any(|k| distance(&k.print, &print) <= most)) {
                tally.alike += 1;
                continue;
            }
            let file = picture.write()?;
            self.journal.add(Kept { position, file, print, tally: tally.clone() })?;
            progress.set_message(format!("{} images, {} alike", self.journal.kept().len(), tally.alike));
        }
        found.ended()?;
        Ok(tally)
    }
}

/// A bar over the recording's time that is asked for, in milliseconds.
fn progress(recording: &Recording, selection: &Selection) -> anyhow::Result<ProgressBar> {
    let duration = recording.duration() as f64 / 1e9;
    let until = selection.to.map_or(duration, |to| to.min(duration));
    let style = ProgressStyle::with_template("{bar:30} {percent}%, ETA {eta} {msg}")?;
    let bar = ProgressBar::new((until * 1e3) as u64).with_style(style);
    bar.set_position((selection.from.unwrap_or(0.0).min(until) * 1e3) as u64);
    bar.reset_eta();
    Ok(show(bar))
}

/// How the files' names begin: with the topic, or the video's name.
fn name(recording: &Recording, topic: &Topic) -> String {
    let stem = recording.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = if recording.is_video() { stem.unwrap_or_default() } else { topic.name.clone() };
    let plain = |c: char| if c.is_alphanumeric() || c == '-' { c } else { '_' };
    name.trim_matches('/').chars().map(plain).collect()
}

/// Writes a `dataset.toml` for images without labels, unless there is one.
fn write_config(out: &Path, recording: &Recording, topic: &Topic) -> anyhow::Result<()> {
    let path = out.join(CONFIG_FILE);
    if path.exists() {
        return Ok(());
    }
    let folder = fs::canonicalize(out).with_context(|| out.display().to_string())?;
    let name = folder.file_name().map_or_else(|| "recording".into(), |name| name.to_string_lossy().into_owned());
    let origin = recording.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = format!(
        "# Images without labels: soften them with a teacher, or label them and list the labels' classes here.\n\
         name = {}\nclasses = []\nnotes = {}\n",
        toml::Value::String(name),
        toml::Value::String(format!("images of {} in {origin}", topic.name)),
    );
    Ok(write_atomically(&path, text.as_bytes())?)
}
