//! The images that the simulated camera sends, decoded before the measurement.

use std::fs;
use std::path::{Path, PathBuf};

use peregrine_core::{Encoding, ImageView};
use peregrine_vision::preprocess::rgb::to_rgb8;
use peregrine_vision::preprocess::{CompressedError, Decompressor};

/// Most images that are kept in memory.
const MAX_IMAGES: usize = 64;

/// Images of one size, as a camera sends them.
#[derive(Debug, Clone)]
pub struct Frames {
    pub width: usize,
    pub height: usize,
    /// Where they come from, as a phrase for the report.
    pub origin: String,
    /// When the images were recorded: nanoseconds in ascending order, also of those that are not
    /// kept. Empty where nothing says it.
    pub times: Vec<u64>,
    images: Vec<(Encoding, Vec<u8>)>,
}

/// Why images cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FramesError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Image { path: PathBuf, source: CompressedError },
    #[error("{path}: there is no .jpg, .jpeg or .png file in this folder")]
    NoImages { path: PathBuf },
    #[error(transparent)]
    Recording(#[from] peregrine_recording::RecordingError),
    #[error("{path}: no image of {topic} can be used{first}")]
    NoneRecorded { path: PathBuf, topic: String, first: String },
}

impl Frames {
    /// The frames that come with the source, from the working directory or where the program was
    /// built; otherwise a synthetic image of 1280 × 720.
    pub fn shipped_or_synthetic() -> Self {
        let built_at = Path::new(env!("CARGO_MANIFEST_DIR"));
        [Path::new("models/frames"), &built_at.join("../../models/frames")]
            .into_iter()
            .find_map(|folder| Self::load(folder).ok())
            .unwrap_or_else(|| Self::synthetic(1280, 720))
    }

    /// The images in `folder`, in the order of their names. A camera has one size: only images of
    /// the most frequent size are used.
    ///
    /// # Errors
    /// If the folder or an image cannot be read, or there is no image.
    pub fn load(folder: &Path) -> Result<Self, FramesError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| FramesError::Io { path, source }
        };
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(at(folder))? {
            paths.push(entry.map_err(at(folder))?.path());
        }
        paths.retain(|path| is_image(path));
        paths.sort();
        let mut decompressor = Decompressor::new();
        let mut images = Vec::new();
        for path in paths {
            let bytes = fs::read(&path).map_err(at(&path))?;
            let view = decompressor.decode(&bytes).map_err(|source| FramesError::Image { path, source })?;
            images.push((view.size(), view.encoding(), view.rows().flatten().copied().collect()));
        }
        let of_size = |size| images.iter().filter(|(s, ..)| *s == size).count();
        let most_frequent = images.iter().map(|(size, ..)| *size).max_by_key(|&size| (of_size(size), size));
        let Some((width, height)) = most_frequent else {
            return Err(FramesError::NoImages { path: folder.into() });
        };
        let found = images.len();
        images.retain(|(size, ..)| *size == (width, height));
        images.truncate(MAX_IMAGES);
        let origin = format!("{} of {found} images in {}, {width}x{height}", images.len(), folder.display());
        let images = images.into_iter().map(|(_, encoding, data)| (encoding, data)).collect();
        Ok(Self { width, height, origin, times: vec![], images })
    }

    /// Images that were recorded at `times`, all of one size.
    pub(crate) fn recorded(
        (width, height): (usize, usize),
        origin: String,
        times: Vec<u64>,
        images: Vec<(Encoding, Vec<u8>)>,
    ) -> Self {
        Self { width, height, origin, times, images }
    }

    /// The same images at another size: scaled to fill it, cropped where the aspect ratio differs,
    /// as rgb8.
    pub fn resized(&self, width: usize, height: usize) -> Self {
        let resize = |index| {
            let view = self.image(index);
            let mut pixels = Vec::new();
            to_rgb8(&view, &mut pixels);
            let picture = image::RgbImage::from_raw(view.width() as u32, view.height() as u32, pixels);
            let picture = image::DynamicImage::ImageRgb8(picture.expect("of its size"));
            let filter = image::imageops::FilterType::Triangle;
            let resized = picture.resize_to_fill(width as u32, height as u32, filter).into_rgb8();
            (Encoding::Rgb8, resized.into_raw())
        };
        let images = (0..self.images.len()).map(resize).collect();
        let (origin, times) = (format!("{}, as {width}x{height}", self.origin), self.times.clone());
        Self { width, height, origin, times, images }
    }

    /// Number of different images.
    pub fn count(&self) -> usize {
        self.images.len()
    }

    /// A synthetic image of smooth gradients and hard edges, always the same.
    pub fn synthetic(width: usize, height: usize) -> Self {
        let pixel = |i: usize| {
            let (x, y) = (i % width, i / width);
            let block = if (x / 40 + y / 30) % 5 == 0 { 120 } else { 0 };
            [(x * 255 / width) as u8, (y * 255 / height) as u8, block]
        };
        let data = (0..width * height).flat_map(pixel).collect();
        let origin =
            format!("a synthetic image, {width}x{height}, since no frames were found; give some with --images");
        Self { width, height, origin, times: vec![], images: vec![(Encoding::Rgb8, data)] }
    }

    /// The image of frame `index`; images repeat in order.
    pub fn image(&self, index: usize) -> ImageView<'_> {
        let (encoding, data) = &self.images[index % self.images.len()];
        let step = encoding.row_bytes(self.width);
        ImageView::with_encoding(*encoding, self.width as u32, self.height as u32, step as u32, data)
            .expect("stored as decoded")
    }
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, width: u32, height: u32) {
        image::RgbImage::new(width, height).save(folder.join(name)).unwrap();
    }

    #[test]
    fn images_of_the_most_frequent_size_repeat_in_order() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "b.png", 40, 30);
        write(folder.path(), "a.PNG", 40, 30);
        write(folder.path(), "c.png", 50, 30);
        fs::write(folder.path().join("notes.txt"), "no image").unwrap();
        let frames = Frames::load(folder.path()).unwrap();
        assert_eq!((frames.width, frames.height, frames.images.len()), (40, 30, 2));
        assert!(frames.origin.starts_with("2 of 3 images"));
        assert_eq!(frames.image(5).size(), (40, 30));
    }

    #[test]
    fn resized_images_have_the_size_asked_for() {
        let frames = Frames::synthetic(64, 36).resized(40, 30);
        assert_eq!((frames.image(0).size(), frames.image(0).encoding()), ((40, 30), Encoding::Rgb8));
    }

    #[test]
    fn a_damaged_image_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("bad.jpg"), "no image").unwrap();
        assert!(Frames::load(folder.path()).unwrap_err().to_string().contains("bad.jpg"));
    }

    #[test]
    fn an_empty_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Frames::load(folder.path()), Err(FramesError::NoImages { .. })));
    }

    #[test]
    fn the_synthetic_image_has_the_size_asked_for() {
        assert_eq!(Frames::synthetic(31, 17).image(3).size(), (31, 17));
    }
}
