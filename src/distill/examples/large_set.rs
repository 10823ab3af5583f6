//! Makes a data set of many images of 1280×720 pixels, to measure how a training holds out with a
//! set that does not fit into memory:
//!
//! ```sh
//! cargo run --release -p peregrine-distill --example large_set -- target/large --images 50000
//! ```
//!
//! The first few hundred images are crops of `models/frames`, the others are hard links to them: on
//! disk the set is small, but to a training each path is an image of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};
use clap::Parser;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{crop_imm, resize, FilterType};
use image::RgbImage;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIZE: (u32, u32) = (1280, 720);
const CLASSES: [&str; 3] = ["car", "person", "bicycle"];

#[derive(Debug, Parser)]
struct Args {
    /// Folder of the set; must not exist.
    folder: PathBuf,
    /// Images in all.
    #[arg(long, default_value_t = 50_000)]
    images: usize,
    /// Images that are not links.
    #[arg(long, default_value_t = 300)]
    distinct: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(!args.folder.exists(), "{}: exists already; name another folder", args.folder.display());
    for part in ["images", "labels"] {
        fs::create_dir_all(args.folder.join(part)).with_context(|| args.folder.display().to_string())?;
    }
    fs::write(args.folder.join("dataset.toml"), format!("name = \"large\"\nclasses = {CLASSES:?}\n"))?;
    let frames = frames()?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for i in 0..args.images {
        let image = path(&args.folder, "images", i, "jpg");
        if i < args.distinct {
            let picture = picture(&frames[i % frames.len()], &mut rng);
            picture.write_with_encoder(JpegEncoder::new_with_quality(fs::File::create(&image)?, 88))?;
        } else {
            fs::hard_link(path(&args.folder, "images", i % args.distinct, "jpg"), &image)?;
        }
        fs::write(path(&args.folder, "labels", i, "txt"), labels(&mut rng))?;
    }
    println!("{}: {} images, {} of them distinct", args.folder.display(), args.images, args.distinct);
    Ok(())
}

fn path(folder: &Path, part: &str, image: usize, extension: &str) -> PathBuf {
    folder.join(part).join(format!("{image:06}.{extension}"))
}

fn frames() -> anyhow::Result<Vec<RgbImage>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/frames");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    paths.sort();
    paths.iter().map(|path| Ok(image::open(path).with_context(|| path.display().to_string())?.into_rgb8())).collect()
}

/// A random part of a frame.
fn picture(frame: &RgbImage, rng: &mut ChaCha8Rng) -> RgbImage {
    let share = rng.random_range(0.5..1.0);
    let (width, height) = frame.dimensions();
    let (w, h) = ((width as f32 * share) as u32, (height as f32 * share) as u32);
    let (x, y) = (rng.random_range(0..=width - w), rng.random_range(0..=height - h));
    resize(&*crop_imm(frame, x, y, w, h), SIZE.0, SIZE.1, FilterType::Triangle)
}

/// One to eight boxes.
fn labels(rng: &mut ChaCha8Rng) -> String {
    let boxes = rng.random_range(1..=8);
    let mut line = |_| {
        let class = rng.random_range(0..CLASSES.len());
        let (w, h) = (rng.random_range(0.02..0.3), rng.random_range(0.02..0.4));
        let (x, y) = (rng.random_range(w / 2.0..1.0 - w / 2.0), rng.random_range(h / 2.0..1.0 - h / 2.0));
        format!("{class} {x:.5} {y:.5} {w:.5} {h:.5}\n")
    };
    (0..boxes).map(&mut line).collect()
}
