//! The images that a training draws from: labels and soft targets in memory, pixels on disk.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::ensure;
use peregrine_student::Architecture;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::config::StudentConfig;
use super::image_cache::{ImageCache, Pixels};
use super::objects::{self, Object};
use super::soft_view::Grid;
use super::survey::{refuse_other_size, SampleFiles, Survey};
use crate::data::scene::balance;
use crate::data::{load_image, log_skipped, refuse_same_names, DataError, Dataset, Skipped};
use crate::picture::Staying;
use crate::soften::stored::StoredMap;
use crate::soften::SoftTargets;

/// How images are read while training; changes no result.
#[derive(Debug, Clone, Copy)]
pub struct Loading {
    /// Bytes of decoded images that are kept in memory.
    pub cache: usize,
    /// Threads that read and render.
    pub threads: usize,
}

impl Default for Loading {
    /// 1 GiB, and as many threads as cores, up to 8.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { cache: 1 << 30, threads: cores.min(8) }
    }
}

/// A source image, with its labels and soft targets.
pub struct TrainImage {
    /// Its number among the samples of its data set.
    sample: usize,
    pub(super) objects: Vec<Object>,
    pub(super) soft_mask: Option<StoredMap>,
    /// The soft targets' features for each layer that learns from them.
    pub(super) features: Vec<Option<StoredMap>>,
    /// The soft targets' logits of its scene.
    pub(super) soft_scene: Option<Vec<f32>>,
    /// For each class, whether a missing label means that there is no object.
    pub(super) known: Vec<bool>,
}

/// The images of a data set.
struct ImageSet {
    dataset: Dataset,
    images: Vec<TrainImage>,
    /// Sampling weight.
    share: f64,
    /// Whether labels are ignored.
    unlabelled: bool,
    /// For balanced sampling, the sum of the images' weights up to each; empty without.
    balance: Vec<f64>,
    /// The number of its first image in the cache.
    first: usize,
}

impl ImageSet {
    /// The class of each group of scenes, if it is labelled.
    fn scene(&self, image: usize) -> &[Option<usize>] {
        if self.unlabelled {
            return &[];
        }
        &self.dataset.samples[self.images[image].sample].scene.classes
    }

    /// A random image.
    fn draw(&self, rng: &mut ChaCha8Rng) -> usize {
        let Some(&total) = self.balance.last() else { return rng.random_range(0..self.images.len()) };
        let at = rng.random_range(0.0..total);
        self.balance.partition_point(|sum| *sum <= at).min(self.images.len() - 1)
    }
}

/// The training images, by data set.
pub struct TrainImages {
    sets: Vec<ImageSet>,
    /// The cells of each layer that learns from the soft targets' features.
    pub(super) layers: Vec<Grid>,
    /// Pixels of each segmentation class in all masks.
    mask_pixels: Vec<u64>,
    pub(super) threads: usize,
    cache: ImageCache,
    /// Images, by set and number, that could not be read any more when they were drawn.
    lost: Mutex<BTreeSet<(usize, usize)>>,
}

