//! The decoder of one stream: when a packet may be decoded, and when its picture can be trusted.

use super::annex_b::{is_annex_b, Contents};
use super::codec::Codec;
use super::complaint::Complaint;
use super::copy::picture;
use super::fault::VideoFault;
use super::libavcodec::{self, Frame};
use super::picture::{Buffers, Picture};

/// Most bytes of a packet: more than a frame of the largest size takes without any compression.
pub const MAX_PACKET: usize = 1 << 26;

/// Decodes packets in their order, from a key frame on. Damage that libavcodec finds is never handed out: from a
/// damaged picture on, all others refer to it, so that nothing is decoded until the next key frame.
pub struct Decoder {
    inner: libavcodec::Decoder,
    codec: Codec,
    max_pixels: usize,
    state: State,
    buffers: Buffers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No key frame has come, or something that later pictures refer to was lost since.
    Waiting,
    /// A key frame has come, and no picture yet.
    Beginning,
    /// Pictures come.
    Running,
}

impl Decoder {
    pub fn open(codec: Codec, max_pixels: usize) -> Result<Self, VideoFault> {
        let inner = libavcodec::Decoder::open(codec, max_pixels)?;
        Ok(Self { inner, codec, max_pixels, state: State::Waiting, buffers: Buffers::default() })
    }

    /// Decodes a packet, whose picture has the number `number`, and tells `each` of the pictures
    /// that are ready: mostly that one, and another where the encoder has changed their order.
    ///
    /// # Errors
    /// Why there is none. Those that were told of are good still.
    pub fn decode(&mut self, packet: &[u8], number: i64, mut each: impl FnMut(i64, Picture)) -> Result<(), VideoFault> {
        if !is_annex_b(packet) {
            return Err(self.lost(VideoFault::NotAnnexB));
        }
        if packet.len() > MAX_PACKET {
            return Err(self.lost(VideoFault::LongPacket { bytes: packet.len() }));
        }
        let contents = Contents::of(self.codec, packet);
        if contents.picture && !contents.key && self.state == State::Waiting {
            return Err(VideoFault::NoKeyFrame);
        }
        if contents.picture && self.state == State::Waiting {
            self.state = State::Beginning;
        }
        let mut fault = None;
        let sent = self.inner.send(packet, number);
        let received = self.receive_all(|frame, buffers| match picture(frame, buffers) {
            // A complaint that came before it may be about it.
            Ok(picture) if frame.complaint().is_none() => each(frame.pts(), picture),
            Ok(_) => {}
            Err(other) => fault = Some(other),
        });
        let fault = match self.inner.complaint() {
            // Parameters alone, which the next packet is decoded with; the library asks for a picture.
            _ if !contents.picture => return Err(VideoFault::NoPicture),
            Some(Complaint::Size) => Some(VideoFault::TooLarge { max_pixels: self.max_pixels }),
            Some(Complaint::Damage) => Some(VideoFault::Damaged(self.codec)),
            None if !sent || !received => Some(VideoFault::Damaged(self.codec)),
            None => fault,
        };
        fault.map_or(Ok(()), |fault| Err(self.lost(fault)))
    }

    /// The stream ends: tells `each` of the pictures that are held back. Another may begin, with a
    /// key frame.
    pub fn finish(&mut self, mut each: impl FnMut(i64, Picture)) {
        if self.state == State::Running {
            self.inner.finish();
            self.receive_all(|frame, buffers| {
                if let Some(picture) = picture(frame, buffers).ok().filter(|_| frame.complaint().is_none()) {
                    each(frame.pts(), picture);
                }
            });
        }
        self.inner.flush();
        self.state = State::Waiting;
    }

    /// Takes all pictures that are ready, or the library would refuse the next packet; false if it
    /// could not decode.
    fn receive_all(&mut self, mut each: impl FnMut(&Frame, &Buffers)) -> bool {
        loop {
            match self.inner.receive() {
                Ok(Some(frame)) => {
                    self.state = State::Running;
                    each(&frame, &self.buffers);
                }
                Ok(None) => return true,
                Err(()) => return false,
            }
        }
    }

    /// A packet is missing, or useless: nothing that follows can be decoded before a key frame.
    pub fn lost(&mut self, fault: VideoFault) -> VideoFault {
        self.inner.flush();
        self.state = State::Waiting;
        fault
    }

    /// Why a picture that was to come has not.
    pub fn excuse(&self) -> VideoFault {
        match self.state {
            State::Running => VideoFault::NoPicture,
            State::Waiting | State::Beginning => VideoFault::NoKeyFrame,
        }
    }
}
