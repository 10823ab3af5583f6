//! The last seconds of all messages, bounded in time and in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use super::messages::Channel;
use crate::clock::Nanoseconds;

/// A message as it will be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub channel: Channel,
    /// When it was received or published, in ROS time.
    pub log_time: Nanoseconds,
    /// Number among those of its frame's camera; 0 for those of no camera.
    pub sequence: u64,
    /// In CDR.
    pub data: Arc<[u8]>,
}

impl Message {
    pub fn is_image(&self) -> bool {
        matches!(self.channel, Channel::Image(_))
    }

    /// Bytes in memory; with what the ring and the file need for it.
    fn bytes(&self) -> usize {
        self.data.len() + 128
    }
}

/// See the module. Messages of frames and all others are kept apart: a camera that has gone silent
/// leaves its last images, while the diagnostics that say so go on.
#[derive(Debug)]
pub struct Ring {
    keep: Nanoseconds,
    max_bytes: usize,
    bytes: usize,
    frames: VecDeque<Message>,
    others: VecDeque<Message>,
    /// Whether the memory was too little for the time.
    is_cut: bool,
}

impl Ring {
    /// Of messages of the last `keep` nanoseconds, the newest that `max_bytes` hold.
    pub fn new(keep: Nanoseconds, max_bytes: usize) -> Self {
        Self { keep, max_bytes, bytes: 0, frames: VecDeque::new(), others: VecDeque::new(), is_cut: false }
    }

    /// Adds a message of a frame.
    pub fn push_frame(&mut self, message: Message) {
        self.add(message, |ring| &mut ring.frames);
    }

    /// Adds a message of no frame.
    pub fn push(&mut self, message: Message) {
        self.add(message, |ring| &mut ring.others);
    }

    fn add(&mut self, message: Message, of: fn(&mut Self) -> &mut VecDeque<Message>) {
        self.bytes += message.bytes();
        let oldest = message.log_time - self.keep;
        let messages = of(self);
        messages.push_back(message);
        let dropped = drop_before(messages, oldest);
        self.bytes -= dropped;
        self.drop_excess();
    }

    /// The oldest go until the rest fits; those of frames first, which are large.
    fn drop_excess(&mut self) {
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.frames.pop_front().or_else(|| self.others.pop_front()) else { return };
            self.bytes -= oldest.bytes();
            self.is_cut = true;
        }
    }

    /// All messages in the order of their times. Their bytes are shared.
    pub fn messages(&self) -> Vec<Message> {
        let mut all: Vec<_> = self.frames.iter().chain(&self.others).cloned().collect();
        all.sort_by_key(|message| message.log_time);
        all
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nanoseconds from the first message of a frame to the last.
    pub fn span(&self) -> Nanoseconds {
        let times = || self.frames.iter().map(|message| message.log_time);
        times().max().unwrap_or(0) - times().min().unwrap_or(0)
    }

    /// Whether messages were dropped for want of memory since the last call.
    pub fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.is_cut)
    }

    /// Whether there is no message of any frame.
    pub fn has_no_frames(&self) -> bool {
        self.frames.is_empty()
    }
}

/// Drops the front of `messages` as far as it is older, and returns its bytes. Also what is later
/// than the newest by more than the time kept: a clock that was set back.
fn drop_before(messages: &mut VecDeque<Message>, oldest: Nanoseconds) -> usize {
    let mut bytes = 0;
    while messages.front().is_some_and(|message| message.log_time < oldest) {
        bytes += messages.pop_front().map_or(0, |message| message.bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(log_time: Nanoseconds, bytes: usize) -> Message {
        Message { channel: Channel::Diagnostics, log_time, sequence: 0, data: vec![0; bytes].into() }
    }

    fn times(ring: &Ring) -> Vec<Nanoseconds> {
        ring.messages().iter().map(|message| message.log_time).collect()
    }

    #[test]
    fn the_last_seconds_are_kept_and_no_more() {
        let mut ring = Ring::new(100, 1 << 20);
        [0, 50, 100, 149, 160].into_iter().for_each(|at| ring.push_frame(message(at, 10)));
        assert_eq!((times(&ring), ring.span()), (vec![100, 149, 160], 60));
        assert_eq!(ring.bytes(), 3 * 138);
    }

    #[test]
    fn diagnostics_do_not_push_out_the_last_images_of_a_silent_camera() {
        let mut ring = Ring::new(100, 1 << 20);
        ring.push_frame(message(10, 10));
        [100, 200, 300].into_iter().for_each(|at| ring.push(message(at, 10)));
        assert_eq!(times(&ring), [10, 200, 300]);
    }

    #[test]
    fn memory_bounds_what_time_does_not() {
        let mut ring = Ring::new(1_000_000, 1000);
        (0..100).for_each(|at| ring.push_frame(message(at, 172)));
        assert_eq!(times(&ring), [97, 98, 99]);
        assert!(ring.bytes() <= 1000 && ring.take_cut() && !ring.take_cut());
        ring.push_frame(message(100, 5000));
        assert!(times(&ring).is_empty(), "one that does not fit at all");
        assert_eq!(ring.bytes(), 0);
    }
}
