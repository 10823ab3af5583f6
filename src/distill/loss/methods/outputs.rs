//! The rows of class logits that methods on a head's outputs compare.

use candle_core::{Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use crate::data::VOID;

/// The head whose outputs are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// Class logits of the detection head.
    Class,
    /// Logits of each cell of the segmentation head.
    Segmentation,
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
/// detection head, whose classes are independent, the positive anchors. `None` if there are none.
pub fn categorical(inputs: &DistillInputs, head: Head) -> Result<Option<Rows>> {
    match head {
        Head::Class if inputs.positives.is_empty() => Ok(None),
        Head::Class => {
            let index = Tensor::from_iter(inputs.positives.iter().map(|p| p.0), &Device::Cpu)?;
            Ok(Some(Rows {
                student: inputs.student.class.index_select(&index, 0)?,
                teacher: inputs.teacher.class.index_select(&index, 0)?,
                target: inputs.positives.iter().map(|p| p.1).collect(),
            }))
        }
        Head::Segmentation => {
            let (student, teacher) = (cells(&inputs.student.segmentation)?, cells(&inputs.teacher.segmentation)?);
            let best = teacher.argmax(1)?.to_vec1::<u32>()?;
            let label = |(&label, best): (&u8, u32)| if label == VOID { best as usize } else { usize::from(label) };
            Ok(Some(Rows { student, teacher, target: inputs.mask.iter().zip(best).map(label).collect() }))
        }
    }
}

/// `[images, classes, cells]` as `[images · cells, classes]`.
pub fn cells(maps: &Tensor) -> Result<Tensor> {
    let classes = maps.dim(1)?;
    maps.transpose(1, 2)?.contiguous()?.reshape(((), classes))
}
