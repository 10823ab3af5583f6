//! A folder of soft targets: an `index.json`, and shards in safetensors with, for each image of a shard, its objects' boxes
//! (f32) and temperature-free logits (f16); and, where a segmenter was asked, a tensor `segmentation.N` for the N-th image:
//! logits `[classes, rows, columns]` (f16) of a grid over the whole image. Another kind of tensor by image would be stored
//! beside it in the same way.
//!
//! A shard counts once the index names it with its hash, so that a run that was killed goes on with the first image that is
//! missing.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{bail, ensure, Context};
use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::decode::BoundingBox;
use crate::distill::teacher::{SoftBox, SoftMask};
use crate::student::package::sha256;

/// Name of the index in its folder.
pub(super) const INDEX: &str = "index.json";

/// What a folder of soft targets holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Index {
    /// Name of each teacher, and a hash of its network and description.
    pub teachers: Vec<(String, String)>,
    pub classes: Vec<String>,
    /// Those of `classes` that some teacher knows; without it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Vec<String>>,
    /// The segmentation classes, where a segmenter was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Vec<String>>,
    pub shards: Vec<Shard>,
}

/// One file of soft targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Shard {
    pub file: String,
    pub sha256: String,
    /// The data set's name, which `distill student` finds it by.
    pub dataset: String,
    /// The folder that the images were read from.
    #[serde(default)]
    pub folder: String,
    pub images: Vec<String>,
    /// Images that could not be read and were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
}

impl Index {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("{}: no soft targets here", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{}: not an index of soft targets", path.display()))
    }
}

/// What teachers made of one image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Softened {
    /// Best first.
    pub boxes: Vec<SoftBox>,
    /// Where a segmenter was asked.
    pub mask: Option<Arc<HalfMask>>,
}

/// A [`SoftMask`] in half the memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HalfMask {
    pub width: usize,
    pub height: usize,
    /// `[classes, height, width]`, at a temperature of 1.
    pub logits: Vec<f16>,
}

impl From<&SoftMask> for HalfMask {
    fn from(mask: &SoftMask) -> Self {
        let logits = mask.logits.iter().map(|&v| f16::from_f32(v)).collect();
        Self { width: mask.width, height: mask.height, logits }
    }
}

/// Soft targets in memory.
pub struct SoftTargets {
    by_image: HashMap<(String, String), Softened>,
    /// Teachers' names.
    pub teachers: Vec<String>,
    /// The student's classes that the logits are of.
    pub classes: Vec<String>,
    /// For each of them whether some teacher knows it, so that what was not seen is not there.
    pub known: Vec<bool>,
    /// The segmentation classes, where a segmenter was asked.
    pub segmentation: Option<Vec<String>>,
}

impl SoftTargets {
    /// Reads a folder that `distill soften` wrote.
    ///
    /// # Errors
    /// When a file is missing, or is not what the index says.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let index = Index::read(&folder.join(INDEX))?;
        let mut by_image = HashMap::new();
        for shard in &index.shards {
            let path = folder.join(&shard.file);
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            if sha256(&bytes) != shard.sha256 {
                bail!("{}: is not the file that index.json names; delete both and soften again", path.display());
            }
            let masks = index.segmentation.as_ref().map(Vec::len);
            let found = deserialize(&bytes, index.classes.len(), masks).with_context(|| path.display().to_string())?;
            ensure!(found.len() == shard.images.len(), "{}: holds another number of images", path.display());
            let keys = shard.images.iter().map(|image| (shard.dataset.clone(), image.clone()));
            by_image.extend(keys.zip(found));
        }
        let known = |class: &String| index.known.as_ref().is_none_or(|known| known.contains(class));
        Ok(Self {
            by_image,
            teachers: index.teachers.into_iter().map(|t| t.0).collect(),
            known: index.classes.iter().map(known).collect(),
            classes: index.classes,
            segmentation: index.segmentation,
        })
    }

    /// What the teachers made of an image; `None` where they were not asked.
    pub fn of(&self, dataset: &str, file: &str) -> Option<&Softened> {
        self.by_image.get(&(dataset.to_owned(), file.to_owned()))
    }
}

/// The bytes of a shard, for so many detection `classes`.
pub(in crate::distill) fn serialize(images: &[Softened], classes: usize) -> Vec<u8> {
    let (mut boxes, mut logits, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let halves = |values: &[f16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut count = 0u32;
    for object in images.iter().flat_map(|image| &image.boxes) {
        let b = object.bbox;
        boxes.extend([b.x_min, b.y_min, b.x_max, b.y_max].iter().flat_map(|v| v.to_le_bytes()));
        logits.extend(object.logits.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
    }
    for image in images {
        count += image.boxes.len() as u32;
        ends.extend(count.to_le_bytes());
    }
    let n = count as usize;
    let mut tensors = vec![
        ("boxes".to_owned(), Dtype::F32, vec![n, 4], boxes),
        ("logits".to_owned(), Dtype::F16, vec![n, classes], logits),
        ("ends".to_owned(), Dtype::U32, vec![images.len()], ends),
    ];
    for (i, mask) in images.iter().enumerate().filter_map(|(i, image)| Some((i, image.mask.as_ref()?))) {
        let shape = vec![mask.logits.len() / (mask.width * mask.height), mask.height, mask.width];
        tensors.push((mask_name(i), Dtype::F16, shape, halves(&mask.logits)));
    }
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).expect("lengths follow from the shape"))
    });
    safetensors::serialize(views, None).expect("names are unique")
}

