//! Soft targets on disk: boxes in memory, and for each map its place in a shard, to be read when an
//! example needs it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{ensure, Context};
use half::f16;

use super::map::{whole, HalfMap};
use super::shard::ImageSoftTargets;
use crate::file_index::FileStamp;
use crate::teacher::SoftTarget;
use crate::tensor_file::{TensorPlace, TensorReader};

/// The soft targets of one image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredSoftTargets {
    /// In descending order of their scores.
    pub boxes: Vec<SoftTarget>,
    /// `None` without a segmenter.
    pub mask: Option<StoredMap>,
    /// By the student's layer.
    pub features: BTreeMap<String, StoredMap>,
    /// Logits of the scene, group by group; `None` without a classifier.
    pub scene: Option<Vec<f32>>,
}

impl StoredSoftTargets {
    /// With its maps in memory.
    ///
    /// # Errors
    /// As [`StoredMap::read`].
    pub fn read(&self) -> anyhow::Result<ImageSoftTargets> {
        let map = |map: &StoredMap| map.read().map(Arc::new);
        let features = self.features.iter().map(|(layer, stored)| Ok((layer.clone(), map(stored)?)));
        Ok(ImageSoftTargets {
            mask: self.mask.as_ref().map(map).transpose()?,
            features: features.collect::<anyhow::Result<_>>()?,
            boxes: self.boxes.clone(),
            scene: self.scene.clone(),
        })
    }
}

/// A shard as it was when its contents were checked.
#[derive(Debug, PartialEq)]
pub(super) struct ShardFile {
    pub path: PathBuf,
    pub stamp: FileStamp,
}

/// A map in a shard.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredMap {
    shard: Arc<ShardFile>,
    /// `[channels, height, width]`.
    place: TensorPlace,
    /// Left, top, right and bottom of the image, in cells.
    image: [f32; 4],
}

impl StoredMap {
    /// `channels`: `None` for any number. `image`: `None` for the whole grid.
    pub(super) fn find(
        tensors: &TensorReader,
        shard: &Arc<ShardFile>,
        name: &str,
        channels: Option<usize>,
        image: Option<[f32; 4]>,
    ) -> anyhow::Result<Self> {
        let place = tensors.find::<f16>(name, &[channels, None, None])?;
        ensure!(place.bytes > 0, "{name} is empty");
        let image = image.unwrap_or_else(|| whole(place.shape[2], place.shape[1]));
        Ok(Self { shard: Arc::clone(shard), place, image })
    }

    pub fn channels(&self) -> usize {
        self.place.shape[0]
    }

    /// The map, out of the shard.
    ///
    /// # Errors
    /// When the shard has changed since it was opened, or cannot be read; names it.
    pub fn read(&self) -> anyhow::Result<HalfMap> {
        let read = || {
            let file = File::open(&self.shard.path)?;
            let unchanged = FileStamp::from(file.metadata()?) == self.shard.stamp;
            ensure!(unchanged, "these soft targets have changed since they were opened; start again");
            Ok(self.place.read(&file)?)
        };
        let values = read().with_context(|| self.shard.path.display().to_string())?;
        Ok(HalfMap { width: self.place.shape[2], height: self.place.shape[1], values, image: self.image })
    }
}
