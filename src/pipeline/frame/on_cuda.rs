//! A frame on a GPU, as one CUDA graph.

use peregrine_core::{now_ns, ImageView};
use peregrine_engine::EngineError;

use super::{suppress, FrameError, FrameResult, Inference, Pipeline, SourceTables};
use crate::cuda::Decoding;
use crate::stage::Stage;
use crate::timing::StageTimes;

impl Pipeline {
    /// One CUDA graph launch. The times are the host's: preprocessing ends when the image has been submitted, inference
    /// and decoding when the result is back, but for heads that the host decodes.
    pub(super) fn detect_on_cuda(&mut self, camera: usize, image: &ImageView, least_score: f32) -> Result<StageTimes, FrameError> {
        let Inference::Cuda(cuda) = &mut self.inference else { unreachable!("`detect` has looked") };
        let observer = &self.observer;
        observer.enter(Stage::Preprocess);
        let preprocess_start = now_ns();
        let mut preprocess_end = preprocess_start;
        let FrameResult { detections, mask, scene, .. } = &mut self.result;
        let thresholds = (least_score, self.options.nms);
        let submitted = || {
            observer.enter(Stage::GpuWait);
            preprocess_end = now_ns();
        };
        let outcome = cuda.of(camera).and_then(|path| path.process(image, thresholds, detections, mask, submitted));
        if let Err(error) = outcome {
            let Some(spare) = cuda.spare.take() else { return Err(EngineError::from(error).into()) };
            // The frame is not lost, only slow.
            self.instead_of_cuda = Some(error.to_string());
            self.inference = Inference::Engine(spare);
            return self.detect_on_engine(camera, image, least_score);
        }
        observer.enter(Stage::Decode);
        let inference_end = now_ns();
        let on_host = cuda.decoding() == Decoding::OnHost;
        let path = cuda.of(camera).map_err(EngineError::from)?;
        self.scene.decode(|index| path.output(index), scene);
        if on_host {
            let tables = SourceTables::for_size(&mut self.cameras[camera].source, image.size(), self.input_size);
            self.head.decode(|index| path.output(index), least_score, detections);
            suppress(detections, &self.options, &tables.letterbox);
        }
        Ok(StageTimes { preprocess_start, preprocess_end, inference_end, decode_end: now_ns(), track_end: 0 })
    }
}
