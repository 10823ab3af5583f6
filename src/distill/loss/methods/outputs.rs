//! The rows of class logits that output methods compare.

use candle_core::{Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::super::scene::Scene;
use crate::data::VOID;

/// Which head's outputs.
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
    /// For each row its labelled class, or the teacher's best where there is no label.
    pub target: Vec<usize>,
}

/// The rows of `head` as categorical distributions: every cell of the segmentation head; of the detection head, whose
/// classes are independent, the rows that answer for an object. `None` when there are none.
pub fn categorical(scene: &Scene, head: Head) -> Result<Option<Rows>> {
    match head {
        Head::Class if scene.positives.is_empty() => Ok(None),
        Head::Class => {
            let index = Tensor::from_iter(scene.positives.iter().map(|p| p.0), &Device::Cpu)?;
            Ok(Some(Rows {
                student: scene.student.class.index_select(&index, 0)?,
                teacher: scene.teacher.class.index_select(&index, 0)?,
                target: scene.positives.iter().map(|p| p.1).collect(),
            }))
        }
        Head::Segmentation => {
            let (student, teacher) = (cells(&scene.student.segmentation)?, cells(&scene.teacher.segmentation)?);
            let best = teacher.argmax(1)?.to_vec1::<u32>()?;
            let label = |(&label, best): (&u8, u32)| if label == VOID { best as usize } else { usize::from(label) };
            Ok(Some(Rows { student, teacher, target: scene.mask.iter().zip(best).map(label).collect() }))
        }
    }
}

/// `[images, classes, cells]` as `[images · cells, classes]`.
pub fn cells(maps: &Tensor) -> Result<Tensor> {
    let classes = maps.dim(1)?;
    maps.transpose(1, 2)?.contiguous()?.reshape(((), classes))
}