impl TrainImages {
    /// Takes the images of the surveyed data sets, with their soft targets; of the features, those
    /// for `layers`.
    ///
    /// # Errors
    /// When an image or mask is damaged, unless the configuration skips those; when the soft
    /// targets are of other classes, or there are none for any of the images.
    pub fn load(
        config: &StudentConfig,
        survey: Survey,
        architecture: &Architecture,
        soft_targets: Option<&SoftTargets>,
        layers: &[(String, Grid)],
        loading: Loading,
    ) -> anyhow::Result<Self> {
        let classes = architecture.detection_classes();
        if let Some(soft) = soft_targets {
            ensure!(
                soft.classes == classes,
                "soft_targets are of {}, but the student detects {}",
                soft.classes.join(", "),
                classes.join(", ")
            );
            let datasets = survey.0.iter().map(|set| &set.dataset);
            refuse_same_names(config.data.iter().map(|source| source.folder.as_path()).zip(datasets))?;
        }
        let mut mask_pixels = vec![0; architecture.segmentation_classes().len()];
        let (mut sets, mut skipped, mut coverage, mut first) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (source, surveyed) in config.data.iter().zip(survey.0) {
            let dataset = surveyed.dataset;
            let mut images = Vec::with_capacity(dataset.samples.len());
            let mut found = 0;
            for (number, (sample, files)) in dataset.samples.iter().zip(surveyed.files).enumerate() {
                let sha256 = files.image.sha256.clone();
                match pixels_of_classes(files, source.unlabelled) {
                    Ok(counts) => mask_pixels.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count),
                    Err(e) if config.skip_bad => {
                        skipped.push(Skipped { path: sample.image.clone(), reason: e.to_string() });
                        continue;
                    }
                    Err(e) => return Err(e.into()),
                }
                let soft = soft_targets.and_then(|s| s.of(&dataset.name, sample.file_name()));
                if let (Some(targets), Some(_)) = (soft_targets, soft) {
                    targets.check(&dataset.name, sample.file_name(), &sample.image, &sha256)?;
                }
                found += usize::from(soft.is_some());
                let feature = |(layer, _): &(String, Grid)| soft.and_then(|s| s.features.get(layer)).cloned();
                let boxes = if source.unlabelled { None } else { sample.boxes.as_deref() };
                let detected = |class: usize| soft.is_some() && soft_targets.is_some_and(|s| s.known[class]);
                images.push(TrainImage {
                    sample: number,
                    objects: objects::merge(
                        boxes.unwrap_or_default(),
                        soft.map_or(&[], |s| &s.boxes),
                        config.pseudo_label_score,
                    ),
                    soft_mask: soft.and_then(|s| s.mask.clone()).filter(|_| config.takes_masks()),
                    features: layers.iter().map(feature).collect(),
                    soft_scene: soft.and_then(|s| s.scene.clone()).filter(|_| config.takes_scenes()),
                    known: (0..classes.len())
                        .map(|class| detected(class) || (boxes.is_some() && dataset.labelled[class]))
                        .collect(),
                });
            }
            ensure!(!images.is_empty(), "{}: none of its images can be read", source.folder.display());
            coverage.push((found, images.len(), dataset.name.clone()));
            let count = images.len();
            let unlabelled = source.unlabelled;
            let mut set = ImageSet { dataset, images, share: source.share, unlabelled, balance: Vec::new(), first };
            if config.scene_balance && !unlabelled {
                set.balance = balance((0..count).map(|image| set.scene(image)));
            }
            sets.push(set);
            first += count;
        }
        if soft_targets.is_some() {
            report_coverage(&coverage)?;
        }
        log_skipped(&skipped);
        Ok(Self {
            sets,
            layers: layers.iter().map(|(_, grid)| *grid).collect(),
            mask_pixels,
            threads: loading.threads,
            cache: ImageCache::new(loading.cache),
            lost: Mutex::default(),
        })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.sets.iter().map(|set| set.images.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pixels of each segmentation class in all masks, to compute class weights from.
    pub fn mask_pixels(&self) -> &[u64] {
        &self.mask_pixels
    }

    /// A random image: its set, by the sets' shares, and its number there.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> (usize, usize) {
        let total: f64 = self.sets.iter().map(|set| set.share).sum();
        let mut at = rng.random_range(0.0..total);
        for (number, set) in self.sets.iter().enumerate() {
            if at < set.share {
                return (number, set.draw(rng));
            }
            at -= set.share;
        }
        (0, 0)
    }

    pub(super) fn image(&self, set: usize, image: usize) -> &TrainImage {
        &self.sets[set].images[image]
    }

    /// The class of each group of scenes, if it is labelled.
    pub(super) fn scene(&self, set: usize, image: usize) -> &[Option<usize>] {
        self.sets[set].scene(image)
    }

    /// Width and height in pixels.
    pub(super) fn size(&self, set: usize, image: usize) -> (u32, u32) {
        let set = &self.sets[set];
        set.dataset.samples[set.images[image].sample].size
    }

