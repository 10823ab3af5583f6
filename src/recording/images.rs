//! The images of one topic, one after another.

use std::io::Read;
use std::path::{Path, PathBuf};

use peregrine_video::{Codec, Picture, VideoFault};

use crate::decoding::{Decoding, Packet};
use crate::error::RecordingError;
use crate::image::{Content, ImageType, RecordedImage};
use crate::place::Place;
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
/// images.ended()?;
/// images.warnings().iter().for_each(|warning| eprintln!("{warning}"));
/// # Ok::<(), RecordingError>(())
/// ```
pub struct Images<'a> {
    source: Reading<'a>,
    topic: Topic,
    picker: Picker,
    buffer: Vec<u8>,
    /// Log time from which on images are wanted.
    from: u64,
    /// Whether messages that carry a video are decoded.
    decode: bool,
    /// Since the first message that carries a video.
    decoding: Option<Decoding>,
    /// The last picture of it that was wanted.
    shown: Option<(Packet, Picture)>,
    passed_over: u64,
    warnings: Vec<String>,
    failure: Option<RecordingError>,
}

enum Reading<'a> {
    Bag {
        all: &'a [PathBuf],
        files: std::slice::Iter<'a, PathBuf>,
        span: Span,
        open: Option<OpenFile>,
    },
    Video {
        video: &'a Video,
        span: Span,
        frames: Option<Frames>,
    },
    /// Nothing follows.
    Ended,
}

struct OpenFile {
    file: Plain,
    messages: Box<dyn Messages>,
    /// Where its last message lies.
    place: Place,
}

