//! The images of one topic, one after another.

use std::io::Read;
use std::path::PathBuf;

use crate::image::{Content, ImageType, RecordedImage};
use crate::recording::Source;
use crate::selection::{Picker, Selection};
use crate::storage::{self, Messages, Plain, Span, MAX_MESSAGE};
use crate::topic::Topic;
use crate::video::{Frames, Video};
use crate::zstd::{self, Zstd};

/// The images of one topic in the order in which they were recorded, borrowed from a buffer that
/// each next one overwrites.
///
/// ```no_run
/// # use std::path::Path;
/// # use peregrine_recording::{Recording, RecordingError, Selection};
/// let recording = Recording::open(Path::new("drive.mcap"))?;
/// let topic = recording.image_topic(None)?;
/// let mut images = recording.images(topic, &Selection::default());
/// while let Some(image) = images.next() {
///     match image {
///         Ok(image) => println!("{} {:?}", image.stamp, image.content),
///         Err(unreadable) => eprintln!("{unreadable}"),
///     }
/// }
/// images.warnings().iter().for_each(|warning| eprintln!("{warning}"));
/// # Ok::<(), RecordingError>(())
/// ```
pub struct Images<'a> {
    source: Reading<'a>,
    topic: Topic,
    picker: Picker,
    buffer: Vec<u8>,
    passed_over: u64,
    warnings: Vec<String>,
}

enum Reading<'a> {
    Bag { files: std::slice::Iter<'a, PathBuf>, span: Span, open: Option<(Plain, Box<dyn Messages>)> },
    Video { video: &'a Video, span: Span, frames: Option<Frames>, ended: bool },
}

/// A message that is no image.
#[derive(Debug, thiserror::Error)]
#[error("{topic} at {log_time} ns: {why}")]
pub struct Unreadable {
    /// Its topic.
    pub topic: String,
    /// Nanoseconds since 1970.
    pub log_time: u64,
    /// What is wrong with it.
    pub why: String,
}

impl<'a> Images<'a> {
    pub(crate) fn new(source: &'a Source, topic: &Topic, selection: &Selection, start: u64) -> Self {
        let span = selection.span(start);
        let source = match source {
            Source::Files(files) => Reading::Bag { files: files.iter(), span, open: None },
            Source::Video(video) => Reading::Video { video, span, frames: None, ended: false },
        };
        let picker = Picker::new(selection.every);
        Self { source, topic: topic.clone(), picker, buffer: vec![], passed_over: 0, warnings: vec![] }
    }

    /// The next image that is wanted, or what is wrong with it. `None` after the last one, when
    /// [`warnings`](Self::warnings) are complete.
    #[allow(clippy::should_implement_trait, reason = "it lends its buffer, which an iterator cannot")]
    pub fn next(&mut self) -> Option<Result<RecordedImage<'_>, Unreadable>> {
        let (log_time, size) = loop {
            let found = self.advance()?;
            if self.picker.picks(found.0) {
                break found;
            }
            self.passed_over += 1;
        };
        if let Some((width, height)) = size {
            let (encoding, step, data) = ("rgb8".into(), 3 * width, &self.buffer);
            let content = Content::Raw { encoding, big_endian: false, width, height, step, data };
            return Some(Ok(RecordedImage { log_time, stamp: log_time, frame_id: "".into(), content }));
        }
        let unreadable = |why: String| Unreadable { topic: self.topic.name.clone(), log_time, why };
        let image_type = self.topic.image_type().unwrap_or(ImageType::Raw);
        // The four bytes that begin a message are no zstd frame's.
        if self.buffer.starts_with(&zstd::MAGIC) {
            match unpack(&self.buffer) {
                Ok(message) => self.buffer = message,
                Err(why) => return Some(Err(unreadable(why))),
            }
        }
        Some(RecordedImage::read(image_type, log_time, &self.buffer).map_err(|error| unreadable(error.to_string())))
    }

    /// Reads the next message or picture into the buffer: its log time, and the size of a picture.
    fn advance(&mut self) -> Option<(u64, Option<(u32, u32)>)> {
        match &mut self.source {
            Reading::Video { ended: true, .. } => None,
            Reading::Video { video, span, frames, ended } => {
                let next = match frames {
                    Some(frames) => frames.next(&mut self.buffer),
                    None => video.frames(*span).and_then(|opened| frames.insert(opened).next(&mut self.buffer)),
                };
                match next {
                    Ok(Some((time, size))) => Some((time, Some(size))),
                    Ok(None) => None,
                    Err(error) => {
                        *ended = true;
                        self.warnings.push(error.to_string());
                        None
                    }
                }
            }
            Reading::Bag { files, span, open } => loop {
                let Some((file, messages)) = open else {
                    let path = files.next()?;
                    let opened = Plain::open(path).and_then(|file| {
                        let messages = storage::messages(&file, &self.topic, *span)?;
                        Ok((file, messages))
                    });
                    match opened {
                        Ok(opened) => *open = Some(opened),
                        Err(error) => self.warnings.push(error.to_string()),
                    }
                    continue;
                };
                match messages.next(&mut self.buffer) {
                    Ok(Some(log_time)) => return Some((log_time, None)),
                    Ok(None) => {
                        let loss = file.loss.iter().map(|loss| format!("{}: {loss}", file.name().display()));
                        self.warnings.extend(loss);
                        *open = None;
                    }
                    Err(why) => self.warnings.push(format!("{}: {why}", file.name().display())),
                }
            },
        }
    }

    /// Images within the time asked for that were passed over since fewer are wanted.
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// What could not be read so far: sentences that name the file.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// A message that was compressed by itself.
fn unpack(message: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let read = Zstd::new(message).take(MAX_MESSAGE + 1).read_to_end(&mut out);
    read.map_err(|error| format!("it cannot be decompressed: {error}"))?;
    if out.len() as u64 > MAX_MESSAGE {
        return Err(format!("decompressed it would have more than {MAX_MESSAGE} bytes"));
    }
    Ok(out)
}
