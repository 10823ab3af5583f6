//! The rows of class logits that methods on a head's outputs compare.

use candle_core::{Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use crate::data::VOID;
use crate::ranks::Ranks;
use crate::teacher::logits::UNKNOWN_CLASS;

/// The head whose outputs are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Head {
    /// Class logits of the detection head.
    Class,
    /// Logits of each cell of the segmentation head.
    Segmentation,
    /// Logits of each group of scenes, or of the one that is named.
    Scene(Option<String>),
}

impl Head {
    pub fn is_scene(&self) -> bool {
        matches!(self, Self::Scene(_))
    }

    /// Whether it has the group of scenes called `name`.
    fn has_group(&self, name: &str) -> bool {
        matches!(self, Self::Scene(group) if group.as_ref().is_none_or(|group| group == name))
    }
}

impl TryFrom<String> for Head {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        match text.as_str() {
            "class" => Ok(Self::Class),
            "segmentation" => Ok(Self::Segmentation),
            "scene" => Ok(Self::Scene(None)),
            other => match other.strip_prefix("scene.") {
                Some(group) if !group.is_empty() => Ok(Self::Scene(Some(group.into()))),
                _ => Err(format!("on = {other:?}: write \"class\", \"segmentation\", \"scene\", or \"scene.GROUP\"")),
            },
        }
    }
}

impl From<Head> for String {
    fn from(head: Head) -> Self {
        match head {
            Head::Class => "class".into(),
            Head::Segmentation => "segmentation".into(),
            Head::Scene(None) => "scene".into(),
            Head::Scene(Some(group)) => format!("scene.{group}"),
        }
    }
}

/// Rows of categorical logits.
pub struct Rows {
    /// `[rows, classes]`.
    pub student: Tensor,
    pub teacher: Tensor,
    /// The labelled class of each row, or the teacher's best if there is no label.
    pub target: Vec<usize>,
}

impl Rows {
    /// Those of all ranks; `None` if none has any. `own`: those of this one; `classes`: of each row.
    fn of_all(own: Option<Self>, classes: usize, ranks: &Ranks) -> Result<Option<Self>> {
        if ranks.is_alone() {
            return Ok(own);
        }
        let student = ranks.gather_rows(own.as_ref().map(|rows| &rows.student), &[classes])?;
        let teacher = ranks.gather_rows(own.as_ref().map(|rows| &rows.teacher), &[classes])?;
        let target = ranks.gather_numbers(own.map(|rows| rows.target).unwrap_or_default());
        Ok(student.zip(teacher).map(|(student, teacher)| Self { student, teacher, target }))
    }
}

/// The rows of `head` as categorical distributions: every cell of the segmentation head; of the
/// detection head, whose classes are independent, the positive anchors; of the scene head the
/// images, each group apart. Empty if there are none. Those of all ranks, to be differentiated in this
/// one's.
pub fn categorical(inputs: &DistillInputs, head: &Head) -> Result<Vec<Rows>> {
    let all = |(own, classes): (Option<Rows>, usize)| Rows::of_all(own, classes, &inputs.ranks).transpose();
    own(inputs, head)?.into_iter().filter_map(all).collect()
}

/// The rows of this rank for each distribution, with the number of classes.
fn own(inputs: &DistillInputs, head: &Head) -> Result<Vec<(Option<Rows>, usize)>> {
    match head {
        Head::Scene(_) => scenes(inputs, head),
        Head::Class => {
            let (student, teacher) = (&inputs.student.class, &inputs.teacher.class);
            let classes = student.dim(1)?;
            if inputs.positives.is_empty() {
                return Ok(vec![(None, classes)]);
            }
            let index = Tensor::from_iter(inputs.positives.iter().map(|p| p.0), &Device::Cpu)?;
            let (student, teacher) = (student.index_select(&index, 0)?, teacher.index_select(&index, 0)?);
            let target = inputs.positives.iter().map(|p| p.1).collect();
            Ok(vec![(Some(Rows { student, teacher, target }), classes)])
        }
        Head::Segmentation => {
            let (student, teacher) = (cells(&inputs.student.segmentation)?, cells(&inputs.teacher.segmentation)?);
            let best = teacher.argmax(1)?.to_vec1::<u32>()?;
            let label = |(&label, best): (&u8, u32)| if label == VOID { best as usize } else { usize::from(label) };
            let classes = student.dim(1)?;
            let target = inputs.mask.iter().zip(best).map(label).collect();
            Ok(vec![(Some(Rows { student, teacher, target }), classes)])
        }
    }
}

/// For each group that `head` has the images of whose scene the teacher knows a class.
fn scenes(inputs: &DistillInputs, head: &Head) -> Result<Vec<(Option<Rows>, usize)>> {
    let mut groups = Vec::with_capacity(inputs.student.scene.len());
    let tensors = inputs.student.scene.iter().zip(&inputs.teacher.scene);
    let named = tensors.zip(&inputs.scene_labels).zip(&inputs.scene_groups);
    for (((student, teacher), labels), _) in named.filter(|(_, group)| head.has_group(group)) {
        let largest = teacher.max(1)?.to_vec1::<f32>()?;
        let known = |&image: &usize| inputs.scene_valid[image] && largest[image] > UNKNOWN_CLASS;
        let images: Vec<usize> = (0..largest.len()).filter(known).collect();
        let classes = student.dim(1)?;
        if images.is_empty() {
            groups.push((None, classes));
            continue;
        }
        let index = Tensor::from_iter(images.iter().map(|&image| image as u32), &Device::Cpu)?;
        let (student, teacher) = (student.index_select(&index, 0)?, teacher.index_select(&index, 0)?);
        let best = teacher.argmax(1)?.to_vec1::<u32>()?;
        let label = |(&image, best): (&usize, u32)| match labels[image] {
            VOID => best as usize,
            label => usize::from(label),
        };
        let target = images.iter().zip(best).map(label).collect();
        groups.push((Some(Rows { student, teacher, target }), classes));
    }
    Ok(groups)
}

/// `[images, classes, cells]` as `[images · cells, classes]`.
pub fn cells(maps: &Tensor) -> Result<Tensor> {
    let classes = maps.dim(1)?;
    maps.transpose(1, 2)?.contiguous()?.reshape(((), classes))
}
