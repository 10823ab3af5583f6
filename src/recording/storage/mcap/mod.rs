//! MCAP files (mcap.dev/spec), with an index or without, whole or cut short.
//!
//! - [`records`]: records one by one. [`fields`]: what they hold. [`channels`]: who sends messages.
//!   [`summary`]: the index.
//! - [`walk`]: the messages of a file in the order in which they lie there.

mod channels;
mod fields;
mod records;
mod summary;
mod walk;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Contents, Messages, OpenError, Span, MAX_MESSAGE};
use crate::topic::Topic;
use fields::MAGIC;
use summary::Summary;
use walk::{Places, Walk};

/// Opens a file and finds its summary.
fn open(path: &Path) -> Result<(File, Option<Summary>), OpenError> {
    let mut file = File::open(path)?;
    let mut magic = [0; MAGIC.len()];
    if file.read_exact(&mut magic).is_err() || &magic != MAGIC {
        return Err(OpenError::Invalid("is no MCAP file: it does not begin as one".into()));
    }
    let length = file.metadata()?.len();
    let summary = Summary::read(&mut file, length).filter(Summary::is_index);
    Ok((file, summary))
}

/// What the file says in its summary, or, if it has none, what is found in it.
pub fn contents(path: &Path) -> Result<Contents, OpenError> {
    let (file, summary) = open(path)?;
    if let Some(Summary { channels, statistics: Some(statistics), .. }) = &summary {
        let topics = channels.topics(Some(&statistics.by_channel));
        let span = Some(statistics.span).filter(|(first, last)| statistics.messages > 0 && first <= last);
        return Ok(Contents { topics, span, warnings: vec![] });
    }
    let mut found = Contents::default();
    if summary.is_none() {
        found.warnings.push("has no index, as if its recorder was stopped: it is read from end to end".into());
    }
    let mut counts = BTreeMap::new();
    let mut walk = Walk::new(file, path, Places::of(summary.as_ref(), |_| true))?;
    loop {
        match walk.next() {
            Ok(Some(message)) => {
                found.include(message.log_time);
                *counts.entry(message.channel).or_default() += 1;
            }
            Ok(None) => break,
            Err(why) => found.warnings.push(why),
        }
    }
    found.topics = walk.channels().topics(Some(&counts));
    Ok(found)
}

/// The messages of `topic`.
pub fn messages(path: &Path, topic: &Topic, span: Span) -> Result<Box<dyn Messages>, OpenError> {
    let (file, summary) = open(path)?;
    let places = Places::of(summary.as_ref(), |chunk| {
        let of = |summary: &Summary| chunk.channels.keys().any(|&channel| summary.channels.is_of(channel, topic));
        // A chunk without an index may hold anything.
        (chunk.span.0 <= span.1 && chunk.span.1 >= span.0)
            && (chunk.channels.is_empty() || summary.as_ref().is_some_and(of))
    });
    let mut walk = Walk::new(file, path, places)?;
    if let Some(summary) = summary {
        walk.adopt(summary.channels);
    }
    Ok(Box::new(OfTopic { walk, topic: topic.clone(), span }))
}

struct OfTopic {
    walk: Walk,
    topic: Topic,
    span: Span,
}

impl Messages for OfTopic {
    fn next(&mut self, data: &mut Vec<u8>) -> Result<Option<u64>, String> {
        while let Some(message) = self.walk.next()? {
            let wanted = (self.span.0..=self.span.1).contains(&message.log_time)
                && self.walk.channels().is_of(message.channel, &self.topic);
            if wanted {
                self.walk.data(MAX_MESSAGE, data)?;
                return Ok(Some(message.log_time));
            }
        }
        Ok(None)
    }
}
