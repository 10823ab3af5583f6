//! The thread that decodes a camera's video, packet by packet in their order, and puts each picture
//! into the mailbox, where the newest wins. It is there while packets come.

use std::sync::atomic::Ordering::{AcqRel, Release};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender, TrySendError};
use std::sync::Arc;
use std::thread;

use peregrine_core::now_ns;
use peregrine_pipeline::Stage;
use peregrine_video::{Codec, Picture, Stream, VideoFault};
use peregrine_vision::preprocess::compressed::MAX_PIXELS;

use super::delivery::{deliver, reject};
use super::incoming::{Frame, ImageMessage, UnpackError};
use super::panics;
use super::record::Rejection;
use super::shared::NodeShared;

/// Most packets that wait for the decoder: about a second's. All must be decoded, since each refers
/// to those before it.
const MAX_WAITING: usize = 32;

/// One camera's decoder, as its intake uses it.
pub struct VideoDecoder {
    shared: Arc<NodeShared>,
    running: Option<Running>,
}

struct Running {
    codec: Codec,
    packets: SyncSender<Packet>,
    /// Whether a packet was turned away since the last one.
    gap: bool,
}

struct Packet {
    frame: Frame,
    /// Whether those before it were turned away.
    after_gap: bool,
}

impl VideoDecoder {
    pub fn new(shared: Arc<NodeShared>) -> Self {
        Self { shared, running: None }
    }

    /// Has the frame's packet decoded; what becomes of it is counted.
    pub fn push(&mut self, codec: Codec, frame: Frame) {
        if self.running.as_ref().is_none_or(|running| running.codec != codec) {
            self.running = self.start(codec);
        }
        let camera = frame.camera;
        let Some(running) = &mut self.running else {
            return reject(&self.shared, camera, Rejection::Thread);
        };
        let packet = Packet { frame, after_gap: running.gap };
        match running.packets.try_send(packet) {
            Ok(()) => running.gap = false,
            Err(TrySendError::Full(_)) => {
                running.gap = true;
                reject(&self.shared, camera, rejection(VideoFault::Behind));
            }
            Err(TrySendError::Disconnected(_)) => {
                self.running = None;
                reject(&self.shared, camera, Rejection::Thread);
            }
        }
    }

    /// The stream ends: the thread does so too, once it has decoded what waits.
    pub fn end(&mut self) {
        self.running = None;
    }

    fn start(&self, codec: Codec) -> Option<Running> {
        let (packets, waiting) = sync_channel(MAX_WAITING);
        let decoding = Decoding { codec, stream: None, inside: 0, shared: Arc::clone(&self.shared) };
        // Before the thread is, so that nobody finds none while it starts.
        self.shared.decoders.fetch_add(1, AcqRel);
        let started = thread::Builder::new().name("video".into()).spawn(move || decoding.run(&waiting));
        if started.is_err() {
            self.shared.decoders.fetch_sub(1, Release);
        }
        started.is_ok().then_some(Running { codec, packets, gap: false })
    }
}

/// The state of the thread.
struct Decoding {
    codec: Codec,
    /// Opened with the first packet, and anew after a panic.
    stream: Option<Stream<Frame>>,
    /// Frames in the stream, by camera: they have no outcome yet.
    inside: usize,
    shared: Arc<NodeShared>,
}

impl Decoding {
    fn run(mut self, waiting: &Receiver<Packet>) {
        for packet in waiting {
            let camera = packet.frame.camera;
            self.inside += 1;
            self.shared.cameras[camera].decoding.begin_in(Stage::Video, camera, now_ns());
            let decoded = panics::caught(|| self.decode(packet));
            self.shared.cameras[camera].decoding.end();
            if let Err(text) = decoded {
                self.stream = None;
                for _ in 0..std::mem::take(&mut self.inside) {
                    reject(&self.shared, camera, Rejection::Panic(text));
                }
            }
        }
        let Self { stream, inside, shared, .. } = &mut self;
        stream.iter_mut().for_each(|stream| stream.end(|frame, result| settle(shared, inside, frame, result)));
        // What it has put into the mailbox is there for who sees this.
        self.shared.decoders.fetch_sub(1, Release);
    }

    fn decode(&mut self, Packet { frame, after_gap }: Packet) {
        let Self { codec, stream, inside, shared } = self;
        let stream = match stream {
            Some(stream) => stream,
            None => match Stream::open(*codec, MAX_PIXELS) {
                Ok(new) => stream.insert(new),
                Err(fault) => return settle(shared, inside, frame, Err(fault)),
            },
        };
        if after_gap {
            stream.interrupt(|frame, result| settle(shared, inside, frame, result));
        }
        stream.push(frame, |frame, result| settle(shared, inside, frame, result));
    }
}

/// What became of a frame that was in the stream.
fn settle(shared: &NodeShared, inside: &mut usize, frame: Frame, result: Result<Picture, VideoFault>) {
    *inside -= 1;
    match result {
        Ok(picture) => {
            deliver(shared, Frame { message: Arc::new(ImageMessage::Video(frame.message, picture)), ..frame })
        }
        Err(fault) => reject(shared, frame.camera, rejection(fault)),
    }
}

fn rejection(fault: VideoFault) -> Rejection {
    Rejection::Image(UnpackError::Video(fault))
}
