//! Messages that carry a video, one frame of H.264 or H.265 each, to pictures in the order in which
//! they are shown, each with what its own message says.

use std::collections::VecDeque;

use peregrine_video::{is_key_frame, Codec, Picture, Stream, VideoFault};
use peregrine_vision::preprocess::compressed::MAX_PIXELS;

use crate::gaps::Gaps;
use crate::place::Place;

/// Most bytes of packets before the time asked for that are kept until it is known whether a later
/// key frame makes them needless.
const MAX_HELD: usize = 1 << 28;

/// A message with a frame of a video.
pub struct Packet {
    pub place: Place,
    pub codec: Codec,
    pub stamp: u64,
    pub frame_id: String,
    pub data: Vec<u8>,
}

impl AsRef<[u8]> for Packet {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// A frame's picture, or a sentence why it has none.
pub type Answer = (Packet, Result<Picture, String>);

/// The decoder of a topic's video.
pub struct Decoding {
    /// Log time from which on pictures are wanted.
    from: u64,
    /// Not decoded yet, each with whether a message before it was lost.
    waiting: VecDeque<(Packet, bool)>,
    waiting_bytes: usize,
    /// Whether those that wait may turn out to be needless.
    hold: bool,
    lost: bool,
    stream: Option<(Codec, Stream<Packet>)>,
    /// What is known of packets, and not told yet.
    decoded: VecDeque<(Packet, Result<Picture, VideoFault>)>,
    gaps: Gaps,
}

impl Decoding {
    /// For messages of `topic`, of which those from the log time `from` on are wanted.
    pub fn new(topic: &str, from: u64) -> Self {
        Self {
            from,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            hold: false,
            lost: false,
            stream: None,
            decoded: VecDeque::new(),
            gaps: Gaps::new(topic),
        }
    }

    /// Takes the next message, after all that [`next`](Self::next) has to tell of those before it.
    pub fn push(&mut self, packet: Packet) {
        // What lies before the last key frame before the time asked for need not be decoded.
        if packet.place.log_time < self.from && is_key_frame(packet.codec, &packet.data) {
            self.waiting.clear();
            self.waiting_bytes = 0;
        }
        self.waiting_bytes += packet.data.len();
        self.hold = packet.place.log_time < self.from && self.waiting_bytes <= MAX_HELD;
        self.waiting.push_back((packet, std::mem::take(&mut self.lost)));
    }

    /// A message was lost: what follows cannot be decoded before the next key frame.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// The next frame of which it is known what has become, and which is wanted. `None` until the
    /// next message is there. `warnings` gets a sentence for each gap.
    ///
    /// # Errors
    /// When there is no decoder.
    pub fn next(&mut self, warnings: &mut Vec<String>) -> Result<Option<Answer>, VideoFault> {
        loop {
            while let Some((packet, result)) = self.decoded.pop_front() {
                if packet.place.log_time < self.from {
                    self.gaps.pass(&result);
                    continue;
                }
                let result = self.gaps.tell(&packet.place, packet.codec, result, warnings);
                return Ok(Some((packet, result)));
            }
            if self.hold {
                return Ok(None);
            }
            let Some((packet, lost)) = self.waiting.pop_front() else { return Ok(None) };
            self.waiting_bytes -= packet.data.len();
            self.decode(packet, lost)?;
        }
    }

    fn decode(&mut self, packet: Packet, lost: bool) -> Result<(), VideoFault> {
        if self.stream.as_ref().is_some_and(|(codec, _)| *codec != packet.codec) {
            self.finish();
        }
        let codec = packet.codec;
        let (_, stream) = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert((codec, Stream::open(codec, MAX_PIXELS)?)),
        };
        let decoded = &mut self.decoded;
        if lost {
            stream.interrupt(|packet, result| decoded.push_back((packet, result)));
        }
        stream.push(packet, |packet, result| decoded.push_back((packet, result)));
        Ok(())
    }

    /// No more messages come: pictures that were held back can be told. `false` if it was called
    /// before.
    pub fn end(&mut self, warnings: &mut Vec<String>) -> bool {
        if self.finish() {
            return true;
        }
        self.gaps.end(warnings);
        false
    }

    fn finish(&mut self) -> bool {
        let Some((_, mut stream)) = self.stream.take() else { return false };
        stream.finish(|packet, result| self.decoded.push_back((packet, result)));
        true
    }
}
