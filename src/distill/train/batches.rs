//! Batches, drawn and rendered ahead of the training step on a separate thread.
//!
//! Batch `n` depends only on the seed and `n`, so that a resumed run has the batches of an
//! uninterrupted one.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::{ensure, Context};
use crossbeam::channel::{bounded, Receiver};
use image::{GrayImage, RgbImage};
use peregrine_student::architecture::Input;
use peregrine_student::Architecture;
use peregrine_vision::decode::mask::MASK_STRIDE;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::augment::{self, Colour, ViewTransform};
use super::compose::{self, Example};
use super::config::StudentConfig;
use super::objects::{self, Object};
use super::online::OnlineTeacher;
use super::soft_view::{Grid, SoftView};
use crate::data::{load_image, log_skipped, refuse_same_names, DataError, Dataset, Sample, Skipped, VOID};
use crate::soften::shard::HalfMap;
use crate::soften::SoftTargets;

/// Batches rendered ahead.
const AHEAD: usize = 4;

/// A source image in memory, with its labels and soft targets.
pub struct TrainImage {
    pub path: PathBuf,
    image: RgbImage,
    objects: Vec<Object>,
    mask: Option<GrayImage>,
    soft_mask: Option<Arc<HalfMap>>,
    /// The soft targets' features for each layer that learns from them.
    features: Vec<Option<Arc<HalfMap>>>,
    /// For each class, whether a missing label means that there is no object.
    known: Vec<bool>,
}

/// The training images, by data set.
pub struct TrainImages {
    /// The images of each data set, and its sampling weight.
    sets: Vec<(Vec<TrainImage>, f64)>,
    /// The cells of each layer that learns from the soft targets' features.
    layers: Vec<Grid>,
}

/// One batch.
#[derive(Default)]
pub struct Batch {
    pub step: u64,
    /// `[images, 3, height, width]`.
    pub input: Vec<f32>,
    /// The objects of each image in input pixels.
    pub objects: Vec<Vec<Object>>,
    /// For each image and class, whether a missing label means that there is no object.
    pub known: Vec<Vec<bool>>,
    /// The classes of each image at stride 4, if it has a mask.
    pub masks: Vec<Option<Vec<u8>>>,
    /// The soft mask of each image, if the soft targets hold one.
    pub soft_masks: Vec<Option<SoftView>>,
    /// For each image, the soft targets' features for each layer that learns from them.
    pub features: Vec<Vec<Option<SoftView>>>,
    /// The images' files, for error messages.
    pub files: Vec<PathBuf>,
    /// The teacher's tensors for the views, in the order of
    /// [`OnlineTeacher::infer`](super::online::OnlineTeacher::infer); empty without a teacher.
    pub teacher_outputs: Vec<Vec<f32>>,
}

/// A sample's image, and its mask unless it is `unlabelled`.
fn decode(dataset: &Dataset, sample: &Sample, unlabelled: bool) -> Result<(RgbImage, Option<GrayImage>), DataError> {
    let mask = sample.mask.as_ref().filter(|_| !unlabelled);
    Ok((load_image(&sample.image)?, mask.map(|path| dataset.load_mask(path)).transpose()?))
}