/// What is found next.
enum Found {
    /// A message in the buffer, that is no frame of a video.
    Message(Place),
    /// A picture of a video's file in the buffer: its time, width and height.
    Picture(u64, (u32, u32)),
    /// A picture of a video that messages carry, which is `shown`.
    Decoded(u64),
    /// A message that is no image, or a frame without a picture.
    Unreadable(u64, String),
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
            Source::Files(all) => Reading::Bag { all, files: all.iter(), span, open: None },
            Source::Video(video) => Reading::Video { video, span, frames: None },
        };
        Self {
            source,
            topic: topic.clone(),
            picker: Picker::new(selection.every),
            buffer: vec![],
            from: span.0,
            decode: true,
            decoding: None,
            shown: None,
            passed_over: 0,
            warnings: vec![],
            failure: None,
        }
    }

    /// The next image that is wanted, or what is wrong with it. `None` after the last one, when
    /// [`warnings`](Self::warnings) are complete.
    #[allow(clippy::should_implement_trait, reason = "it lends its buffer, which an iterator cannot")]
    pub fn next(&mut self) -> Option<Result<RecordedImage<'_>, Unreadable>> {
        let found = loop {
            let found = self.advance()?;
            let wanted = match &found {
                Found::Message(Place { log_time, .. }) | Found::Picture(log_time, _) | Found::Decoded(log_time) => {
                    self.picker.picks(*log_time)
                }
                Found::Unreadable(..) => true,
            };
            if wanted {
                break found;
            }
            self.passed_over += 1;
        };
        let topic = &self.topic.name;
        let unreadable = |log_time, why| Unreadable { topic: topic.clone(), log_time, why };
        match found {
            Found::Message(Place { log_time, .. }) => {
                if let Err(why) = unpack(&mut self.buffer) {
                    return Some(Err(unreadable(log_time, why)));
                }
                let read = RecordedImage::read(image_type(&self.topic), log_time, &self.buffer);
                Some(read.map_err(|error| unreadable(log_time, error.to_string())))
            }
            Found::Picture(log_time, (width, height)) => {
                let (encoding, step, data) = ("rgb8".into(), 3 * width, &self.buffer);
                let content = Content::Raw { encoding, big_endian: false, width, height, step, data };
                Some(Ok(RecordedImage { log_time, stamp: log_time, frame_id: "".into(), content }))
            }
            Found::Decoded(log_time) => {
                let (packet, picture) = self.shown.as_ref()?;
                let (stamp, frame_id) = (packet.stamp, packet.frame_id.as_str().into());
                Some(Ok(RecordedImage { log_time, stamp, frame_id, content: Content::Decoded(picture) }))
            }
            Found::Unreadable(log_time, why) => Some(Err(unreadable(log_time, why))),
        }
    }

    /// What is found next: frames of a video when they are decoded.
    fn advance(&mut self) -> Option<Found> {
        loop {
            match self.decoding.as_mut().map(|decoding| decoding.next(&mut self.warnings)).transpose() {
                Ok(Some(Some((packet, result)))) => {
                    let log_time = packet.place.log_time;
                    return Some(match result {
                        Ok(picture) => {
                            self.shown = Some((packet, picture));
                            Found::Decoded(log_time)
                        }
                        Err(why) => Found::Unreadable(log_time, why),
                    });
                }
                Ok(_) => {}
                Err(fault) => {
                    self.fail(fault);
                    return None;
                }
            }
            let found = match self.read() {
                Some(Found::Message(place)) => self.told_apart(place),
                Some(found) => Some(found),
                None if self.decoding.as_mut()?.end(&mut self.warnings) => continue,
                None => return None,
            };
            if found.is_some() {
                return found;
            }
        }
    }

    /// Looks whether the message in the buffer carries a frame of a video, and takes it to be
    /// decoded if so.
    fn told_apart(&mut self, place: Place) -> Option<Found> {
        let (image_type, log_time) = (image_type(&self.topic), place.log_time);
        if !self.decode || image_type == ImageType::Raw {
            return Some(Found::Message(place));
        }
        let read = unpack(&mut self.buffer);
        let read = read.and_then(|()| {
            let read = RecordedImage::read(image_type, log_time, &self.buffer);
            read.map_err(|error| error.to_string())
        });
        let RecordedImage { stamp, frame_id, content, .. } = match read {
            Ok(image) => image,
            Err(why) => {
                self.decoding.iter_mut().for_each(Decoding::lose);
                return (log_time >= self.from).then_some(Found::Unreadable(log_time, why));
            }
        };
        let Content::Compressed { format, data } = content else { return Some(Found::Message(place)) };
        let Some(codec) = Codec::named(format.as_bytes()) else {
            let found = match image_type {
                ImageType::FoxgloveVideo => Found::Unreadable(log_time, unknown(&format)),
                _ => Found::Message(place),
            };
            return (log_time >= self.from).then_some(found);
        };
        let packet = Packet { place, codec, stamp, frame_id: frame_id.into_owned(), data: data.to_vec() };
        match &mut self.decoding {
            Some(decoding) => decoding.push(packet),
            None => {
                let mut decoding = Decoding::new(&self.topic.name, self.from);
                if !self.rewind() {
                    decoding.push(packet);
                }
                self.decoding = Some(decoding);
            }
        }
        None
    }

    /// Begins to read anew, before the time asked for: there lies the key frame from which on a
    /// video can be decoded. `false` if nothing lies there.
    fn rewind(&mut self) -> bool {
        let Reading::Bag { all, files, span, open } = &mut self.source else { return false };
        if span.0 == 0 {
            return false;
        }
        (*files, span.0, *open) = (all.iter(), 0, None);
        self.warnings.clear();
        true
    }

    fn fail(&mut self, fault: VideoFault) {
        let Reading::Bag { open, .. } = &self.source else { return };
        let path = open.as_ref().map(|open| open.file.name().to_owned()).unwrap_or_default();
        self.failure = Some(RecordingError::NoDecoder { path, topic: self.topic.name.clone(), fault });
        (self.source, self.decoding) = (Reading::Ended, None);
    }

    /// Reads the next message or picture into the buffer.
    fn read(&mut self) -> Option<Found> {
        match &mut self.source {
            Reading::Ended => None,
            Reading::Video { video, span, frames } => {
                let next = match frames {
                    Some(frames) => frames.next(&mut self.buffer),
                    None => video.frames(*span).and_then(|opened| frames.insert(opened).next(&mut self.buffer)),
                };
                match next {
                    Ok(Some((time, size))) => Some(Found::Picture(time, size)),
                    Ok(None) => None,
                    Err(error) => {
                        self.source = Reading::Ended;
                        self.warnings.push(error.to_string());
                        None
                    }
                }
            }
            Reading::Bag { files, span, open, .. } => loop {
                let Some(OpenFile { file, messages, place }) = open else {
                    let path = files.next()?;
                    match OpenFile::open(path, &self.topic, *span) {
                        Ok(opened) => *open = Some(opened),
                        Err(error) => self.warnings.push(error.to_string()),
                    }
                    continue;
                };
                match messages.next(&mut self.buffer) {
                    Ok(Some(log_time)) => {
                        (place.number, place.log_time) = (place.number + 1, log_time);
                        return Some(Found::Message(place.clone()));
                    }
                    Ok(None) => {
                        let loss = file.loss.iter().map(|loss| format!("{}: {loss}", file.name().display()));
                        self.warnings.extend(loss);
                        *open = None;
                    }
                    Err(why) => {
                        self.warnings.push(format!("{}: {why}", file.name().display()));
                        self.decoding.iter_mut().for_each(Decoding::lose);
                    }
                }
            },
        }
    }

    /// From here on, messages that carry a video are yielded as they are, without their pictures.
    pub fn stop_decoding(&mut self) {
        self.decode = false;
    }

    /// Whether all was read, after the last image.
    ///
    /// # Errors
    /// When the topic is a video and there is no decoder for it.
    pub fn ended(&mut self) -> Result<(), RecordingError> {
        self.failure.take().map_or(Ok(()), Err)
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

impl OpenFile {
    fn open(path: &Path, topic: &Topic, span: Span) -> Result<Self, RecordingError> {
        let file = Plain::open(path)?;
        let messages = storage::messages(&file, topic, span)?;
        Ok(Self { file, messages, place: Place { file: path.into(), number: 0, log_time: 0 } })
    }
}

fn image_type(topic: &Topic) -> ImageType {
    topic.image_type().unwrap_or(ImageType::Raw)
}

fn unknown(format: &str) -> String {
    format!("the video's format is {format:?}; h264 and h265 are read")
}

/// Decompresses a message that was compressed by itself.
fn unpack(message: &mut Vec<u8>) -> Result<(), String> {
    // The four bytes that begin a message are no zstd frame's.
    if !message.starts_with(&zstd::MAGIC) {
        return Ok(());
    }
    let mut out = Vec::new();
    let read = Zstd::new(&message[..]).take(MAX_MESSAGE + 1).read_to_end(&mut out);
    read.map_err(|error| format!("it cannot be decompressed: {error}"))?;
    if out.len() as u64 > MAX_MESSAGE {
        return Err(format!("decompressed it would have more than {MAX_MESSAGE} bytes"));
    }
    *message = out;
    Ok(())
}
