//! Soft targets as a training reads them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{bail, ensure, Context};
use peregrine_student::SceneHead;
use sha2::{Digest, Sha256};

use super::place::Place;
use super::shard::{self, Contents};
use super::stored::StoredSoftTargets;
use crate::file_index::{Entry, FileIndex, FileStamp};

/// Soft targets: boxes in memory, maps on disk.
pub struct SoftTargets {
    by_image: HashMap<(String, String), StoredSoftTargets>,
    /// SHA-256 of the images' files, where it is known.
    hashes: HashMap<(String, String), String>,
    /// Teachers' names.
    pub teachers: Vec<String>,
    /// The student's classes, in the order of the logits.
    pub classes: Vec<String>,
    /// For each class whether a teacher knows it, so that no box of it means no object of it.
    pub known: Vec<bool>,
    /// The segmentation classes; `None` without a segmenter.
    pub segmentation: Option<Vec<String>>,
    /// The student's scene head; `None` without a classifier.
    pub scene: Option<SceneHead>,
    /// The student's layers with features, and their number of channels; 0 without images.
    pub features: BTreeMap<String, usize>,
}

impl SoftTargets {
    /// Reads a folder that `distill soften` wrote, here or in an object store, with all features.
    ///
    /// # Errors
    /// When a file is missing, or does not fit the index.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        Self::open_with(folder, &|_| true, &mut FileIndex::default())
    }

    /// As [`open`](Self::open), with only those features that are `wanted`. Shards whose hashes the
    /// `checked` index knows are not hashed again.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(folder: &Path, wanted: &dyn Fn(&str) -> bool, checked: &mut FileIndex) -> anyhow::Result<Self> {
        let place = Place::of(folder)?;
        let index = place.index()?;
        if let Some(share) = &index.share {
            bail!("{place}: is part {} of soft targets; join all parts by distill merge", share.part);
        }
        let folder = place.shards(&index.shards)?;
        let (mut by_image, mut hashes) = (HashMap::new(), HashMap::new());
        let mut features: BTreeMap<String, usize> = index.features.iter().map(|layer| (layer.clone(), 0)).collect();
        for shard in &index.shards {
            let path = folder.join(&shard.file);
            if hash(&path, checked).with_context(|| path.display().to_string())? != shard.sha256 {
                bail!("{}: its hash is not the one in index.json; delete both and soften again", path.display());
            }
            let masks = index.segmentation.as_ref().map(Vec::len);
            let (classes, scenes) = (index.classes.len(), index.scenes());
            let contents = Contents { classes, masks, scenes, features: &index.features, wanted };
            let found = shard::open(&path, &contents).with_context(|| path.display().to_string())?;
            ensure!(
                found.len() == shard.images.len(),
                "{}: its number of images is not the one in index.json",
                path.display()
            );
            for (layer, map) in found.iter().flat_map(|image| &image.features) {
                let channels = features.entry(layer.clone()).or_default();
                let fits = *channels == 0 || *channels == map.channels();
                ensure!(
                    fits,
                    "{}: feature {layer} has {} channels, elsewhere {channels}",
                    path.display(),
                    map.channels()
                );
                *channels = map.channels();
            }
            let keys = || shard.images.iter().map(|image| (shard.dataset.clone(), image.clone()));
            hashes.extend(keys().zip(shard.hashes.iter().cloned()));
            by_image.extend(keys().zip(found));
        }
        let known = |class: &String| index.known.as_ref().is_none_or(|known| known.contains(class));
        Ok(Self {
            by_image,
            hashes,
            teachers: index.teachers.into_iter().map(|t| t.0).collect(),
            known: index.classes.iter().map(known).collect(),
            classes: index.classes,
            segmentation: index.segmentation,
            scene: index.scene,
            features,
        })
    }

    /// Refuses an image, whose SHA-256 is `sha256`, that is not the one of which the soft targets are.
    ///
    /// # Errors
    /// When the file has changed since; names `image`.
    pub fn check(&self, dataset: &str, file: &str, image: &Path, sha256: &str) -> anyhow::Result<()> {
        let of = self.hashes.get(&(dataset.to_owned(), file.to_owned()));
        ensure!(
            of.is_none_or(|hash| hash == sha256),
            "{}: is another image than the one that soft_targets are of; run distill soften again",
            image.display()
        );
        Ok(())
    }

    /// The soft targets of an image, if it has any.
    pub fn of(&self, dataset: &str, file: &str) -> Option<&StoredSoftTargets> {
        self.by_image.get(&(dataset.to_owned(), file.to_owned()))
    }
}

