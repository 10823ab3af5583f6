//! Reading whole recordings.

use std::path::{Path, PathBuf};

use peregrine_core::encoding::Levels;
use peregrine_recording::{Recording, Selection};
use peregrine_vision::preprocess::rgb::to_rgb8;
use peregrine_vision::preprocess::Decompressor;

/// A bag of tests/reference/bags.
pub fn bag(name: &str) -> PathBuf {
    peregrine_support::root().join("tests/reference/bags").join(name)
}

/// What was read of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    pub log_time: u64,
    pub stamp: u64,
    pub frame_id: String,
    /// Width, height, and the colour of the first pixel if all are the same; or why there is none.
    pub pixels: Result<(usize, usize, [u8; 3]), String>,
}

/// All images of the only image topic, and all warnings.
pub fn read(recording: &Recording, selection: &Selection) -> (Vec<Read>, Vec<String>) {
    read_with(recording, selection, Levels::default())
}

/// The same, of images whose values are of these levels.
pub fn read_with(recording: &Recording, selection: &Selection, levels: Levels) -> (Vec<Read>, Vec<String>) {
    let topic = recording.image_topic(None).unwrap();
    let mut images = recording.images(topic, selection);
    let (mut found, mut decompressor) = (Vec::new(), Decompressor::new());
    while let Some(image) = images.next() {
        let Ok(image) = image else { continue };
        let pixels = image.view(&mut decompressor, levels).map_err(|error| error.to_string()).map(|view| {
            let mut rgb = Vec::new();
            to_rgb8(&view, &mut rgb);
            let first = [rgb[0], rgb[1], rgb[2]];
            assert!(rgb.chunks_exact(3).all(|pixel| pixel == first), "the bags' pictures have one colour");
            (view.width(), view.height(), first)
        });
        let (log_time, stamp, frame_id) = (image.log_time, image.stamp, image.frame_id.to_string());
        found.push(Read { log_time, stamp, frame_id, pixels });
    }
    let warnings = recording.warnings().iter().chain(images.warnings()).cloned().collect();
    (found, warnings)
}

/// The same of a path, all images.
pub fn read_all(path: &Path) -> (Vec<Read>, Vec<String>) {
    read(&Recording::open(path).unwrap(), &Selection::default())
}

/// What every bag of [`bag`] holds, but for its pixels.
pub fn expected(index: u64) -> Read {
    let log_time = 1_000_000_000_000 + index * 100_000_000;
    let grey = 40 * index as u8;
    Read { log_time, stamp: log_time - 20_000_000, frame_id: "front".into(), pixels: Ok((8, 6, [grey; 3])) }
}
