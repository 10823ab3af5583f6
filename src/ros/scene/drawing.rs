//! The thread that draws and publishes the annotated image, only while it has subscribers.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use peregrine_core::scheduling::use_default_scheduling;
use peregrine_core::LatestSlot;
use peregrine_pipeline::FrameResult;
use r2r::Publisher;

use super::painter::Painter;
use crate::annotations::Annotations;
use crate::incoming::{Frame, Unpacker};
use crate::messages::{bytes, set_header, NativeHeader};
use crate::model::ModelClasses;
use crate::panics;

/// Quality of the JPEG, 1 to 100.
const QUALITY: u8 = 85;
/// Jobs that are being filled, drawn, or wait for either.
const JOBS: usize = 3;
/// Longest wait for a job before the stop flag is checked.
const MAX_WAIT: Duration = Duration::from_millis(200);

/// A frame and its annotations.
#[derive(Default)]
struct Job {
    frame: Option<Frame>,
    annotations: Annotations,
}

/// The frame thread's handle of the thread that draws, which ends with it.
pub struct DrawingThread {
    queue: Arc<DrawingQueue>,
    /// With annotations, and waiting for its frame.
    prepared: Option<Box<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct DrawingQueue {
    /// The newest image to draw, which supersedes one that is still waiting.
    work: LatestSlot<Box<Job>>,
    free: ArrayQueue<Box<Job>>,
    stop: AtomicBool,
}

impl DrawingQueue {
    fn new() -> Arc<Self> {
        let free = ArrayQueue::new(JOBS);
        (0..JOBS).for_each(|_| drop(free.push(Box::default())));
        Arc::new(Self { work: LatestSlot::new(), free, stop: AtomicBool::new(false) })
    }
}

impl DrawingThread {
    pub(super) fn start(
        raw: Publisher<r2r::sensor_msgs::msg::Image>,
        compressed: Publisher<r2r::sensor_msgs::msg::CompressedImage>,
    ) -> std::io::Result<Self> {
        let queue = DrawingQueue::new();
        let mut worker = DrawingWorker { painter: Painter::default(), unpacker: Unpacker::default(), raw, compressed };
        let jobs = Arc::clone(&queue);
        let thread = thread::Builder::new().name("pictures".into()).spawn(move || {
            // The thread that started this one may have a real-time priority.
            use_default_scheduling();
            while !jobs.stop.load(Relaxed) {
                if let Some(mut job) = jobs.work.take_timeout(MAX_WAIT) {
                    // A picture that panics is not published, like one that cannot be decoded.
                    if panics::caught(|| worker.publish(&job)).is_err() {
                        (worker.painter, worker.unpacker) = Default::default();
                    }
                    job.frame = None;
                    let _ = jobs.free.push(job);
                }
            }
        })?;
        Ok(Self { queue, prepared: None, thread: Some(thread) })
    }

    /// Copies the result of the current frame. Allocates only for more than ever before; no effect
    /// while all jobs are in use.
    pub(super) fn prepare(&mut self, result: &FrameResult, classes: &Arc<ModelClasses>) {
        let Some(mut job) = self.prepared.take().or_else(|| self.queue.free.pop()) else { return };
        job.annotations.copy_from(result, classes);
        self.prepared = Some(job);
    }

    /// Gives the frame away to be drawn, if it was prepared.
    pub(super) fn submit(&mut self, frame: Frame) {
        let Some(mut job) = self.prepared.take() else { return };
        job.frame = Some(frame);
        if let Some(mut superseded) = self.queue.work.put(job) {
            superseded.frame = None;
            // Not kept as prepared: the next frame may be one that is not processed.
            let _ = self.queue.free.push(superseded);
        }
    }
}

impl Drop for DrawingThread {
    fn drop(&mut self) {
        self.queue.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// The state of the thread.
struct DrawingWorker {
    painter: Painter,
    unpacker: Unpacker,
    raw: Publisher<r2r::sensor_msgs::msg::Image>,
    compressed: Publisher<r2r::sensor_msgs::msg::CompressedImage>,
}

impl DrawingWorker {
    /// Draws and publishes. What fails is not published: a viewer sees that the image has stopped.
    fn publish(&mut self, job: &Job) {
        let Some(frame) = &job.frame else { return };
        let header = frame.message.header();
        let Ok(view) = self.unpacker.view(&frame.message) else { return };
        let picture = self.painter.paint(&view, &job.annotations);
        let wanted = |count: r2r::Result<usize>| count.unwrap_or(0) > 0;
        if wanted(self.compressed.get_inter_process_subscription_count()) {
            let mut message = r2r::sensor_msgs::msg::CompressedImage { format: "jpeg".into(), ..Default::default() };
            message.header = rust_header(header);
            if picture.encode_jpeg(&mut message.data, QUALITY) {
                let _ = self.compressed.publish(&message);
            }
        }
        if wanted(self.raw.get_inter_process_subscription_count()) {
            let mut native = r2r::NativeMsg::<r2r::sensor_msgs::msg::Image>::new();
            set_header(&mut native.header, header);
            native.encoding.assign("rgb8");
            (native.width, native.height) = (picture.width as u32, picture.height as u32);
            native.step = 3 * native.width;
            native.data.update(&picture.pixels);
            let _ = self.raw.publish_native(&mut native);
        }
    }
}

fn rust_header(header: &NativeHeader) -> r2r::std_msgs::msg::Header {
    r2r::std_msgs::msg::Header {
        stamp: r2r::builtin_interfaces::msg::Time { sec: header.stamp.sec, nanosec: header.stamp.nanosec },
        frame_id: String::from_utf8_lossy(bytes(&header.frame_id)).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64) -> Frame {
        let message = r2r::NativeMsg::<r2r::sensor_msgs::msg::Image>::new();
        let arrival = crate::clock::ClockSample { ros: 0, monotonic: 0 };
        Frame {
            message: Arc::new(crate::incoming::ImageMessage::Raw(message, Default::default())),
            arrival,
            camera: 0,
            sequence,
        }
    }

    #[test]
    fn a_frame_without_results_is_not_drawn_with_those_before() {
        // Without a thread, so that every image is superseded.
        let mut drawing = DrawingThread { queue: DrawingQueue::new(), prepared: None, thread: None };
        let classes = Arc::new(ModelClasses::new(&peregrine_student::Architecture::default_student(), "road"));
        for sequence in 1..=10 {
            drawing.prepare(&FrameResult::default(), &classes);
            drawing.submit(frame(sequence));
        }
        drawing.submit(frame(11));
        let drawn = drawing.queue.work.take().and_then(|job| job.frame).map(|frame| frame.sequence);
        assert_eq!(drawn, Some(10));
        assert_eq!(drawing.queue.free.len(), JOBS - 1, "no job is lost");
    }
}