/// A shard's SHA-256, as `checked` knows it, or computed.
fn hash(path: &Path, checked: &mut FileIndex) -> anyhow::Result<String> {
    let stamp = FileStamp::of(path)?;
    if let Some(entry) = checked.get(path, stamp) {
        return Ok(entry.sha256.clone());
    }
    let (mut hasher, mut file, mut part) = (Sha256::new(), File::open(path)?, vec![0; 1 << 20]);
    loop {
        match file.read(&mut part)? {
            0 => break,
            length => hasher.update(&part[..length]),
        }
    }
    let sha256: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    checked.insert(path.to_owned(), Entry { stamp, sha256: sha256.clone(), size: None, pixels: None, meaning: None });
    Ok(sha256)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use half::f16;
    use peregrine_core::files::sha256;

    use super::*;
    use crate::soften::index::{Index, Shard, INDEX};
    use crate::soften::map::HalfMap;
    use crate::soften::shard::{serialize, ImageSoftTargets};

    #[test]
    fn a_damaged_shard_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = serialize(&[ImageSoftTargets::default()], 2).unwrap();
        let shard = Shard {
            file: "a-0000.safetensors".into(),
            sha256: sha256(b"other"),
            dataset: "a".into(),
            folder: String::new(),
            images: vec!["x.jpg".into()],
            hashes: vec![],
            skipped: vec![],
        };
        let classes = vec!["p".into(), "q".into()];
        let shards = vec![shard];
        let index = Index {
            teachers: vec![],
            classes,
            known: None,
            segmentation: None,
            scene: None,
            features: vec![],
            flip: false,
            share: None,
            shards,
        };
        std::fs::write(folder.path().join(INDEX), serde_json::to_vec(&index).unwrap()).unwrap();
        std::fs::write(folder.path().join("a-0000.safetensors"), bytes).unwrap();
        let error = SoftTargets::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("a-0000.safetensors"), "{error}");
    }

    /// Writes soft targets of one image, with a mask of this value everywhere.
    fn write(folder: &Path, value: f32) {
        let map = HalfMap { width: 3, height: 2, values: vec![f16::from_f32(value); 6], image: [0.0, 0.0, 3.0, 2.0] };
        let image = ImageSoftTargets { mask: Some(Arc::new(map)), ..ImageSoftTargets::default() };
        let bytes = serialize(&[image], 1).unwrap();
        let index = serde_json::json!({
            "teachers": [], "classes": ["car"], "segmentation": ["road"],
            "shards": [{ "file": "s", "sha256": sha256(&bytes), "dataset": "d", "images": ["x.jpg"] }],
        });
        std::fs::write(folder.join("s"), bytes).unwrap();
        std::fs::write(folder.join(INDEX), index.to_string()).unwrap();
    }

    #[test]
    fn a_shard_that_changes_while_it_is_open_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 1.0);
        let soft = SoftTargets::open(folder.path()).unwrap();
        let map = soft.of("d", "x.jpg").unwrap().mask.clone().unwrap();
        assert_eq!(map.read().unwrap().values, [f16::ONE; 6]);
        let path = folder.path().join("s");
        let bytes = std::fs::read(&path).unwrap();
        for length in [bytes.len() - 4, 0] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = format!("{:#}", map.read().unwrap_err());
            assert!(error.contains(path.to_str().unwrap()) && error.contains("changed"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(map.read().is_err());
    }

    #[test]
    fn a_checked_shard_is_hashed_again_only_when_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        write(folder.path(), 1.0);
        let mut checked = FileIndex::default();
        let first = hash(&path, &mut checked).unwrap();
        assert_eq!(first, sha256(&std::fs::read(&path).unwrap()));
        let entry = checked.get(&path, FileStamp::of(&path).unwrap()).unwrap().clone();
        checked.insert(path.clone(), Entry { sha256: "remembered".into(), ..entry });
        assert_eq!(hash(&path, &mut checked).unwrap(), "remembered");
        write(folder.path(), 2.0);
        File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_ne!(hash(&path, &mut checked).unwrap(), "remembered");
    }

    #[test]
    fn known_classes_are_those_of_the_index_and_all_by_default() {
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
