//! The rows of class logits that methods on a head's outputs compare.

use candle_core::{Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use crate::data::VOID;
use crate::teacher::logits::UNKNOWN_CLASS;

/// The head whose outputs are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// Class logits of the detection head.
    Class,
    /// Logits of each cell of the segmentation head.
    Segmentation,
    /// Logits of each group of scenes.
    Scene,
}

/// Rows of categorical logits.
pub struct Rows {
    /// `[rows, classes]`.
    pub student: Tensor,
    pub teacher: Tensor,
    /// The labelled class of each row, or the teacher's best if there is no label.
    pub target: Vec<usize>,
}

/// The rows of `head` as categorical distributions: every cell of the segmentation head; of the
/// detection head, whose classes are independent, the positive anchors; of the scene head the
/// images, each group apart. Empty if there are none.
pub fn categorical(inputs: &DistillInputs, head: Head) -> Result<Vec<Rows>> {
    match head {
        Head::Scene => scenes(inputs),
        Head::Class if inputs.positives.is_empty() => Ok(Vec::new()),
        Head::Class => {
            let index = Tensor::from_iter(inputs.positives.iter().map(|p| p.0), &Device::Cpu)?;
            Ok(vec![Rows {
                student: inputs.student.class.index_select(&index, 0)?,
                teacher: inputs.teacher.class.index_select(&index, 0)?,
                target: inputs.positives.iter().map(|p| p.1).collect(),
            }])
        }
        Head::Segmentation => {
            let (student, teacher) = (cells(&inputs.student.segmentation)?, cells(&inputs.teacher.segmentation)?);
            let best = teacher.argmax(1)?.to_vec1::<u32>()?;
            let label = |(&label, best): (&u8, u32)| if label == VOID { best as usize } else { usize::from(label) };
            Ok(vec![Rows { student, teacher, target: inputs.mask.iter().zip(best).map(label).collect() }])
        }
    }
}

/// The images for which the teacher knows the scene, for each group of which it knows a class.
fn scenes(inputs: &DistillInputs) -> Result<Vec<Rows>> {
    let mut groups = Vec::with_capacity(inputs.student.scene.len());
    let tensors = inputs.student.scene.iter().zip(&inputs.teacher.scene);
    for ((student, teacher), labels) in tensors.zip(&inputs.scene_labels) {
        let largest = teacher.max(1)?.to_vec1::<f32>()?;
        let known = |&image: &usize| inputs.scene_valid[image] && largest[image] > UNKNOWN_CLASS;
        let images: Vec<usize> = (0..largest.len()).filter(known).collect();
        if images.is_empty() {
            continue;
        }
        let index = Tensor::from_iter(images.iter().map(|&image| image as u32), &Device::Cpu)?;
        let (student, teacher) = (student.index_select(&index, 0)?, teacher.index_select(&index, 0)?);
        let best = teacher.argmax(1)?.to_vec1::<u32>()?;
        let label = |(&image, best): (&usize, u32)| match labels[image] {
            VOID => best as usize,
            label => usize::from(label),
        };
        groups.push(Rows { student, teacher, target: images.iter().zip(best).map(label).collect() });
    }
    Ok(groups)
}

/// `[images, classes, cells]` as `[images · cells, classes]`.
pub fn cells(maps: &Tensor) -> Result<Tensor> {
    let classes = maps.dim(1)?;
    maps.transpose(1, 2)?.contiguous()?.reshape(((), classes))
}
