//! One recorded image as a file.

use std::collections::HashSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, RgbImage};
use peregrine_core::files::write_atomically;
use peregrine_recording::{Content, LevelOptions, PixelError, RecordedImage};
use peregrine_vision::preprocess::levels::{LevelDoubt, LevelWatch};
use peregrine_vision::preprocess::rgb::to_rgb8;
use peregrine_vision::preprocess::Decompressor;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::inspect::{fingerprint, Fingerprint};

/// Quality of JPEGs that are made here, of 100.
const QUALITY: u8 = 95;

/// How images are written that are not compressed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawFormat {
    Png,
    Jpeg,
}

/// Writes images into a folder, each under a name of its own.
pub struct Pictures {
    folder: PathBuf,
    /// How names begin.
    name: String,
    raw: RawFormat,
    levels: LevelOptions,
    watch: LevelWatch,
    /// What has been said of the levels.
    doubted: Option<LevelDoubt>,
    decompressor: Decompressor,
    used: HashSet<String>,
}

/// A decoded image that has not been written yet.
pub struct Picture<'p, 'i> {
    pictures: &'p mut Pictures,
    image: &'i RecordedImage<'i>,
    pixels: RgbImage,
}

impl Pictures {
    pub fn new(folder: &Path, name: &str, raw: RawFormat, levels: LevelOptions) -> Self {
        Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            raw,
            levels,
            watch: LevelWatch::default(),
            doubted: None,
            decompressor: Decompressor::new(),
            used: HashSet::new(),
        }
    }

    /// Keeps names that have been given out before.
    pub fn reserve(&mut self, names: impl Iterator<Item = String>) {
        self.used.extend(names);
    }

    /// Decodes an image.
    ///
    /// # Errors
    /// When it is damaged, or its encoding is not supported.
    pub fn open<'p, 'i>(&'p mut self, image: &'i RecordedImage<'i>) -> Result<Picture<'p, 'i>, PixelError> {
        let view = image.view(&mut self.decompressor, self.levels.into())?;
        // A video says itself of what range its values are.
        if !matches!(image.content, Content::Decoded(_)) {
            self.watch.look_closely(&view);
        }
        let (width, height) = (view.width() as u32, view.height() as u32);
        let mut pixels = Vec::new();
        to_rgb8(&view, &mut pixels);
        let pixels = RgbImage::from_raw(width, height, pixels).expect("of its size");
        self.warn_of_levels();
        Ok(Picture { pictures: self, image, pixels })
    }

    /// Says once that the levels hardly fit what has been seen.
    fn warn_of_levels(&mut self) {
        let doubt = self.watch.doubt();
        if let Some(found) = doubt.filter(|_| doubt != self.doubted) {
            warn!("{found}; if so, import into another --out with {}", found.option());
            self.doubted = doubt;
        }
    }

    /// A file name that has not been given out: the stamp in nanoseconds, and a number behind where
    /// a camera stamps several images alike.
    fn name(&mut self, stamp: u64, extension: &str) -> String {
        let mut names = (1u64..).map(|number| match number {
            1 => format!("{}_{stamp:019}.{extension}", self.name),
            _ => format!("{}_{stamp:019}-{number}.{extension}", self.name),
        });
        let name = names.find(|name| !self.used.contains(name)).expect("there are names without end");
        self.used.insert(name.clone());
        name
    }
}

impl Picture<'_, '_> {
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.pixels)
    }

    /// Writes it, and returns the file's name: a compressed image as it is, another as asked for.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(self) -> anyhow::Result<String> {
        let Self { pictures, image, pixels } = self;
        let mut encoded = Vec::new();
        let (bytes, extension) = match &image.content {
            Content::Compressed { data, .. } if data.starts_with(&[0xff, 0xd8]) => (*data, "jpg"),
            Content::Compressed { data, .. } => (*data, "png"),
            Content::Raw { .. } | Content::Decoded(_) if pictures.raw == RawFormat::Jpeg => {
                pixels.write_with_encoder(JpegEncoder::new_with_quality(&mut encoded, QUALITY))?;
                (&encoded[..], "jpg")
            }
            Content::Raw { .. } | Content::Decoded(_) => {
                pixels.write_to(&mut Cursor::new(&mut encoded), ImageFormat::Png)?;
                (&encoded[..], "png")
            }
        };
        let name = pictures.name(image.stamp, extension);
        write_atomically(&pictures.folder.join(&name), bytes)?;
        Ok(name)
    }
}
