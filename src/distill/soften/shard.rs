//! A file of soft targets, in safetensors: for each of its images the objects' boxes (f32) and raw
//! logits (f16, temperature 1).
//!
//! With a segmenter, a tensor `segmentation.N` for the N-th image: logits `[classes, rows,
//! columns]` (f16) of a grid over the whole image. With a feature, say of layer `neck.8.add`, a
//! tensor `feature.neck.8.add.N` `[channels, rows, columns]` (f16), and one `place.neck.8.add`
//! `[images, 4]` (f32): the image's place on that grid.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{ensure, Context};
use half::f16;
use peregrine_core::BoundingBox;

use crate::teacher::{Feature, SoftMask, SoftTarget};
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
}

/// A map in f16 on a grid, and the image's place on it.
#[derive(Debug, Clone, PartialEq)]
pub struct HalfMap {
    pub width: usize,
    pub height: usize,
    /// `[channels, height, width]`; logits are at a temperature of 1.
    pub values: Vec<f16>,
    /// Left, top, right and bottom of the image, in cells.
    pub image: [f32; 4],
}

impl HalfMap {
    pub fn channels(&self) -> usize {
        self.values.len() / (self.width * self.height)
    }

    fn write(&self, tensors: &mut TensorWriter, name: String) {
        tensors.push(name, &[self.channels(), self.height, self.width], self.values.iter().copied());
    }

    /// `channels`: `None` for any number. `image`: `None` for the whole grid.
    fn read(
        tensors: &TensorReader,
        name: &str,
        channels: Option<usize>,
        image: Option<[f32; 4]>,
    ) -> anyhow::Result<Arc<Self>> {
        let tensor = tensors.read::<f16>(name, &[channels, None, None])?;
        ensure!(!tensor.values.is_empty(), "{name} is empty");
        let (height, width) = (tensor.shape[1], tensor.shape[2]);
        let image = image.unwrap_or_else(|| whole(width, height));
        Ok(Arc::new(Self { width, height, values: tensor.values, image }))
    }
}

/// The place of an image that covers the whole grid.
fn whole(width: usize, height: usize) -> [f32; 4] {
    [0.0, 0.0, width as f32, height as f32]
}

impl From<&SoftMask> for HalfMap {
    fn from(mask: &SoftMask) -> Self {
        let (width, height) = (mask.width, mask.height);
        Self { width, height, values: to_f16(&mask.logits).collect(), image: whole(width, height) }
    }
}

impl TryFrom<&Feature> for HalfMap {
    type Error = anyhow::Error;

    /// # Errors
    /// When a value exceeds the range of f16.
    fn try_from(feature: &Feature) -> anyhow::Result<Self> {
        let values: Vec<f16> = to_f16(&feature.values).collect();
        ensure!(values.iter().all(|v| v.is_finite()), "a value is NaN or exceeds 65504, the largest f16");
        Ok(Self { width: feature.width, height: feature.height, values, image: feature.image })
    }
}

fn to_f16(values: &[f32]) -> impl Iterator<Item = f16> + '_ {
    values.iter().map(|&value| f16::from_f32(value))
}

fn mask_name(image: usize) -> String {
    format!("segmentation.{image}")
}

fn feature_name(layer: &str, image: usize) -> String {
    format!("feature.{layer}.{image}")
}

fn place_name(layer: &str) -> String {
    format!("place.{layer}")
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
    for (i, image) in images.iter().enumerate() {
        if let Some(mask) = &image.mask {
            mask.write(&mut tensors, mask_name(i));
        }
        for (layer, map) in &image.features {
            map.write(&mut tensors, feature_name(layer, i));
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
    /// Layers with features; only those that are `wanted` are read.
    pub features: &'a [String],
    pub wanted: &'a dyn Fn(&str) -> bool,
}

/// The soft targets of each image of a shard.
///
/// # Errors
/// Names the tensor that is missing or has another shape.
pub(super) fn deserialize(bytes: &[u8], contents: &Contents) -> anyhow::Result<Vec<ImageSoftTargets>> {
    read(&TensorReader::new(bytes)?, contents).context("invalid shard; delete it and soften again")
}

fn read(tensors: &TensorReader, contents: &Contents) -> anyhow::Result<Vec<ImageSoftTargets>> {
    let objects = objects(tensors, contents.classes)?;
    let ends = tensors.read::<u32>("ends", &[None])?.values;
    let total = ends.last().map_or(0, |&end| end as usize);
    ensure!(ends.is_sorted() && total == objects.len(), "ends does not fit boxes");
    let mut places: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
    for layer in contents.features.iter().filter(|layer| !ends.is_empty() && (contents.wanted)(layer)) {
        let place = tensors.read::<f32>(&place_name(layer), &[Some(ends.len()), Some(4)])?;
        places.insert(layer, place.values);
    }
    let mut images = Vec::with_capacity(ends.len());
    let mut start = 0;
    for (i, end) in ends.into_iter().map(|end| end as usize).enumerate() {
        let mut image = ImageSoftTargets { boxes: objects[start..end].to_vec(), ..Default::default() };
        start = end;
        if let Some(classes) = contents.masks {
            image.mask = Some(HalfMap::read(tensors, &mask_name(i), Some(classes), None)?);
        }
        for (&layer, places) in &places {
            let place = std::array::from_fn(|side| places[4 * i + side]);
            let map = HalfMap::read(tensors, &feature_name(layer, i), None, Some(place))?;
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

    fn read(bytes: &[u8], masks: Option<usize>, features: &[&str]) -> anyhow::Result<Vec<ImageSoftTargets>> {
        let features: Vec<String> = features.iter().map(|&f| f.to_owned()).collect();
        deserialize(bytes, &Contents { classes: 2, masks, features: &features, wanted: &|name| name != "unwanted" })
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
            ImageSoftTargets { boxes, mask, features: [feature("a.add", 2), feature("unwanted", 1)].into() }
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

    #[test]
    fn a_feature_beyond_the_range_of_f16_is_refused() {
        for (value, fits) in [(65504.0, true), (1e6, false), (f32::NAN, false)] {
            let feature = Feature { width: 1, height: 1, values: vec![value], image: [0.0, 0.0, 1.0, 1.0] };
            assert_eq!(HalfMap::try_from(&feature).is_ok(), fits);
        }
    }
}
