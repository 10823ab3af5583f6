//! What a method compares: the student's tensors of one step, and the teacher's of the same views.

use std::collections::BTreeMap;

use candle_core::Tensor;
use peregrine_core::BoundingBox;

/// One network's tensors. Rows of the detection head are image by image, level by level, cell by cell.
pub struct Tensors {
    /// Class logits `[rows, classes]`.
    pub class: Tensor,
    /// Side logits `[rows, 4·bins]`.
    pub sides: Tensor,
    /// Segmentation logits `[images, classes, cells]`.
    pub segmentation: Tensor,
    /// The tensors of inner layers that some method asks for, by the layer's name: `[images, channels, height, width]`.
    pub layers: BTreeMap<String, Tensor>,
}

/// One step as a method sees it.
pub struct Scene {
    /// Differentiated.
    pub student: Tensors,
    /// Not differentiated.
    pub teacher: Tensors,
    /// Rows of the detection head that answer for a labelled object, with its class.
    pub positives: Vec<(u32, usize)>,
    /// For each image the boxes of its objects, input pixels.
    pub boxes: Vec<Vec<BoundingBox>>,
    /// For each image and cell of the segmentation head its label, or [`VOID`](crate::data::VOID).
    pub mask: Vec<u8>,
    /// For each image and cell of the segmentation head whether the teacher has an opinion: one that saw the whole image has
    /// none of what lies outside it.
    pub teacher_sees: Vec<bool>,
    /// The same of inner layers, by name: for each image and cell of those whose teacher saw the whole image. Where it has no
    /// opinion, both tensors are zero.
    pub layer_sees: BTreeMap<String, Vec<bool>>,
    /// Width and height of the input in pixels.
    pub input: (usize, usize),
    /// Fraction of the run that is done, 0 to 1.
    pub progress: f64,
}