    /// The pixels of each image.
    pub fn areas(&self) -> impl Iterator<Item = usize> + '_ {
        let of_set = move |set: usize| (0..self.sets[set].images.len()).map(move |image| self.size(set, image));
        (0..self.sets.len()).flat_map(of_set).map(|(width, height)| width as usize * height as usize)
    }

    pub(super) fn path(&self, set: usize, image: usize) -> &PathBuf {
        let set = &self.sets[set];
        &set.dataset.samples[set.images[image].sample].image
    }

    /// What tells an image from those of all sets.
    pub(super) fn number(&self, set: usize, image: usize) -> usize {
        self.sets[set].first + image
    }

    /// The pixels of an image, or with `skip` of the next one in its set that can be read: its
    /// number, and the pixels; those of its mask alone where it is `staying`. Each image that is passed
    /// over is named once, and counted.
    ///
    /// # Errors
    /// When the file cannot be read any more, or has another size than it had at the start.
    pub(super) fn pixels(
        &self,
        set: usize,
        image: usize,
        skip: bool,
        staying: Option<&Staying>,
    ) -> Result<(usize, Arc<Pixels>), DataError> {
        let images = self.sets[set].images.len();
        let mut at = image;
        loop {
            let number = self.number(set, at);
            let is_needed = !staying.is_some_and(|staying| staying.contains(number));
            match self.cache.get(number, || self.decode(set, at, is_needed)) {
                Ok(pixels) => return Ok((at, pixels)),
                Err(e) if !skip || (at + 1) % images == image => return Err(e),
                Err(e) => self.report_lost(set, at, &e),
            }
            at = (at + 1) % images;
        }
    }

    /// Reads the mask and, where `is_needed`, the image.
    fn decode(&self, set: usize, image: usize, is_needed: bool) -> Result<Pixels, DataError> {
        let ImageSet { dataset, images, unlabelled, .. } = &self.sets[set];
        let sample = &dataset.samples[images[image].sample];
        let image = is_needed.then(|| load_image(&sample.image)).transpose()?;
        if let Some(image) = &image {
            refuse_other_size(&sample.image, image.dimensions(), sample.size)?;
        }
        let mask = sample.mask.as_ref().filter(|_| !unlabelled);
        let mask = mask.map(|path| {
            let mask = dataset.load_mask(path)?;
            refuse_other_size(path, mask.dimensions(), sample.size).map(|()| mask)
        });
        Ok(Pixels { image: image.map(Arc::new), mask: mask.transpose()? })
    }

    /// Bytes of decoded images that are held in memory.
    #[cfg(test)]
    pub(super) fn cached(&self) -> usize {
        self.cache.bytes()
    }

    fn report_lost(&self, set: usize, image: usize, error: &DataError) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.insert((set, image)) {
            tracing::warn!("skipped while training, images so far: {}: {error}", lost.len());
        }
    }
}

/// The pixels of each class in a sample's mask; none without one.
fn pixels_of_classes(files: SampleFiles, unlabelled: bool) -> Result<Vec<u64>, DataError> {
    files.image.decoded?;
    let mask = files.mask.filter(|_| !unlabelled);
    mask.map_or(Ok(Vec::new()), |mask| Ok(mask.decoded?.pixels))
}

