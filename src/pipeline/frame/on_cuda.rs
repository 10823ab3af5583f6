//! A frame on a GPU, as one CUDA graph, and frames of several cameras there side by side.

use peregrine_core::{now_ns, ImageView};
use peregrine_engine::cuda::CudaError;
use peregrine_engine::EngineError;
use peregrine_vision::decode::NmsIou;

use super::{suppress, FrameError, FrameResult, Inference, Pipeline, SourceTables};
use crate::cuda::{CudaFrontEnd, Decoding};
use crate::stage::{Stage, StageObserver};
use crate::timing::StageTimes;

/// An image that a GPU works on: from [`Pipeline::begin`], for [`Pipeline::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Its number among its camera's.
    submission: u64,
    preprocess_start: u64,
    preprocess_end: u64,
}

impl Begun {
    /// Submits `image` to the graphs of `camera`.
    fn submit(
        cuda: &mut CudaFrontEnd,
        camera: usize,
        image: &ImageView,
        thresholds: (f32, NmsIou),
        observer: &dyn StageObserver,
    ) -> Result<Self, CudaError> {
        observer.enter(Stage::Preprocess);
        let preprocess_start = now_ns();
        let submission = cuda.of(camera)?.submit(image, thresholds)?;
        Ok(Self { submission, preprocess_start, preprocess_end: now_ns() })
    }
}

impl Pipeline {
    /// [`begin`](Self::begin) on a GPU.
    pub(super) fn begin_on_cuda(&mut self, camera: usize, image: &ImageView) -> Option<Begun> {
        let thresholds = (self.least_score(), self.options.nms);
        let Inference::Cuda(cuda) = &mut self.inference else { return None };
        // To make a graph may wait for all that run, and without limit.
        if !cuda.is_ready_for(camera, image.encoding(), image.size()) {
            return None;
        }
        // What fails here fails again when the image is finished, and is told then.
        Begun::submit(cuda, camera, image, thresholds, &*self.observer).ok()
    }

    /// One CUDA graph launch, unless it was `begun` before. The times are the host's: preprocessing ends when the image has
    /// been submitted, inference and decoding when the result is back, but for heads that the host decodes. So the time of
    /// inference includes that in which images begun before were finished.
    pub(super) fn detect_on_cuda(
        &mut self,
        camera: usize,
        image: &ImageView,
        begun: Option<Begun>,
        least_score: f32,
    ) -> Result<StageTimes, FrameError> {
        let Inference::Cuda(cuda) = &mut self.inference else { unreachable!("`detect` has looked") };
        let observer = &self.observer;
        let FrameResult { detections, mask, scene, .. } = &mut self.result;
        // Not one that was abandoned, or that another pipeline has begun.
        let submitted = match begun.filter(|begun| cuda.submitted(camera) == Some(begun.submission)) {
            Some(begun) => Ok(begun),
            None => Begun::submit(cuda, camera, image, (least_score, self.options.nms), &**observer),
        };
        let collected = submitted.and_then(|begun| {
            observer.enter(Stage::GpuWait);
            cuda.of(camera)?.collect(detections, mask)?;
            Ok(begun)
        });
        let Begun { preprocess_start, preprocess_end, .. } = match collected {
            Ok(begun) => begun,
            Err(error) => {
                let Some(spare) = cuda.spare.take() else { return Err(EngineError::from(error).into()) };
                // The frame is not lost, only slow.
                self.instead_of_cuda = Some(error.to_string());
                self.inference = Inference::Engine(spare);
                return self.detect_on_engine(camera, image, least_score);
            }
        };
        observer.enter(Stage::Decode);
        let inference_end = now_ns();
        let on_host = cuda.decoding() == Decoding::OnHost;
        let graphs = cuda.of(camera).map_err(EngineError::from)?;
        self.scene.decode(|index| graphs.output(index), scene);
        if on_host {
            let tables = SourceTables::for_size(&mut self.cameras[camera].source, image.size(), self.input_size);
            self.head.decode(|index| graphs.output(index), least_score, detections);
            suppress(detections, &self.options, &tables.letterbox);
        }
        Ok(StageTimes { preprocess_start, preprocess_end, inference_end, decode_end: now_ns(), track_end: 0 })
    }
}
