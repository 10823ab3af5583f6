//! Frames for threads that look on, such as the black box: each frame that the frame thread has
//! taken, with its image, its result, and what became of it.
//!
//! Neither side ever waits. What is handed over is recycled, so that the frame thread allocates only
//! for more than ever before; a frame for which there is no room is counted as lost.

use std::sync::atomic::{fence, AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use peregrine_core::FrameCounts;
use peregrine_pipeline::FrameResult;

use super::annotations::Annotations;
use super::clock::ClockSample;
use super::incoming::{Frame, ImageMessage};
use super::messages::Timing;
use super::model::ModelClasses;
use super::record::Rejection;

/// A frame with all that is known of it.
pub struct CapturedFrame {
    pub message: Option<Arc<ImageMessage>>,
    pub arrival: ClockSample,
    /// Index of its camera.
    pub camera: usize,
    pub sequence: u64,
    /// Without classes if the frame was dropped before it had a result.
    pub annotations: Annotations,
    /// `None` for a frame that was rejected.
    pub timing: Option<(Timing, FrameCounts)>,
    pub rejection: Option<Rejection>,
}

impl Default for CapturedFrame {
    fn default() -> Self {
        Self {
            message: None,
            arrival: ClockSample { ros: 0, monotonic: 0 },
            camera: 0,
            sequence: 0,
            annotations: Annotations::default(),
            timing: None,
            rejection: None,
        }
    }
}

impl CapturedFrame {
    fn clear(&mut self) {
        self.message = None;
        self.annotations.clear();
        (self.timing, self.rejection) = (None, None);
    }

    fn copy_from(&mut self, other: &Self) {
        self.message.clone_from(&other.message);
        (self.arrival, self.camera, self.sequence) = (other.arrival, other.camera, other.sequence);
        self.annotations.clone_from(&other.annotations);
        (self.timing, self.rejection) = (other.timing, other.rejection);
    }
}

/// The way from the frame thread to one thread that looks on.
pub struct CaptureQueue {
    frames: ArrayQueue<Box<CapturedFrame>>,
    free: ArrayQueue<Box<CapturedFrame>>,
    wanted: AtomicBool,
    lost: AtomicU64,
    consumer: OnceLock<Thread>,
}

impl CaptureQueue {
    /// With room for `frames`, each of which keeps its image until it is recycled.
    pub fn new(frames: usize) -> Self {
        let free = ArrayQueue::new(frames);
        (0..frames).for_each(|_| drop(free.push(Box::default())));
        Self {
            frames: ArrayQueue::new(frames),
            free,
            wanted: AtomicBool::new(true),
            lost: AtomicU64::new(0),
            consumer: OnceLock::new(),
        }
    }

    /// Whether frames are handed over from now on.
    pub fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// How many frames there was no room for.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The oldest frame that has not been taken; to be [recycled](Self::recycle).
    pub fn take(&self) -> Option<Box<CapturedFrame>> {
        self.frames.pop()
    }

    /// Takes a frame back that was taken.
    pub fn recycle(&self, mut frame: Box<CapturedFrame>) {
        frame.clear();
        let _ = self.free.push(frame);
    }

    /// Waits for a frame, up to `timeout`. Only the first thread ever to call this is woken.
    pub fn wait(&self, timeout: Duration) {
        self.consumer.get_or_init(thread::current);
        // As in `LatestSlot`: either the frame thread sees the consumer, or it sees the frame.
        fence(Ordering::SeqCst);
        if self.frames.is_empty() {
            thread::park_timeout(timeout);
        }
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    fn put(&self, frame: &CapturedFrame) {
        let Some(mut slot) = self.free.pop() else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        slot.copy_from(frame);
        // There is room for as many as there are slots.
        let _ = self.frames.push(slot);
        fence(Ordering::SeqCst);
        if let Some(consumer) = self.consumer.get() {
            consumer.unpark();
        }
    }
}

/// The frame thread's side: the frame that is being processed, and who wants it.
#[derive(Default)]
pub struct Capture {
    queues: Vec<Arc<CaptureQueue>>,
    current: CapturedFrame,
    wanted: bool,
}

impl Capture {
    /// Frames go to each of `queues` that wants them.
    pub fn to(queues: Vec<Arc<CaptureQueue>>) -> Self {
        Self { queues, ..Self::default() }
    }

    /// A frame is going to be processed.
    pub fn begin(&mut self) {
        self.wanted = self.queues.iter().any(|queue| queue.is_wanted());
        if self.wanted {
            self.current.clear();
        }
    }

    /// What was found in it.
    pub fn set_result(&mut self, result: &FrameResult, classes: &Arc<ModelClasses>) {
        if self.wanted {
            self.current.annotations.copy_from(result, classes);
        }
    }

    /// When it passed its stages, and the counts of its camera.
    pub fn set_timing(&mut self, timing: &Timing, counts: &FrameCounts) {
        if self.wanted {
            self.current.timing = Some((*timing, *counts));
        }
    }

    /// Why it was rejected.
    pub fn set_rejection(&mut self, rejection: Rejection) {
        self.current.rejection = Some(rejection);
    }

    /// Its processing has ended: it is handed over.
    pub fn submit(&mut self, frame: &Frame) {
        if !self.wanted {
            return;
        }
        let current = &mut self.current;
        current.message = Some(Arc::clone(&frame.message));
        (current.arrival, current.camera, current.sequence) = (frame.arrival, frame.camera, frame.sequence);
        for queue in self.queues.iter().filter(|queue| queue.is_wanted()) {
            queue.put(current);
        }
        current.message = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use r2r::NativeMsg;

    fn frame(sequence: u64) -> Frame {
        let message = Arc::new(ImageMessage::Raw(NativeMsg::new(), Default::default()));
        Frame { message, arrival: ClockSample { ros: 5, monotonic: 5 }, camera: 0, sequence }
    }

    fn pass(capture: &mut Capture, frame: &Frame) {
        capture.begin();
        capture.set_timing(&Timing { sequence: frame.sequence, ..Timing::default() }, &FrameCounts::default());
        capture.submit(frame);
    }

    #[test]
    fn a_full_queue_counts_what_it_loses_and_goes_on() {
        let queue = Arc::new(CaptureQueue::new(2));
        let mut capture = Capture::to(vec![Arc::clone(&queue)]);
        (1..=5).for_each(|sequence| pass(&mut capture, &frame(sequence)));
        assert_eq!(queue.lost(), 3);
        let first = queue.take().unwrap();
        assert_eq!((first.sequence, first.timing.unwrap().0.sequence), (1, 1));
        queue.recycle(first);
        pass(&mut capture, &frame(6));
        let taken: Vec<_> = std::iter::from_fn(|| queue.take()).map(|frame| frame.sequence).collect();
        assert_eq!((taken, queue.lost()), (vec![2, 6], 3));
    }

    #[test]
    fn an_image_is_freed_once_nobody_keeps_it() {
        let queue = Arc::new(CaptureQueue::new(1));
        let mut capture = Capture::to(vec![Arc::clone(&queue)]);
        let frame = frame(1);
        pass(&mut capture, &frame);
        assert_eq!(Arc::strong_count(&frame.message), 2);
        queue.recycle(queue.take().unwrap());
        assert_eq!(Arc::strong_count(&frame.message), 1);
        queue.set_wanted(false);
        pass(&mut capture, &frame);
        assert!(queue.take().is_none() && queue.lost() == 0);
    }

    #[test]
    fn a_frame_has_nothing_of_the_one_before() {
        let queue = Arc::new(CaptureQueue::new(2));
        let mut capture = Capture::to(vec![Arc::clone(&queue)]);
        pass(&mut capture, &frame(1));
        capture.begin();
        capture.set_rejection(Rejection::Publishing);
        capture.submit(&frame(2));
        let [first, second] = [queue.take().unwrap(), queue.take().unwrap()];
        assert!(first.timing.is_some() && first.rejection.is_none());
        assert!(second.timing.is_none() && second.rejection == Some(Rejection::Publishing));
    }
}
