//! A file of soft targets, in safetensors: for each of its images the objects' boxes (f32) and raw
//! logits (f16, temperature 1).
//!
//! With a classifier, a tensor `scenes` `[images, classes]` (f16) of logits, all groups' classes in a
//! row.
//!
//! With a segmenter, a tensor `segmentation.N` for the N-th image: logits `[classes, rows,
//! columns]` (f16) of a grid over the whole image. With a feature, say of layer `neck.8.add`, a
//! tensor `feature.neck.8.add.N` `[channels, rows, columns]` (f16), and one `place.neck.8.add`
//! `[images, 4]` (f32): the image's place on that grid.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{ensure, Context};
use half::f16;
use peregrine_core::BoundingBox;

use super::map::{to_f16, HalfMap};
use super::stored::{ShardFile, StoredMap, StoredSoftTargets};
use crate::teacher::SoftTarget;
use crate::tensor_file::{TensorReader, TensorWriter};

/// The soft targets of one image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageSoftTargets {
    /// In descending order of their scores.
    pub boxes: Vec<SoftTarget>,
    /// `None` without a segmenter.
    pub mask: Option<Arc<HalfMap>>,
    /// By the student's layer.
    pub features: BTreeMap<String, Arc<HalfMap>>,
    /// Logits of the scene, group by group; `None` without a classifier.
    pub scene: Option<Vec<f32>>,
}

/// The tensor of all images' scenes.
const SCENES: &str = "scenes";

fn mask_name(image: usize) -> String {
    format!("segmentation.{image}")
}

fn feature_name(layer: &str, image: usize) -> String {
    format!("feature.{layer}.{image}")
}

fn place_name(layer: &str) -> String {
    format!("place.{layer}")
}

fn push(tensors: &mut TensorWriter, name: String, map: &HalfMap) {
    tensors.push(name, &[map.channels(), map.height, map.width], map.values.iter().copied());
}

/// The bytes of a shard. All images have the features of the same layers.
pub(crate) fn serialize(images: &[ImageSoftTargets], classes: usize) -> anyhow::Result<Vec<u8>> {
    let mut tensors = TensorWriter::default();
    let objects = || images.iter().flat_map(|image| &image.boxes);
    let count = objects().count();
    let corners = |b: &BoundingBox| [b.x_min, b.y_min, b.x_max, b.y_max];
    tensors.push("boxes", &[count, 4], objects().flat_map(|object| corners(&object.bbox)));
    tensors.push("logits", &[count, classes], objects().flat_map(|object| to_f16(&object.logits)));
    let ends = images.iter().scan(0u32, |end, image| {
        *end += image.boxes.len() as u32;
        Some(*end)
    });
    tensors.push("ends", &[images.len()], ends);
    let scenes: Vec<&Vec<f32>> = images.iter().filter_map(|image| image.scene.as_ref()).collect();
    if let Some(scene) = scenes.first() {
        let logits = scenes.iter().flat_map(|scene| to_f16(scene));
        tensors.push(SCENES, &[images.len(), scene.len()], logits);
    }
    for (i, image) in images.iter().enumerate() {
        if let Some(mask) = &image.mask {
            push(&mut tensors, mask_name(i), mask);
        }
        for (layer, map) in &image.features {
            push(&mut tensors, feature_name(layer, i), map);
        }
    }
    let layers: BTreeSet<&String> = images.iter().flat_map(|image| image.features.keys()).collect();
    for layer in layers {
        let places = images.iter().filter_map(|image| image.features.get(layer)).flat_map(|map| map.image);
        tensors.push(place_name(layer), &[images.len(), 4], places);
    }
    tensors.into_bytes(None)
}

/// The expected contents of a shard, from its index.
pub(super) struct Contents<'a> {
    /// Number of detection classes.
    pub classes: usize,
    /// Number of segmentation classes; `None` without masks.
    pub masks: Option<usize>,
    /// Number of classes of scenes; 0 without them.
    pub scenes: usize,
    /// Layers with features; only those that are `wanted` are read.
    pub features: &'a [String],
    pub wanted: &'a dyn Fn(&str) -> bool,
}

/// The soft targets of each image of the shard at `path`; maps stay on disk.
///
/// # Errors
/// Names the tensor that is missing or has another shape.
pub(super) fn open(path: &Path, contents: &Contents) -> anyhow::Result<Vec<StoredSoftTargets>> {
    let file = File::open(path)?;
    let shard = Arc::new(ShardFile { path: path.to_owned(), stamp: file.metadata()?.into() });
    let read = || read(&TensorReader::open(&file)?, &shard, contents);
    read().context("invalid shard; delete it and soften again")
}

