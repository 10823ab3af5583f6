//! The inputs of the distillation methods: the student's tensors of one step, and the teacher's of
//! the same views.

use std::collections::BTreeMap;

use peregrine_core::BoundingBox;

use crate::ranks::Ranks;
use crate::tensor::Tensor;

/// One network's tensors. Rows of the detection head are image by image, level by level, cell by
/// cell.
pub struct Tensors {
    /// Class logits `[rows, classes]`.
    pub class: Tensor,
    /// Logits of the box distribution (DFL), `[rows, 4·bins]`: of the distance from the anchor to
    /// each side of the box.
    pub box_distribution: Tensor,
    /// Segmentation logits `[images, classes, cells]`.
    pub segmentation: Tensor,
    /// Class logits of each group of scenes, `[images, classes]`.
    pub scene: Vec<Tensor>,
    /// The tensors of the inner layers that some method compares, `[images, channels, height,
    /// width]`, by the layer's name.
    pub layers: BTreeMap<String, Tensor>,
}

/// The inputs of one step: of all images of a batch, or of one rank's.
pub struct DistillInputs {
    /// Differentiated.
    pub student: Tensors,
    /// Not differentiated.
    pub teacher: Tensors,
    /// The positive anchors of labelled objects: row of the detection head, and class.
    pub positives: Vec<(u32, usize)>,
    /// Positives that tensors have room for at least.
    pub room: usize,
    /// The boxes of each image's objects in input pixels.
    pub boxes: Vec<Vec<BoundingBox>>,
    /// The label of each image and cell of the segmentation head, or [`VOID`](crate::data::VOID).
    pub mask: Vec<u8>,
    /// For each image and cell of the segmentation head whether the teacher has logits there: soft
    /// targets of a whole image end at its border.
    pub mask_valid: Vec<bool>,
    /// Names of the groups of scenes.
    pub scene_groups: Vec<String>,
    /// For each group of scenes the label of each image, or [`VOID`](crate::data::VOID).
    pub scene_labels: Vec<Vec<u8>>,
    /// For each group of scenes and image whether the teacher has logits.
    pub scene_valid: Vec<Vec<bool>>,
    /// The same for each image and cell of the inner layers that are compared with soft targets, by
    /// name. Both tensors are zero at cells that are not valid.
    pub layer_valid: BTreeMap<String, Vec<bool>>,
    /// Width and height of the input in pixels.
    pub input: (usize, usize),
    /// Fraction of the run that is done, 0 to 1.
    pub progress: f64,
    /// Those that have the other images of the batch.
    pub ranks: Ranks,
}
