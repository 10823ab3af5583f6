//! The images of a bag or a video, as the simulated camera sends them.

use std::path::Path;

use peregrine_core::Encoding;
use peregrine_recording::{Content, LevelOptions, Recording, Selection};
use peregrine_vision::preprocess::levels::LevelWatch;
use peregrine_vision::preprocess::Decompressor;

use super::frames::{Frames, FramesError};

/// Most bytes of decoded images that are kept in memory.
const MAX_BYTES: usize = 1 << 30;

/// The images of `topic` in a recording, decoded, as many as `MAX_BYTES` hold; and the times of
/// all. A camera has one size: images of another than the first's are left out.
///
/// # Errors
/// If the recording cannot be read, the topic is not there, or no image of it can be used.
pub fn load(path: &Path, topic: Option<&str>, levels: LevelOptions) -> Result<Frames, FramesError> {
    let recording = Recording::open(path)?;
    let topic = recording.image_topic(topic)?;
    let mut found = recording.images(topic, &Selection::default());
    let (mut decompressor, mut images, mut times) = (Decompressor::new(), Vec::new(), Vec::new());
    let mut watch = LevelWatch::default();
    let (mut size, mut bytes, mut left_out, mut first) = (None, 0, 0, String::new());
    while let Some(image) = found.next() {
        if bytes >= MAX_BYTES {
            times.extend(image.ok().map(|image| image.log_time));
            continue;
        }
        let read = image.map_err(|unreadable| unreadable.to_string());
        let read = read.and_then(|image| {
            let view = image.view(&mut decompressor, levels.into()).map_err(|error| error.to_string())?;
            // A video says itself of what range its values are.
            if !matches!(image.content, Content::Decoded(_)) {
                watch.look_closely(&view);
            }
            let size = *size.get_or_insert(view.size());
            if view.size() != size {
                return Err(format!("its size is another than {}x{}", size.0, size.1));
            }
            let pixels: Vec<u8> = view.rows().flatten().copied().collect();
            Ok((image.log_time, view.encoding(), pixels))
        });
        match read {
            Ok((time, encoding, pixels)) => {
                bytes += pixels.len();
                times.push(time);
                images.push((encoding, pixels));
                if bytes >= MAX_BYTES {
                    found.stop_decoding();
                }
            }
            Err(why) => {
                left_out += 1;
                first = if first.is_empty() { format!(": {why}") } else { first };
            }
        }
    }
    found.ended()?;
    let warnings = recording.warnings().iter().chain(found.warnings());
    warnings.for_each(|warning| tracing::warn!("{warning}"));
    if let Some(doubt) = watch.doubt() {
        tracing::warn!("{}: {doubt}; if so, give {}", path.display(), doubt.option());
    }
    if left_out > 0 {
        tracing::warn!("{}: {left_out} images are left out{first}", path.display());
    }
    let Some(size) = size else {
        return Err(FramesError::NoneRecorded { path: path.to_owned(), topic: topic.name.clone(), first });
    };
    times.sort_unstable();
    Ok(frames(&recording, &topic.name, size, times, images))
}

/// When an image was taken and when it was recorded, nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamped {
    /// Of its header, or `log_time` where it has none.
    pub stamp: u64,
    pub log_time: u64,
}

impl Stamped {
    /// Seconds from the one to the other; negative if it was recorded before its stamp.
    pub fn delay_s(&self) -> f64 {
        (i128::from(self.log_time) - i128::from(self.stamp)) as f64 / 1e9
    }
}

/// The times of all images of `topic`, in the order of the recording, without decoding any. Images that cannot be
/// read are left out.
///
/// # Errors
/// If the recording cannot be read, or the topic is not there.
pub fn stamps(path: &Path, topic: Option<&str>) -> Result<Vec<Stamped>, FramesError> {
    let recording = Recording::open(path)?;
    let mut images = recording.images(recording.image_topic(topic)?, &Selection::default());
    images.stop_decoding();
    let mut found = Vec::new();
    while let Some(image) = images.next() {
        found.extend(image.ok().map(|image| Stamped { stamp: image.stamp, log_time: image.log_time }));
    }
    images.ended()?;
    Ok(found)
}

fn frames(
    recording: &Recording,
    topic: &str,
    size: (usize, usize),
    times: Vec<u64>,
    images: Vec<(Encoding, Vec<u8>)>,
) -> Frames {
    let (kept, all, path) = (images.len(), times.len(), recording.path().display());
    let origin = format!("{kept} of {all} images of {topic} in {path}, {}x{}", size.0, size.1);
    Frames::recorded(size, origin, times, images)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bag(name: &str) -> std::path::PathBuf {
        peregrine_support::root().join("tests/reference/bags").join(name)
    }

    #[test]
    fn a_bag_gives_its_images_and_their_times() {
        let frames = load(&bag("mcap_raw"), None, LevelOptions::default()).unwrap();
        assert_eq!((frames.width, frames.height, frames.count()), (8, 6, 5));
        assert_eq!(frames.image(3).row(0)[0], 120);
        assert_eq!(frames.times.len(), 5);
        assert_eq!(frames.times[1] - frames.times[0], 100_000_000);
        assert!(frames.origin.starts_with("5 of 5 images of /camera in "), "{}", frames.origin);
    }

    #[test]
    fn the_stamps_of_a_bag_stand_beside_the_times_of_its_recorder() {
        let found = stamps(&bag("mcap_raw"), None).unwrap();
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|frame| frame.delay_s().abs() < 1.0), "{found:?}");
        assert_eq!(Stamped { stamp: 3_000_000_000, log_time: 1_000_000_000 }.delay_s(), -2.0);
    }

    #[test]
    fn images_keep_the_levels_that_were_given() {
        let levels = LevelOptions { white_level: 4095.try_into().unwrap(), ..LevelOptions::default() };
        let frames = load(&bag("mcap_levels"), None, levels).unwrap();
        let found: Vec<_> = (0..2).map(|i| frames.image(i).encoding().channel16().unwrap()).collect();
        assert_eq!(found.iter().map(|channel| channel.white.get()).collect::<Vec<_>>(), [4095; 2]);
        assert_eq!(found.iter().map(|channel| channel.big_endian).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_topic_that_is_not_there_is_answered_with_those_that_are() {
        let error = load(&bag("mcap_raw"), Some("/front"), LevelOptions::default()).unwrap_err().to_string();
        assert!(error.contains("its image topics are: /camera"), "{error}");
    }
}
