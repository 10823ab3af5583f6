//! Packets and what belongs to them, such as their stamps, to pictures with the same.

use std::collections::VecDeque;

use super::codec::Codec;
use super::decoder::Decoder;
use super::fault::VideoFault;
use super::picture::Picture;

/// Most packets whose pictures are still to come: the most that a codec permits to be reordered.
const MAX_PENDING: usize = 16;

/// A stream of one camera. Every packet `T` comes back exactly once: with its picture, or why there
/// is none.
///
/// Pictures come with their packets, unless the encoder changes their order (B-frames): then as many
/// packets later as that asks for.
pub struct Stream<T> {
    decoder: Decoder,
    pending: VecDeque<(i64, T)>,
    next: i64,
}

impl<T: AsRef<[u8]>> Stream<T> {
    /// For pictures of `max_pixels` pixels at most.
    ///
    /// # Errors
    /// Where there is no decoder for the codec.
    pub fn open(codec: Codec, max_pixels: usize) -> Result<Self, VideoFault> {
        Ok(Self { decoder: Decoder::open(codec, max_pixels)?, pending: VecDeque::new(), next: 0 })
    }

    /// Decodes the stream's next packet; `each` is told what became of this one and of those before
    /// it, as far as that is known.
    pub fn push(&mut self, packet: T, mut each: impl FnMut(T, Result<Picture, VideoFault>)) {
        let number = self.next;
        self.next += 1;
        self.pending.push_back((number, packet));
        let (_, packet) = self.pending.back().expect("just put there");
        let mut ready = Vec::new();
        let result = self.decoder.decode(packet.as_ref(), number, |of, picture| ready.push((of, picture)));
        self.hand_out(ready, &mut each);
        match result {
            // The decoder goes on, and those before it may come.
            Err(fault @ (VideoFault::NoPicture | VideoFault::NoKeyFrame)) => {
                self.take(number).into_iter().for_each(|packet| each(packet, Err(fault)));
            }
            Err(fault) => {
                self.take(number).into_iter().for_each(|packet| each(packet, Err(fault)));
                self.end(each);
            }
            Ok(()) => {
                while self.pending.len() > MAX_PENDING {
                    let fault = self.decoder.excuse();
                    self.pending.pop_front().into_iter().for_each(|(_, packet)| each(packet, Err(fault)));
                }
            }
        }
    }

    fn take(&mut self, number: i64) -> Option<T> {
        let at = self.pending.iter().position(|(pending, _)| *pending == number)?;
        Some(self.pending.remove(at)?.1)
    }

    fn hand_out(&mut self, ready: Vec<(i64, Picture)>, each: &mut impl FnMut(T, Result<Picture, VideoFault>)) {
        for (of, picture) in ready {
            // A second picture of one packet has none that it belongs to.
            if let Some(packet) = self.take(of) {
                each(packet, Ok(picture));
            }
        }
    }

    /// A packet was lost before it came here: nothing is decoded before the next key frame.
    pub fn interrupt(&mut self, each: impl FnMut(T, Result<Picture, VideoFault>)) {
        self.decoder.lost(VideoFault::NoKeyFrame);
        self.end(each);
    }

    /// The stream's end: the pictures that the encoder's order holds back come, then what
    /// [`end`](Self::end) gives back.
    pub fn finish(&mut self, mut each: impl FnMut(T, Result<Picture, VideoFault>)) {
        let mut ready = Vec::new();
        self.decoder.finish(|of, picture| ready.push((of, picture)));
        self.hand_out(ready, &mut each);
        self.end(each);
    }

    /// Gives back the packets whose pictures have not come.
    pub fn end(&mut self, mut each: impl FnMut(T, Result<Picture, VideoFault>)) {
        for (_, packet) in self.pending.drain(..) {
            each(packet, Err(VideoFault::NoPicture));
        }
    }
}