/// Logs for how many images of each set there are soft targets.
fn report_coverage(sets: &[(usize, usize, String)]) -> anyhow::Result<()> {
    let list: Vec<_> = sets.iter().map(|(found, all, name)| format!("{found} of {all} in {name}")).collect();
    ensure!(
        sets.iter().any(|(found, ..)| *found > 0),
        "soft_targets know none of the images by data set and file name ({}): run distill soften on these folders, \
         or rename them as they were",
        list.join(", ")
    );
    tracing::info!("images with soft targets: {}", list.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use image::RgbImage;

    use super::*;
    use crate::soften::shard;
    use crate::soften::shard::ImageSoftTargets;
    use crate::teacher::SoftTarget;
    use peregrine_core::files::sha256;
    use peregrine_core::BoundingBox;

    /// A data set of two unlabelled images, and a configuration that names it.
    fn project(folder: &Path, keys: &str) -> StudentConfig {
        fs::create_dir_all(folder.join("data/images")).unwrap();
        fs::write(folder.join("data/dataset.toml"), "name = 'tiny'\nclasses = ['car']").unwrap();
        for name in ["a", "b"] {
            let image = RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8 * 3, y as u8 * 5, 9]));
            image.save(folder.join(format!("data/images/{name}.jpg"))).unwrap();
        }
        let data = folder.join("data").display().to_string();
        StudentConfig::parse(&format!("{keys}\n[[data]]\nfolder = '{data}'\nshare = 1.0")).unwrap()
    }

    fn load(config: &StudentConfig, soft: Option<&SoftTargets>) -> anyhow::Result<TrainImages> {
        let architecture = config.load_architecture().unwrap();
        let survey = Survey::make(config.open_data(&architecture)?, None)?;
        TrainImages::load(config, survey, &architecture, soft, &[], Loading::default())
    }

    /// Soft targets of `classes` for an image of that data set, by teachers that know only cars.
    fn soft(folder: &Path, file: &str, classes: &[String]) -> SoftTargets {
        let bbox = BoundingBox::new(4.0, 4.0, 40.0, 40.0);
        let boxes = vec![SoftTarget { bbox, logits: vec![0.0; classes.len()] }];
        let shard =
            shard::serialize(&[ImageSoftTargets { boxes, ..ImageSoftTargets::default() }], classes.len()).unwrap();
        let index = serde_json::json!({
            "teachers": [["t", "hash"]], "classes": classes, "known": ["car"],
            "shards": [{ "file": "s", "sha256": sha256(&shard), "dataset": "tiny/data", "images": [file] }],
        });
        fs::write(folder.join("s"), shard).unwrap();
        fs::write(folder.join("index.json"), index.to_string()).unwrap();
        SoftTargets::open(folder).unwrap()
    }

    #[test]
    fn a_truncated_image_stops_the_training_or_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let config = project(folder.path(), "");
        let path = folder.path().join("data/images/b.jpg");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
        let error = load(&config, None).err().unwrap().to_string();
        assert!(error.contains("b.jpg") && error.contains("skip_bad"), "{error}");
        let config = StudentConfig { skip_bad: true, ..config };
        assert_eq!(load(&config, None).unwrap().len(), 1);
    }

    #[test]
    fn classes_that_no_teacher_knows_stay_unknown_without_labels() {
        let folder = tempfile::tempdir().unwrap();
        let config = project(folder.path(), "");
        let classes = config.load_architecture().unwrap().detection_classes().to_vec();
        let images = load(&config, Some(&soft(folder.path(), "a.jpg", &classes))).unwrap();
        let known = |i: usize| images.image(0, i).known.clone();
        assert_eq!(known(0), classes.iter().map(|c| c == "car").collect::<Vec<_>>());
        assert_eq!(known(1), vec![false; classes.len()], "no teacher was asked");
    }

    #[test]
    fn soft_targets_of_other_images_or_classes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = project(folder.path(), "");
        let classes = config.load_architecture().unwrap().detection_classes().to_vec();
        for (file, classes, named) in
            [("z.jpg", &classes[..], "0 of 2 in tiny/data"), ("a.jpg", &classes[1..], "person")]
        {
            let error = load(&config, Some(&soft(folder.path(), file, classes))).err().unwrap().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn labels_become_the_classes_of_the_network_that_is_trained() {
        let folder = tempfile::tempdir().unwrap();
        let config = project(folder.path(), "");
        fs::create_dir_all(folder.path().join("data/labels")).unwrap();
        fs::write(folder.path().join("data/labels/a.txt"), "0 0.5 0.5 0.4 0.4").unwrap();
        let mut architecture = config.load_architecture().unwrap();
        architecture.detection.as_mut().unwrap().classes = vec!["tree".into(), "car".into()];
        let survey = Survey::make(config.open_data(&architecture).unwrap(), None).unwrap();
        let images = TrainImages::load(&config, survey, &architecture, None, &[], Loading::default()).unwrap();
        let image = images.image(0, 0);
        assert_eq!((image.objects[0].label, &image.known), (Some(1), &vec![false, true]));
    }
}