fn mask_name(image: usize) -> String {
    format!("segmentation.{image}")
}

/// `masks`: the number of segmentation classes, where there are masks.
fn deserialize(bytes: &[u8], classes: usize, masks: Option<usize>) -> anyhow::Result<Vec<Softened>> {
    let file = SafeTensors::deserialize(bytes)?;
    let words = |name: &str| -> anyhow::Result<Vec<[u8; 4]>> {
        let tensor = file.tensor(name)?;
        Ok(tensor.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]).collect())
    };
    let halves = |tensor: &TensorView| -> Vec<f16> {
        tensor.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])).collect()
    };
    let boxes: Vec<f32> = words("boxes")?.into_iter().map(f32::from_le_bytes).collect();
    let ends: Vec<usize> = words("ends")?.into_iter().map(|b| u32::from_le_bytes(b) as usize).collect();
    let logits: Vec<f32> = halves(&file.tensor("logits")?).into_iter().map(f16::to_f32).collect();
    let total = ends.last().copied().unwrap_or(0);
    ensure!(boxes.len() == 4 * total && logits.len() == classes * total, "its tensors do not belong together");
    ensure!(ends.is_sorted(), "its images' ends are out of order");
    let object =
        |(b, l): (&[f32], &[f32])| SoftBox { bbox: BoundingBox::new(b[0], b[1], b[2], b[3]), logits: l.to_vec() };
    let objects: Vec<SoftBox> = boxes.chunks_exact(4).zip(logits.chunks_exact(classes)).map(object).collect();
    let mask = |image: usize, classes: usize| -> anyhow::Result<Arc<HalfMask>> {
        let tensor = file.tensor(&mask_name(image))?;
        match (tensor.dtype(), tensor.shape()) {
            (Dtype::F16, &[found, height, width]) if found == classes && width > 0 && height > 0 => {
                Ok(Arc::new(HalfMask { width, height, logits: halves(&tensor) }))
            }
            (_, shape) => bail!("{} is {shape:?}, not [{classes}, rows, columns]", mask_name(image)),
        }
    };
    let mut start = 0;
    let image = |(image, end): (usize, usize)| {
        let boxes = objects[std::mem::replace(&mut start, end)..end].to_vec();
        Ok(Softened { boxes, mask: masks.map(|classes| mask(image, classes)).transpose()? })
    };
    ends.into_iter().enumerate().map(image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::teacher::UNKNOWN;

    #[test]
    fn soft_targets_survive_the_disk() {
        let object = |x: f32| SoftBox { bbox: BoundingBox::new(x, 1.0, x + 2.5, 9.0), logits: vec![0.5, UNKNOWN] };
        let mask = |width, height| {
            let logits = (0..3 * width * height).map(|i| f16::from_f32(i as f32)).collect();
            Some(Arc::new(HalfMask { width, height, logits }))
        };
        let images = [
            Softened { boxes: vec![object(1.0), object(2.0)], mask: mask(4, 2) },
            Softened { boxes: vec![], mask: mask(2, 3) },
            Softened { boxes: vec![object(3.0)], mask: mask(1, 1) },
        ];
        let bytes = serialize(&images, 2);
        assert_eq!(deserialize(&bytes, 2, Some(3)).unwrap(), images);
        let without: Vec<_> = images.iter().map(|image| Softened { mask: None, ..image.clone() }).collect();
        assert_eq!(deserialize(&serialize(&without, 2), 2, None).unwrap(), without);
        assert!(deserialize(&bytes, 2, Some(4)).unwrap_err().to_string().contains("segmentation.0"));
    }

    #[test]
    fn a_damaged_shard_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = serialize(&[Softened::default()], 2);
        let shard = Shard {
            file: "a-0000.safetensors".into(),
            sha256: sha256(b"other"),
            dataset: "a".into(),
            folder: String::new(),
            images: vec!["x.jpg".into()],
            skipped: vec![],
        };
        let classes = vec!["p".into(), "q".into()];
        let index = Index { teachers: vec![], classes, known: None, segmentation: None, shards: vec![shard] };
        std::fs::write(folder.path().join(INDEX), serde_json::to_vec(&index).unwrap()).unwrap();
        std::fs::write(folder.path().join("a-0000.safetensors"), bytes).unwrap();
        let error = SoftTargets::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("a-0000.safetensors"), "{error}");
    }

    #[test]
    fn an_index_says_which_classes_the_teachers_know_and_one_without_it_means_all() {
        let folder = tempfile::tempdir().unwrap();
        let known = |index: &str| {
            std::fs::write(folder.path().join(INDEX), index).unwrap();
            SoftTargets::open(folder.path()).unwrap().known
        };
        let rest = "\"teachers\":[],\"classes\":[\"car\",\"bus\"],\"shards\":[]";
        assert_eq!(known(&format!("{{{rest}}}")), [true, true]);
        assert_eq!(known(&format!("{{{rest},\"known\":[\"bus\"]}}")), [false, true]);
    }
}
