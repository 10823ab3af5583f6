//! A file of soft targets, in safetensors: for each of its images the objects' boxes (f32) and temperature-free logits
//! (f16). Where a segmenter was asked, a tensor `segmentation.N` for the N-th image: logits `[classes, rows, columns]`
//! (f16) of a grid over the whole image. Where a feature was asked for, say of layer `neck.8.add`, a tensor
//! `feature.neck.8.add.N` `[channels, rows, columns]` (f16), and one `place.neck.8.add` `[images, 4]` (f32) that says where
//! the image lies on that grid.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{bail, ensure, Context};
use half::f16;
use peregrine_core::BoundingBox;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::teacher::{Feature, SoftMask, SoftTarget};

/// What teachers made of one image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageSoftTargets {
    /// Best first.
    pub boxes: Vec<SoftTarget>,
    /// Where a segmenter was asked.
    pub mask: Option<Arc<HalfMap>>,
    /// By the student's layer.
    pub features: BTreeMap<String, Arc<HalfMap>>,
}

/// Values of the cells of a grid that an image lies on, in half the memory.
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
}

fn halves(values: &[f32]) -> Vec<f16> {
    values.iter().map(|&v| f16::from_f32(v)).collect()
}

/// The grid of a mask that covers its image exactly.
fn whole(width: usize, height: usize) -> [f32; 4] {
    [0.0, 0.0, width as f32, height as f32]
}

impl From<&SoftMask> for HalfMap {
    fn from(mask: &SoftMask) -> Self {
        let (width, height) = (mask.width, mask.height);
        Self { width, height, values: halves(&mask.logits), image: whole(width, height) }
    }
}

impl TryFrom<&Feature> for HalfMap {
    type Error = anyhow::Error;

    /// # Errors
    /// When a value is none that an f16 can hold.
    fn try_from(feature: &Feature) -> anyhow::Result<Self> {
        let values = halves(&feature.values);
        ensure!(
            values.iter().all(|v| v.is_finite()),
            "a value is not a number, or beyond 65504, the largest of an f16"
        );
        Ok(Self { width: feature.width, height: feature.height, values, image: feature.image })
    }
}

/// The bytes of a shard, for so many detection `classes`.
pub(crate) fn serialize(images: &[ImageSoftTargets], classes: usize) -> Vec<u8> {
    let (mut boxes, mut logits, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let bytes = |values: &[f16]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut count = 0u32;
    for object in images.iter().flat_map(|image| &image.boxes) {
        let b = object.bbox;
        boxes.extend([b.x_min, b.y_min, b.x_max, b.y_max].iter().flat_map(|v| v.to_le_bytes()));
        logits.extend(bytes(&halves(&object.logits)));
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
    let mut places: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for (i, image) in images.iter().enumerate() {
        let shape = |map: &HalfMap| vec![map.channels(), map.height, map.width];
        tensors.extend(image.mask.iter().map(|map| (mask_name(i), Dtype::F16, shape(map), bytes(&map.values))));
        for (layer, map) in &image.features {
            tensors.push((feature_name(layer, i), Dtype::F16, shape(map), bytes(&map.values)));
            places.entry(layer).or_default().extend(map.image.iter().flat_map(|v| v.to_le_bytes()));
        }
    }
    let places = places.into_iter().map(|(layer, bytes)| (place_name(layer), Dtype::F32, vec![images.len(), 4], bytes));
    tensors.extend(places);
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).expect("lengths follow from the shape"))
    });
    safetensors::serialize(views, None).expect("names are unique")
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

/// What a shard is to hold, by its index.
pub(super) struct Contents<'a> {
    /// Detection classes.
    pub classes: usize,
    /// Segmentation classes, where there are masks.
    pub masks: Option<usize>,
    /// Layers of whose features there are; those alone that are `wanted` are read.
    pub features: &'a [String],
    pub wanted: &'a dyn Fn(&str) -> bool,
}

