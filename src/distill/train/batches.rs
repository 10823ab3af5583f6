//! Batches, drawn and rendered ahead of the training step on a thread of their own.
//!
//! Batch `n` depends on the seed and `n` alone, so that a resumed run sees what an uninterrupted one would have.

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

use super::augment::{self, Colour, View};
use super::compose::{self, Example};
use super::config::StudentConfig;
use super::objects::{self, Object};
use super::online::OnlineTeacher;
use super::soft_view::{Grid, SoftView};
use crate::data::{load_image, refuse_namesakes, tell_left_out, DataError, Dataset, Sample, Skipped, VOID};
use crate::soften::shard::HalfMap;
use crate::soften::SoftTargets;

/// Batches rendered ahead.
const AHEAD: usize = 4;

/// A source image in memory, with what is known of it.
pub struct Picture {
    pub path: PathBuf,
    image: RgbImage,
    objects: Vec<Object>,
    mask: Option<GrayImage>,
    soft: Option<Arc<HalfMap>>,
    /// For each layer that learns from a teacher's features, those, where there are any.
    features: Vec<Option<Arc<HalfMap>>>,
    /// For each class, whether a missing label means a missing object.
    known: Vec<bool>,
}

/// The training images, by data set.
pub struct Pictures {
    /// Pictures, and the data set's share of a batch.
    sets: Vec<(Vec<Picture>, f64)>,
    /// The cells of each layer that learns from a teacher's features.
    layers: Vec<Grid>,
}

/// One batch.
#[derive(Default)]
pub struct Batch {
    pub step: u64,
    /// `[images, 3, height, width]`.
    pub input: Vec<f32>,
    /// For each image its objects in input pixels.
    pub objects: Vec<Vec<Object>>,
    /// For each image and class, whether a missing label means a missing object.
    pub known: Vec<Vec<bool>>,
    /// For each image the classes at stride 4, where it has a mask.
    pub masks: Vec<Option<Vec<u8>>>,
    /// For each image what a segmenter made of it, where one was asked.
    pub soft: Vec<Option<SoftView>>,
    /// For each image and each layer that learns from a teacher's features, those, where there are any.
    pub features: Vec<Vec<Option<SoftView>>>,
    /// The images' files, to name in an error.
    pub files: Vec<PathBuf>,
    /// What the teacher makes of the views: each of its tensors over the batch, as
    /// [`OnlineTeacher::look`](super::online::OnlineTeacher::look) orders them; empty without a teacher.
    pub teacher: Vec<Vec<f32>>,
}

/// A sample's picture, and its mask where that is wanted.
fn decode(dataset: &Dataset, sample: &Sample, unlabelled: bool) -> Result<(RgbImage, Option<GrayImage>), DataError> {
    let mask = sample.mask.as_ref().filter(|_| !unlabelled);
    Ok((load_image(&sample.image)?, mask.map(|path| dataset.load_mask(path)).transpose()?))
}

