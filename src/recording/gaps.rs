//! Frames of a video that have no picture: each run of them is named once, by the message that it
//! begins with.

use peregrine_video::{Codec, VideoFault};

use crate::place::Place;

/// Most runs that are named by a sentence each.
const MAX_SENTENCES: u64 = 20;

/// What is known of a topic's frames without pictures.
#[derive(Debug)]
pub struct Gaps {
    topic: String,
    run: Option<Run>,
    /// Whether there has been a picture.
    shown: bool,
    /// Runs so far, and the frames of those that have no sentence.
    runs: u64,
    unnamed: u64,
    last_file: String,
}

/// Frames one behind the other.
#[derive(Debug)]
struct Run {
    place: Place,
    /// The first one's.
    fault: VideoFault,
    why: String,
    frames: u64,
}

impl Gaps {
    pub fn new(topic: &str) -> Self {
        Self { topic: topic.to_owned(), run: None, shown: false, runs: 0, unnamed: 0, last_file: String::new() }
    }

    /// A frame before the time asked for.
    pub fn pass<T>(&mut self, result: &Result<T, VideoFault>) {
        self.shown |= result.is_ok();
    }

    /// Takes notice of the topic's next frame. An error as a sentence that is the same for all
    /// frames without a picture for that reason.
    pub fn tell<T>(
        &mut self,
        place: &Place,
        codec: Codec,
        result: Result<T, VideoFault>,
        warnings: &mut Vec<String>,
    ) -> Result<T, String> {
        let fault = match result {
            Ok(picture) => {
                self.shown = true;
                self.close(warnings, ", up to the next key frame");
                return Ok(picture);
            }
            Err(fault) => fault,
        };
        let why = match fault {
            VideoFault::NoKeyFrame if self.begins() => {
                format!("{} cannot be decoded before its first key frame", codec.name())
            }
            VideoFault::NoKeyFrame => {
                format!("{} cannot be decoded behind damage or a lost message, before the next key frame", codec.name())
            }
            fault => fault.to_string(),
        };
        match &mut self.run {
            Some(run) => run.frames += 1,
            // Parameters alone, which belong to the frame that follows.
            None if fault == VideoFault::NoPicture => {}
            None => self.run = Some(Run { place: place.clone(), fault, why: why.clone(), frames: 1 }),
        }
        Err(why)
    }

    /// Whether no key frame has come, not even a damaged one.
    fn begins(&self) -> bool {
        !self.shown && self.run.as_ref().is_none_or(|run| run.fault == VideoFault::NoKeyFrame)
    }

    /// The topic ends.
    pub fn end(&mut self, warnings: &mut Vec<String>) {
        self.close(warnings, ", up to the end");
        if self.unnamed > 0 {
            let more = self.runs - MAX_SENTENCES;
            warnings.push(format!(
                "{}: {}: at {more} further places {} frames of the video are skipped",
                self.last_file, self.topic, self.unnamed
            ));
            self.unnamed = 0;
        }
    }

    fn close(&mut self, warnings: &mut Vec<String>, until: &str) {
        let Some(Run { place, fault, why, frames }) = self.run.take() else { return };
        let until = if fault == VideoFault::NoKeyFrame { "" } else { until };
        self.runs += 1;
        self.last_file = place.file.display().to_string();
        if self.runs > MAX_SENTENCES {
            self.unnamed += frames;
            return;
        }
        let frames = if frames == 1 { "1 frame is".to_owned() } else { format!("{frames} frames are") };
        warnings.push(format!("{}: {}: {place}: {why}; {frames} skipped{until}", self.last_file, self.topic));
    }
}
