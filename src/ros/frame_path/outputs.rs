//! What the frame thread keeps of each camera from frame to frame.

use peregrine_pipeline::monitor::{Degradation, Monitor};
use peregrine_vision::preprocess::levels::{LevelDoubt, LevelWatch};
use r2r::peregrine_msgs::msg::FrameTiming;
use r2r::Publisher;

use crate::scene::Scene;
use crate::scene_class::SceneSmoother;

/// How one camera has kept its deadlines so far.
#[derive(Default)]
pub struct DeadlineState {
    pub monitor: Monitor,
    pub degradation: Degradation,
}

/// Whether a camera's values are as its parameters say, and what has been reported of it.
#[derive(Default)]
pub struct LevelState {
    pub(super) watch: LevelWatch,
    pub(super) reported: Option<LevelDoubt>,
}

/// The publishers of one camera, and how it has kept its deadlines so far.
pub struct CameraOutputs {
    pub detections: Publisher<r2r::vision_msgs::msg::Detection2DArray>,
    pub timing: Publisher<FrameTiming>,
    pub road_mask: Publisher<r2r::sensor_msgs::msg::Image>,
    pub segmentation: Publisher<r2r::sensor_msgs::msg::Image>,
    pub scene_class: Publisher<r2r::vision_msgs::msg::Classification>,
    pub scene: Scene,
    pub deadlines: DeadlineState,
    pub levels: LevelState,
    /// Of the classes of scenes.
    pub smoother: SceneSmoother,
}
