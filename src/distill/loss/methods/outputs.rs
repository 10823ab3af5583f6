//! The rows of class logits that methods on a head's outputs compare.

use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use crate::data::VOID;
use crate::ranks::Ranks;
use crate::tensor::{Result, Tensor};

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
    /// 1 at the labelled class of each row, or at the teacher's best if there is no label; else 0.
    pub target: Tensor,
    /// `[rows]`: 1 for those that count, else 0.
    pub counted: Tensor,
    /// Their number.
    pub count: f64,
}

impl Rows {
    /// The mean of `of_rows` `[rows]` over those that count.
    ///
    /// # Errors
    /// When candle fails.
    pub fn mean(&self, of_rows: &Tensor) -> Result<Tensor> {
        (of_rows * &self.counted)?.sum_all()? / self.count
    }

    /// Those of all ranks; `None` if none has any. `own`: those of this one; `classes`: of each row.
    fn of_all(own: Option<Self>, classes: usize, ranks: &Ranks) -> Result<Option<Self>> {
        if ranks.is_alone() {
            return Ok(own);
        }
        let part = |of: fn(&Self) -> &Tensor, shape: &[usize]| ranks.gather_rows(own.as_ref().map(of), shape);
        let student = part(|rows| &rows.student, &[classes])?;
        let teacher = part(|rows| &rows.teacher, &[classes])?;
        let target = part(|rows| &rows.target, &[classes])?;
        let counted = part(|rows| &rows.counted, &[])?;
        let count = ranks.total(own.as_ref().map_or(0.0, |rows| rows.count));
        let all = student.zip(teacher).zip(target.zip(counted));
        Ok(all.map(|((student, teacher), (target, counted))| Self { student, teacher, target, counted, count }))
    }
}

/// The rows of each distribution of `head`: classes at positive anchors, classes of every pixel, or
/// those of the images of each group of scenes. One of which no row is known is left out. With
/// several ranks they are those of all, of which this one's are differentiated.
///
/// # Errors
/// When candle fails.
pub fn categorical(inputs: &DistillInputs, head: &Head) -> Result<Vec<Rows>> {
    let all = |(own, classes): (Option<Rows>, usize)| Rows::of_all(own, classes, &inputs.ranks).transpose();
    own(inputs, head)?.into_iter().filter_map(all).collect()
}

/// The rows that this rank has of each distribution, and its classes.
fn own(inputs: &DistillInputs, head: &Head) -> Result<Vec<(Option<Rows>, usize)>> {
    match head {
        Head::Scene(_) => scenes(inputs, head),
        Head::Class => {
            let (student, teacher) = (&inputs.student.class, &inputs.teacher.class);
            let (classes, positives) = (student.dim(1)?, &inputs.positives);
            if positives.is_empty() {
                return Ok(vec![(None, classes)]);
            }
            let slots = positives.len().max(inputs.room);
            let mut index: Vec<u32> = positives.iter().map(|p| p.0).collect();
            index.resize(slots, 0);
            let rows = Rows {
                student: student.index_select(&index, 0)?,
                teacher: teacher.index_select(&index, 0)?,
                target: one_hot(positives.iter().map(|p| Some(p.1)), slots, classes)?,
                counted: Tensor::vector((0..slots).map(|slot| f32::from(u8::from(slot < positives.len()))))?,
                count: positives.len() as f64,
            };
            Ok(vec![(Some(rows), classes)])
        }
        Head::Segmentation => {
            let (student, teacher) = (cells(&inputs.student.segmentation)?, cells(&inputs.teacher.segmentation)?);
            let (count, classes) = student.dims2()?;
            let target = labelled_or_best(&inputs.mask, &teacher)?;
            let counted = Tensor::from_vec(vec![1.0; count], &[count])?;
            Ok(vec![(Some(Rows { student, teacher, target, counted, count: count as f64 }), classes)])
        }
    }
}

/// Those of each group of scenes that `head` names, of which the images count that the teacher knows.
fn scenes(inputs: &DistillInputs, head: &Head) -> Result<Vec<(Option<Rows>, usize)>> {
    let mut groups = Vec::with_capacity(inputs.student.scene.len());
    for group in (0..inputs.scene_groups.len()).filter(|&group| head.has_group(&inputs.scene_groups[group])) {
        let (student, teacher) = (&inputs.student.scene[group], &inputs.teacher.scene[group]);
        let valid = inputs.scene_valid[group].iter().map(|&valid| f32::from(u8::from(valid)));
        let count: f64 = valid.clone().map(f64::from).sum();
        let classes = student.dim(1)?;
        if count == 0.0 {
            groups.push((None, classes));
            continue;
        }
        let target = labelled_or_best(&inputs.scene_labels[group], teacher)?;
        let (student, teacher, counted) = (student.clone(), teacher.clone(), Tensor::vector(valid)?);
        groups.push((Some(Rows { student, teacher, target, counted, count }), classes));
    }
    Ok(groups)
}

/// 1 at each row's label, or at the teacher's best class where that is [`VOID`]; `[rows, classes]`.
fn labelled_or_best(labels: &[u8], teacher: &Tensor) -> Result<Tensor> {
    let (rows, classes) = teacher.dims2()?;
    let is_void = labels.iter().map(|&label| f32::from(u8::from(label == VOID)));
    let is_void = Tensor::from_vec(is_void.collect(), &[rows, 1])?;
    let labels = labels.iter().map(|&label| (label != VOID).then_some(usize::from(label)));
    one_hot(labels, rows, classes)? + teacher.one_hot_of_max()?.broadcast_mul(&is_void)?
}

/// `[rows, classes]`: 1 at each label; rows of zeros without one and beyond the labels.
fn one_hot(labels: impl Iterator<Item = Option<usize>>, rows: usize, classes: usize) -> Result<Tensor> {
    let mut one_hot = vec![0.0f32; rows * classes];
    for (row, label) in one_hot.chunks_mut(classes).zip(labels) {
        if let Some(label) = label {
            row[label] = 1.0;
        }
    }
    Tensor::from_vec(one_hot, &[rows, classes])
}

/// `[images, classes, cells]` as `[images · cells, classes]`.
pub fn cells(maps: &Tensor) -> Result<Tensor> {
    maps.transpose(1, 2)?.rows_of(maps.dim(1)?)
}