impl Pictures {
    /// Decodes every image of the configuration's `datasets` into memory, and takes their soft targets with it; of features
    /// those for `layers`.
    ///
    /// # Errors
    /// When an image or mask cannot be read, unless the configuration has those skipped; when the soft targets are of other
    /// classes, or there are none for any of the images.
    pub fn load(
        config: &StudentConfig,
        datasets: &[Dataset],
        architecture: &Architecture,
        soft: Option<&SoftTargets>,
        layers: &[(String, Grid)],
    ) -> anyhow::Result<Self> {
        let classes = &architecture.detection.classes;
        if let Some(soft) = soft {
            ensure!(
                soft.classes == *classes,
                "soft_targets are of {}, but the student detects {}",
                soft.classes.join(", "),
                classes.join(", ")
            );
            refuse_namesakes(config.data.iter().map(|source| source.folder.as_path()).zip(datasets))?;
        }
        let (mut sets, mut skipped, mut softened) = (Vec::new(), Vec::new(), Vec::new());
        for (source, dataset) in config.data.iter().zip(datasets) {
            let mut pictures = Vec::with_capacity(dataset.samples.len());
            let mut found = 0;
            for sample in &dataset.samples {
                let (image, mask) = match decode(dataset, sample, source.unlabelled) {
                    Err(e) if config.skip_bad => {
                        skipped.push(Skipped { path: sample.image.clone(), reason: e.to_string() });
                        continue;
                    }
                    decoded => decoded?,
                };
                let opinions = soft.and_then(|s| s.of(&dataset.name, sample.file_name()));
                found += usize::from(opinions.is_some());
                let feature =
                    |(layer, _): &(String, Grid)| opinions.and_then(|o| o.features.get(layer)).map(Arc::clone);
                let boxes = if source.unlabelled { None } else { sample.boxes.as_deref() };
                let asked = |class: usize| opinions.is_some() && soft.is_some_and(|s| s.known[class]);
                pictures.push(Picture {
                    path: sample.image.clone(),
                    image,
                    objects: objects::merge(
                        boxes.unwrap_or_default(),
                        opinions.map_or(&[], |o| &o.boxes),
                        config.pseudo_label_score,
                    ),
                    mask,
                    soft: opinions.and_then(|o| o.mask.clone()).filter(|_| config.takes_masks()),
                    features: layers.iter().map(feature).collect(),
                    known: (0..classes.len())
                        .map(|class| asked(class) || (boxes.is_some() && dataset.labelled[class]))
                        .collect(),
                });
            }
            ensure!(!pictures.is_empty(), "{}: none of its images can be read", source.folder.display());
            softened.push((found, pictures.len(), &dataset.name));
            sets.push((pictures, source.share));
        }
        if soft.is_some() {
            let list: Vec<_> =
                softened.iter().map(|(found, all, name)| format!("{found} of {all} in {name}")).collect();
            ensure!(
                softened.iter().any(|(found, ..)| *found > 0),
                "soft_targets know none of the images by data set and file name ({}): run distill soften on these folders, \
                 or give them the names they had",
                list.join(", ")
            );
            eprintln!("images with soft targets: {}", list.join(", "));
        }
        tell_left_out(&skipped);
        Ok(Self { sets, layers: layers.iter().map(|(_, grid)| *grid).collect() })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.sets.iter().map(|(set, _)| set.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The masks' bytes, to weigh classes by.
    pub fn mask_bytes(&self) -> impl Iterator<Item = &u8> {
        self.sets.iter().flat_map(|(set, _)| set).filter_map(|p| p.mask.as_ref()).flat_map(|m| m.as_raw())
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> &Picture {
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
            // Nothing is drawn for what is switched off, so that it leaves all other draws as they were.
            let likely = |p: f64, rng: &mut ChaCha8Rng| p > 0.0 && rng.random_bool(p);
            let mut example = match likely(config.augment.mosaic, &mut rng) {
                true => {
                    let (x, y) = compose::centre(input, &mut rng);
                    compose::mosaic(input, (x, y), [(); 4].map(|()| self.example(config, input, &mut rng)))
                }
                false => self.example(config, input, &mut rng),
            };
            if likely(config.augment.mixup, &mut rng) {
                let share = rng.random_range(0.0..0.5);
                example = compose::mixup(example, self.example(config, input, &mut rng), share);
            }
            tensor.copy_from_slice(&example.input);
            batch.objects.push(example.objects);
            batch.known.push(example.known);
            batch.masks.push(example.mask);
            batch.soft.push(example.soft);
            batch.features.push(example.features);
            batch.files.push(example.file);
        }
        batch
    }

    /// A random view of a random picture.
    fn example(&self, config: &StudentConfig, input: &Input, rng: &mut ChaCha8Rng) -> Example {
        let picture = self.draw(rng);
        let augment = &config.augment;
        let view = View::random(picture.image.dimensions(), input.width, input.height, augment, rng);
        let colour = Colour::random(augment.colour, rng);
        let mut tensor = vec![0.0; 3 * input.width * input.height];
        augment::render(&picture.image, &view, &colour, input, &mut tensor);
        let soft = |map: &HalfMap, grid| SoftView::new(map, picture.image.dimensions(), &view, input, grid);
        let head = Grid { columns: input.width / MASK_STRIDE, rows: input.height / MASK_STRIDE };
        Example {
            input: tensor,
            objects: augment::place_objects(&picture.objects, &view, input, augment.min_visible),
            known: picture.known.clone(),
            mask: picture.mask.as_ref().map(|mask| {
                let mut labels = vec![VOID; input.width / MASK_STRIDE * (input.height / MASK_STRIDE)];
                augment::render_mask(mask, &view, input, &mut labels);
                labels
            }),
            soft: picture.soft.as_deref().map(|mask| soft(mask, head)),
            features: picture
                .features
                .iter()
                .zip(&self.layers)
                .map(|(map, &grid)| Some(soft(map.as_deref()?, grid)))
                .collect(),
            file: picture.path.clone(),
        }
    }

    /// Starts rendering batches from `step` on, and showing them to the `teacher`; the thread ends when the receiver is
    /// dropped.
    ///
    /// # Errors
    /// When no thread can be started; through the channel, when the teacher fails.
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
                        match teacher.look(&rendered.input) {
                            Ok(tensors) => rendered.teacher = tensors,
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
    use crate::soften::shard::Softened;
    use crate::teacher::SoftBox;
    use peregrine_core::files::sha256;
    use peregrine_core::BoundingBox;

    /// A data set of two unlabelled pictures, and a configuration that names it.
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

    fn load(config: &StudentConfig, soft: Option<&SoftTargets>) -> anyhow::Result<Pictures> {
        let architecture = config.architecture();
        Pictures::load(config, &config.open_data(&architecture)?, &architecture, soft, &[])
    }

    /// Soft targets of `classes` for a picture of that data set, by teachers that know cars alone.
    fn soft(folder: &Path, file: &str, classes: &[String]) -> SoftTargets {
        let bbox = BoundingBox::new(4.0, 4.0, 40.0, 40.0);
        let boxes = vec![SoftBox { bbox, logits: vec![0.0; classes.len()] }];
        let shard = shard::serialize(&[Softened { boxes, ..Softened::default() }], classes.len());
        let index = serde_json::json!({
            "teachers": [["t", "hash"]], "classes": classes, "known": ["car"],
            "shards": [{ "file": "s", "sha256": sha256(&shard), "dataset": "tiny/data", "images": [file] }],
        });
        fs::write(folder.join("s"), shard).unwrap();
        fs::write(folder.join("index.json"), index.to_string()).unwrap();
        SoftTargets::open(folder).unwrap()
    }

    #[test]
    fn an_image_that_breaks_off_stops_the_training_or_is_left_out() {
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
    fn what_no_teacher_knows_stays_unknown_where_there_are_no_labels() {
        let folder = tempfile::tempdir().unwrap();
        let config = project(folder.path(), "");
        let classes = config.architecture().detection.classes;
        let pictures = load(&config, Some(&soft(folder.path(), "a.jpg", &classes))).unwrap();
        let known = |i: usize| pictures.sets[0].0[i].known.clone();
        assert_eq!(known(0), classes.iter().map(|c| c == "car").collect::<Vec<_>>());
        assert_eq!(known(1), vec![false; classes.len()], "no teacher was asked");
    }

    #[test]
    fn soft_targets_of_other_images_or_classes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let config = project(folder.path(), "");
        let classes = config.architecture().detection.classes;
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
        let mut architecture = config.architecture();
        architecture.detection.classes = vec!["tree".into(), "car".into()];
        let datasets = config.open_data(&architecture).unwrap();
        let pictures = Pictures::load(&config, &datasets, &architecture, None, &[]).unwrap();
        let picture = &pictures.sets[0].0[0];
        assert_eq!((picture.objects[0].label, &picture.known), (Some(1), &vec![false, true]));
    }
}
