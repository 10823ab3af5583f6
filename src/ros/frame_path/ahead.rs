//! Frames of several cameras at once on a GPU: those that wait at the same time are begun before the first of them is
//! finished, so that they run side by side.

use std::collections::VecDeque;

use peregrine_core::now_ns;
use peregrine_pipeline::{Begun, Stage};

use super::{Frame, FramePath};
use crate::age::Age;
use crate::incoming::ShortText;
use crate::panics;
use crate::record::PANIC;

/// What a GPU has begun of a frame, or the panic in which that ended.
pub(super) type Ahead = Result<Option<Begun>, ShortText<PANIC>>;

/// Frames that were taken from the mailbox and have yet to be processed: at most one of each camera, the most urgent first.
pub(super) struct Taken(VecDeque<(Frame, Ahead)>);

impl Taken {
    /// Room for a frame of each of so many cameras.
    pub(super) fn with_room(cameras: usize) -> Self {
        Self(VecDeque::with_capacity(cameras))
    }

    /// Takes the most urgent one out.
    pub(super) fn pop(&mut self) -> Option<(Frame, Ahead)> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FramePath {
    /// Takes `first`, the most urgent frame, to be processed next. On a GPU it is begun, and so are those that wait behind it,
    /// as long as they can be.
    pub(super) fn take(&mut self, first: Frame) {
        let at_once = if self.model.pipeline().is_on_cuda() { self.gpu_cameras_at_once } else { 1 };
        let mut next = Some(first);
        while let Some(frame) = next {
            let ahead = if at_once > 1 { self.begin(&frame) } else { Ok(None) };
            // One that is not begun is the last: its turn, which may take long, comes once all else is finished, and newer
            // frames may have come by then.
            let is_begun = ahead.is_ok_and(|begun| begun.is_some());
            self.taken.0.push_back((frame, ahead));
            next = if is_begun && self.taken.0.len() < at_once { self.take_further() } else { None };
        }
    }

    /// The most urgent frame of a camera of which there is none yet.
    fn take_further(&mut self) -> Option<Frame> {
        let taken = &self.taken.0;
        let is_new = |camera| taken.iter().all(|(frame, _)| frame.camera != camera);
        let (_, frame) = self.shared.mailbox.take_of(is_new)?;
        self.shared.watch.begin(frame.camera, now_ns());
        Some(frame)
    }

    /// Has the GPU begin with a frame, unless that would hold up those begun before, or the frame is past its deadline.
    fn begin(&mut self, frame: &Frame) -> Ahead {
        panics::caught(|| {
            let settings = self.shared.settings.load();
            let is_late = settings.drop_late && Age::of(frame).is_past(settings.deadline, now_ns());
            if is_late || frame.message.is_compressed() {
                return None;
            }
            self.observer.enter(Stage::Unpack);
            // An image that is unusable is rejected when its turn comes.
            let image = self.unpacker.view(&frame.message).ok()?;
            let pipeline = self.model.pipeline();
            pipeline.set_thresholds(settings.score_threshold, settings.nms);
            pipeline.begin(frame.camera, &image)
        })
    }
}