impl TrainImages {
    /// Decodes every image of the configuration's `datasets` into memory, with its soft targets; of
    /// the features, those for `layers`.
    ///
    /// # Errors
    /// When an image or mask cannot be read, unless the configuration skips those; when the soft
    /// targets are of other classes, or there are none for any of the images.
    pub fn load(
        config: &StudentConfig,
        datasets: &[Dataset],
        architecture: &Architecture,
        soft_targets: Option<&SoftTargets>,
        layers: &[(String, Grid)],
    ) -> anyhow::Result<Self> {
        let classes = architecture.detection_classes();
        if let Some(soft) = soft_targets {
            ensure!(
                soft.classes == classes,
                "soft_targets are of {}, but the student detects {}",
                soft.classes.join(", "),
                classes.join(", ")
            );
            refuse_same_names(config.data.iter().map(|source| source.folder.as_path()).zip(datasets))?;
        }
        let (mut sets, mut skipped, mut coverage) = (Vec::new(), Vec::new(), Vec::new());
        for (source, dataset) in config.data.iter().zip(datasets) {
            let mut images = Vec::with_capacity(dataset.samples.len());
            let mut found = 0;
            for sample in &dataset.samples {
                let (image, mask) = match decode(dataset, sample, source.unlabelled) {
                    Err(e) if config.skip_bad => {
                        skipped.push(Skipped { path: sample.image.clone(), reason: e.to_string() });
                        continue;
                    }
                    decoded => decoded?,
                };
                let soft = soft_targets.and_then(|s| s.of(&dataset.name, sample.file_name()));
                if let (Some(targets), Some(_)) = (soft_targets, soft) {
                    targets.check(&dataset.name, sample.file_name(), &sample.image)?;
                }
                found += usize::from(soft.is_some());
                let feature = |(layer, _): &(String, Grid)| soft.and_then(|s| s.features.get(layer)).map(Arc::clone);
                let boxes = if source.unlabelled { None } else { sample.boxes.as_deref() };
                let detected = |class: usize| soft.is_some() && soft_targets.is_some_and(|s| s.known[class]);
                images.push(TrainImage {
                    path: sample.image.clone(),
                    image,
                    objects: objects::merge(
                        boxes.unwrap_or_default(),
                        soft.map_or(&[], |s| &s.boxes),
                        config.pseudo_label_score,
                    ),
                    mask,
                    soft_mask: soft.and_then(|s| s.mask.clone()).filter(|_| config.takes_masks()),
                    features: layers.iter().map(feature).collect(),
                    known: (0..classes.len())
                        .map(|class| detected(class) || (boxes.is_some() && dataset.labelled[class]))
                        .collect(),
                });
            }
            ensure!(!images.is_empty(), "{}: none of its images can be read", source.folder.display());
            coverage.push((found, images.len(), &dataset.name));
            sets.push((images, source.share));
        }
        if soft_targets.is_some() {
            let list: Vec<_> =
                coverage.iter().map(|(found, all, name)| format!("{found} of {all} in {name}")).collect();
            ensure!(
                coverage.iter().any(|(found, ..)| *found > 0),
                "soft_targets know none of the images by data set and file name ({}): run distill soften on these folders, \
                 or rename them as they were",
                list.join(", ")
            );
            tracing::info!("images with soft targets: {}", list.join(", "));
        }
        log_skipped(&skipped);
        Ok(Self { sets, layers: layers.iter().map(|(_, grid)| *grid).collect() })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.sets.iter().map(|(set, _)| set.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The masks' classes, pixel by pixel, to compute class weights from.
    pub fn mask_bytes(&self) -> impl Iterator<Item = &u8> {
        self.sets.iter().flat_map(|(set, _)| set).filter_map(|p| p.mask.as_ref()).flat_map(|m| m.as_raw())
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> &TrainImage {
        let total: f64 = self.sets.iter().map(|s| s.1).sum();
        let mut at = rng.random_range(0.0..total);
        for (set, share) in &self.sets {
            if at < *share {
                return &set[rng.random_range(0..set.len())];
            }
            at -= share;
        }
        &self.sets[0].0[0]
    }

    /// Renders batch `step`.
    pub fn batch(&self, step: u64, config: &StudentConfig, input: &Input) -> Batch {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(step);
        let len = 3 * input.width * input.height;
        let mut batch = Batch { step, input: vec![0.0; config.batch * len], ..Batch::default() };
        for tensor in batch.input.chunks_mut(len) {
            // Nothing is drawn for an augmentation that is off, so that it does not change the
            // other draws.
            let likely = |p: f64, rng: &mut ChaCha8Rng| p > 0.0 && rng.random_bool(p);
            let mut example = if likely(config.augment.mosaic, &mut rng) {
                let (x, y) = compose::centre(input, &mut rng);
                compose::mosaic(input, (x, y), [(); 4].map(|()| self.example(config, input, &mut rng)))
            } else {
                self.example(config, input, &mut rng)
            };
            if likely(config.augment.mixup, &mut rng) {
                let share = rng.random_range(0.0..0.5);
                example = compose::mixup(example, self.example(config, input, &mut rng), share);
            }
            tensor.copy_from_slice(&example.input);
            batch.objects.push(example.objects);
            batch.known.push(example.known);
            batch.masks.push(example.mask);
            batch.soft_masks.push(example.soft_mask);
            batch.features.push(example.features);
            batch.files.push(example.file);
        }
        batch
    }

    /// A random view of a random image.
    fn example(&self, config: &StudentConfig, input: &Input, rng: &mut ChaCha8Rng) -> Example {
        let source = self.draw(rng);
        let augment = &config.augment;
        let view = ViewTransform::random(source.image.dimensions(), input.width, input.height, augment, rng);
        let colour = Colour::random(augment.colour, rng);
        let mut tensor = vec![0.0; 3 * input.width * input.height];
        augment::render(&source.image, &view, &colour, input, &mut tensor);
        let soft = |map: &HalfMap, grid| SoftView::new(map, source.image.dimensions(), &view, input, grid);
        let head = Grid { columns: input.width / MASK_STRIDE, rows: input.height / MASK_STRIDE };
        Example {
            input: tensor,
            objects: augment::place_objects(&source.objects, &view, input, augment.min_visible),
            known: source.known.clone(),
            mask: source.mask.as_ref().map(|mask| {
                let mut labels = vec![VOID; input.width / MASK_STRIDE * (input.height / MASK_STRIDE)];
                augment::render_mask(mask, &view, input, &mut labels);
                labels
            }),
            soft_mask: source.soft_mask.as_deref().map(|mask| soft(mask, head)),
            features: source
                .features
                .iter()
                .zip(&self.layers)
                .map(|(map, &grid)| Some(soft(map.as_deref()?, grid)))
                .collect(),
            file: source.path.clone(),
        }
    }

    /// Starts to render batches from `step` on, and to run the `teacher` on them; the thread ends
    /// when the receiver is dropped.
    ///
    /// # Errors
    /// When the thread cannot be started; through the channel, when the teacher fails.
    pub fn start(
        self,
        step: u64,
        config: StudentConfig,
        input: Input,
        mut teacher: Option<OnlineTeacher>,
    ) -> anyhow::Result<Receiver<anyhow::Result<Batch>>> {
        let (sender, receiver) = bounded(AHEAD);
        thread::Builder::new()
            .name("batches".into())
            .spawn(move || {
                let last = config.steps;
                for step in step..last {
                    let mut batch = Ok(self.batch(step, &config, &input));
                    if let (Some(teacher), Ok(rendered)) = (&mut teacher, &mut batch) {
                        match teacher.infer(&rendered.input) {
                            Ok(tensors) => rendered.teacher_outputs = tensors,
                            Err(e) => batch = Err(e),
                        }
                    }
                    let failed = batch.is_err();
                    if sender.send(batch).is_err() || failed {
                        break;
                    }
                }
            })
            .context("cannot start the thread that renders batches")?;
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

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
        TrainImages::load(config, &config.open_data(&architecture)?, &architecture, soft, &[])
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
        let known = |i: usize| images.sets[0].0[i].known.clone();
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
        let datasets = config.open_data(&architecture).unwrap();
        let images = TrainImages::load(&config, &datasets, &architecture, None, &[]).unwrap();
        let image = &images.sets[0].0[0];
        assert_eq!((image.objects[0].label, &image.known), (Some(1), &vec![false, true]));
    }
}