/// What the teachers made of each image of a shard.
///
/// # Errors
/// Names the tensor that is missing or has another shape.
pub(super) fn deserialize(bytes: &[u8], contents: &Contents) -> anyhow::Result<Vec<ImageSoftTargets>> {
    let file = SafeTensors::deserialize(bytes)?;
    let tensor =
        |name: &str| file.tensor(name).with_context(|| format!("has no tensor {name}; delete it and soften again"));
    let words = |name: &str| -> anyhow::Result<Vec<[u8; 4]>> {
        Ok(tensor(name)?.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]).collect())
    };
    let floats =
        |name: &str| -> anyhow::Result<Vec<f32>> { Ok(words(name)?.into_iter().map(f32::from_le_bytes).collect()) };
    let halves = |tensor: &TensorView| -> Vec<f16> {
        tensor.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])).collect()
    };
    let classes = contents.classes;
    let boxes = floats("boxes")?;
    let ends: Vec<usize> = words("ends")?.into_iter().map(|b| u32::from_le_bytes(b) as usize).collect();
    let logits: Vec<f32> = halves(&tensor("logits")?).into_iter().map(f16::to_f32).collect();
    let total = ends.last().copied().unwrap_or(0);
    ensure!(boxes.len() == 4 * total && logits.len() == classes * total, "its tensors do not belong together");
    ensure!(ends.is_sorted(), "its images' ends are out of order");
    let object =
        |(b, l): (&[f32], &[f32])| SoftTarget { bbox: BoundingBox::new(b[0], b[1], b[2], b[3]), logits: l.to_vec() };
    let objects: Vec<SoftTarget> = boxes.chunks_exact(4).zip(logits.chunks_exact(classes)).map(object).collect();
    // A map of so many channels, or of any number; `image` is where it lies, if not on the whole grid.
    let map = |name: &str, channels: Option<usize>, image: Option<[f32; 4]>| -> anyhow::Result<Arc<HalfMap>> {
        let tensor = tensor(name)?;
        match (tensor.dtype(), tensor.shape()) {
            (Dtype::F16, &[found, height, width])
                if channels.is_none_or(|channels| channels == found) && found * width * height > 0 =>
            {
                let image = image.unwrap_or_else(|| whole(width, height));
                Ok(Arc::new(HalfMap { width, height, values: halves(&tensor), image }))
            }
            (_, shape) => {
                let channels = channels.map_or("channels".to_owned(), |channels| channels.to_string());
                bail!("{name} is {shape:?}, not [{channels}, rows, columns]")
            }
        }
    };
    let mut places = BTreeMap::new();
    for layer in contents.features.iter().filter(|layer| !ends.is_empty() && (contents.wanted)(layer)) {
        let place = floats(&place_name(layer))?;
        ensure!(place.len() == 4 * ends.len(), "{} is not [{}, 4]", place_name(layer), ends.len());
        places.insert(layer, place);
    }
    let mut start = 0;
    let image = |(image, end): (usize, usize)| {
        let boxes = objects[std::mem::replace(&mut start, end)..end].to_vec();
        let mask = contents.masks.map(|classes| map(&mask_name(image), Some(classes), None)).transpose()?;
        let feature = |(layer, place): (&&String, &Vec<f32>)| {
            let at = std::array::from_fn(|side| place[4 * image + side]);
            Ok(((*layer).clone(), map(&feature_name(layer, image), None, Some(at))?))
        };
        Ok(ImageSoftTargets { boxes, mask, features: places.iter().map(feature).collect::<anyhow::Result<_>>()? })
    };
    ends.into_iter().enumerate().map(image).collect()
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
    fn soft_targets_survive_the_disk() {
        let object = |x: f32| SoftTarget { bbox: BoundingBox::new(x, 1.0, x + 2.5, 9.0), logits: vec![0.5, UNKNOWN] };
        let image = |boxes, width, height| {
            let mask = Some(map(3, width, height, [0.0, 0.0, width as f32, height as f32]));
            let feature =
                |layer: &str, channels| (layer.to_owned(), map(channels, width, height, [0.5, 0.25, 1.5, 1.0]));
            ImageSoftTargets { boxes, mask, features: [feature("a.add", 2), feature("unwanted", 1)].into() }
        };
        let images = [image(vec![object(1.0), object(2.0)], 4, 2), image(vec![], 2, 3), image(vec![object(3.0)], 1, 1)];
        let bytes = serialize(&images, 2);
        let found = read(&bytes, Some(3), &["a.add", "unwanted"]).unwrap();
        for (found, written) in found.iter().zip(&images) {
            let mut written = written.clone();
            written.features.remove("unwanted");
            assert_eq!(*found, written);
        }
        let bare =
            |image: &ImageSoftTargets| ImageSoftTargets { boxes: image.boxes.clone(), ..ImageSoftTargets::default() };
        let without: Vec<_> = images.iter().map(bare).collect();
        assert_eq!(read(&serialize(&without, 2), None, &[]).unwrap(), without);
        assert!(read(&bytes, Some(4), &[]).unwrap_err().to_string().contains("segmentation.0"));
    }

    #[test]
    fn a_feature_that_is_missing_is_named() {
        let bytes = serialize(&[ImageSoftTargets::default()], 2);
        let error = format!("{:#}", read(&bytes, None, &["neck.8.add"]).unwrap_err());
        assert!(error.contains("neck.8.add") && error.contains("soften again"), "{error}");
    }

    #[test]
    fn a_feature_beyond_what_an_f16_holds_is_refused() {
        for (value, fits) in [(65504.0, true), (1e6, false), (f32::NAN, false)] {
            let feature = Feature { width: 1, height: 1, values: vec![value], image: [0.0, 0.0, 1.0, 1.0] };
            assert_eq!(HalfMap::try_from(&feature).is_ok(), fits);
        }
    }
}