fn read(tensors: &TensorReader, shard: &Arc<ShardFile>, contents: &Contents) -> anyhow::Result<Vec<StoredSoftTargets>> {
    let objects = objects(tensors, contents.classes)?;
    let ends = tensors.read::<u32>("ends", &[None])?.values;
    let total = ends.last().map_or(0, |&end| end as usize);
    ensure!(ends.is_sorted() && total == objects.len(), "ends does not fit boxes");
    let mut places: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
    for layer in contents.features.iter().filter(|layer| !ends.is_empty() && (contents.wanted)(layer)) {
        let place = tensors.read::<f32>(&place_name(layer), &[Some(ends.len()), Some(4)])?;
        places.insert(layer, place.values);
    }
    let mut scenes = Vec::new();
    if contents.scenes > 0 && !ends.is_empty() {
        scenes = tensors.read::<f16>(SCENES, &[Some(ends.len()), Some(contents.scenes)])?.values;
    }
    let mut images = Vec::with_capacity(ends.len());
    let mut start = 0;
    for (i, end) in ends.into_iter().map(|end| end as usize).enumerate() {
        let mut image = StoredSoftTargets { boxes: objects[start..end].to_vec(), ..Default::default() };
        start = end;
        if let Some(classes) = contents.masks {
            image.mask = Some(StoredMap::find(tensors, shard, &mask_name(i), Some(classes), None)?);
        }
        let scene = scenes.chunks_exact(contents.scenes.max(1)).nth(i);
        image.scene = scene.map(|logits| logits.iter().map(|logit| logit.to_f32()).collect());
        for (&layer, places) in &places {
            let place = std::array::from_fn(|side| places[4 * i + side]);
            let map = StoredMap::find(tensors, shard, &feature_name(layer, i), None, Some(place))?;
            image.features.insert(layer.to_owned(), map);
        }
        images.push(image);
    }
    Ok(images)
}

/// The objects of all images of a shard.
fn objects(tensors: &TensorReader, classes: usize) -> anyhow::Result<Vec<SoftTarget>> {
    let boxes = tensors.read::<f32>("boxes", &[None, Some(4)])?;
    let logits = tensors.read::<f16>("logits", &[Some(boxes.shape[0]), Some(classes)])?.values;
    let object = |(b, logits): (&[f32], &[f16])| SoftTarget {
        bbox: BoundingBox::new(b[0], b[1], b[2], b[3]),
        logits: logits.iter().map(|logit| logit.to_f32()).collect(),
    };
    Ok(boxes.values.chunks_exact(4).zip(logits.chunks_exact(classes.max(1))).map(object).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teacher::UNKNOWN;

    /// What a shard of these bytes holds, with its maps read into memory.
    fn read(bytes: &[u8], masks: Option<usize>, features: &[&str]) -> anyhow::Result<Vec<ImageSoftTargets>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let features: Vec<String> = features.iter().map(|&f| f.to_owned()).collect();
        let scenes = if masks.is_some() { 3 } else { 0 };
        let contents = Contents { classes: 2, masks, scenes, features: &features, wanted: &|name| name != "unwanted" };
        open(file.path(), &contents)?.iter().map(StoredSoftTargets::read).collect()
    }

    fn map(channels: usize, width: usize, height: usize, image: [f32; 4]) -> Arc<HalfMap> {
        let values = (0..channels * width * height).map(|i| f16::from_f32(i as f32)).collect();
        Arc::new(HalfMap { width, height, values, image })
    }

    #[test]
    fn soft_targets_are_read_as_they_were_written() {
        let object = |x: f32| SoftTarget { bbox: BoundingBox::new(x, 1.0, x + 2.5, 9.0), logits: vec![0.5, UNKNOWN] };
        let image = |boxes, width, height| {
            let mask = Some(map(3, width, height, [0.0, 0.0, width as f32, height as f32]));
            let feature =
                |layer: &str, channels| (layer.to_owned(), map(channels, width, height, [0.5, 0.25, 1.5, 1.0]));
            let scene = Some(vec![0.25, width as f32, -30.0]);
            ImageSoftTargets { boxes, mask, scene, features: [feature("a.add", 2), feature("unwanted", 1)].into() }
        };
        let images = [image(vec![object(1.0), object(2.0)], 4, 2), image(vec![], 2, 3), image(vec![object(3.0)], 1, 1)];
        let bytes = serialize(&images, 2).unwrap();
        let found = read(&bytes, Some(3), &["a.add", "unwanted"]).unwrap();
        for (found, written) in found.iter().zip(&images) {
            let mut written = written.clone();
            written.features.remove("unwanted");
            assert_eq!(*found, written);
        }
        let bare =
            |image: &ImageSoftTargets| ImageSoftTargets { boxes: image.boxes.clone(), ..ImageSoftTargets::default() };
        let without: Vec<_> = images.iter().map(bare).collect();
        assert_eq!(read(&serialize(&without, 2).unwrap(), None, &[]).unwrap(), without);
        assert!(format!("{:#}", read(&bytes, Some(4), &[]).unwrap_err()).contains("segmentation.0"));
    }

    #[test]
    fn a_missing_feature_is_named() {
        let bytes = serialize(&[ImageSoftTargets::default()], 2).unwrap();
        let error = format!("{:#}", read(&bytes, None, &["neck.8.add"]).unwrap_err());
        assert!(error.contains("neck.8.add") && error.contains("soften again"), "{error}");
    }
}
