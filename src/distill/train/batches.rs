//! Batches, drawn and rendered ahead of the training step on a thread of their own.
//!
//! Batch `n` depends on the seed and `n` alone, so that a resumed run sees what an uninterrupted one would have.

use std::path::PathBuf;
use std::thread;

use anyhow::Context;
use crossbeam::channel::{bounded, Receiver};
use image::{GrayImage, RgbImage};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::augment::{self, Colour, View};
use super::compose::{self, Example};
use super::config::StudentConfig;
use super::objects::{self, Object};
use super::online::OnlineTeacher;
use crate::decode::mask::MASK_STRIDE;
use crate::distill::data::{load_image, Dataset, VOID};
use crate::distill::soften::SoftTargets;
use crate::student::architecture::Input;

/// Batches rendered ahead.
const AHEAD: usize = 4;

/// A source image in memory, with what is known of it.
pub struct Picture {
    pub path: PathBuf,
    image: RgbImage,
    objects: Vec<Object>,
    mask: Option<GrayImage>,
    /// For each class, whether a missing label means a missing object.
    known: Vec<bool>,
}

/// The training images, by data set.
pub struct Pictures {
    /// Pictures, and the data set's share of a batch.
    sets: Vec<(Vec<Picture>, f64)>,
}

/// One batch.
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
    /// The images' files, to name in an error.
    pub files: Vec<PathBuf>,
    /// What the teacher makes of the views: each of its tensors over the batch, as
    /// [`OnlineTeacher::look`](super::online::OnlineTeacher::look) orders them; empty without a teacher.
    pub teacher: Vec<Vec<f32>>,
}

impl Pictures {
    /// Decodes every image of the configured data sets into memory.
    ///
    /// # Errors
    /// When a data set or one of its images cannot be read.
    pub fn load(config: &StudentConfig, classes: usize, soft: Option<&SoftTargets>) -> anyhow::Result<Self> {
        let mut sets = Vec::new();
        for source in &config.data {
            let dataset = Dataset::open(&source.folder, source.config.as_deref())?;
            let mut pictures = Vec::with_capacity(dataset.samples.len());
            for sample in &dataset.samples {
                let opinions = soft.and_then(|s| s.of(&dataset.name, sample.file_name()));
                let (boxes, mask) = match source.unlabelled {
                    true => (None, None),
                    false => (sample.boxes.as_deref(), sample.mask.as_deref()),
                };
                let labels = boxes.unwrap_or_default();
                let known =
                    (0..classes).map(|c| opinions.is_some() || (boxes.is_some() && dataset.labelled[c])).collect();
                pictures.push(Picture {
                    path: sample.image.clone(),
                    image: load_image(&sample.image)?,
                    objects: objects::merge(labels, opinions.unwrap_or_default(), config.pseudo_label_score),
                    mask: mask.map(|m| dataset.load_mask(m)).transpose()?,
                    known,
                });
            }
            sets.push((pictures, source.share));
        }
        Ok(Self { sets })
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
        let mut batch = Batch {
            step,
            input: vec![0.0; config.batch * len],
            objects: Vec::new(),
            known: Vec::new(),
            masks: Vec::new(),
            files: Vec::new(),
            teacher: Vec::new(),
        };
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
        Example {
            input: tensor,
            objects: augment::place_objects(&picture.objects, &view, input, augment.min_visible),
            known: picture.known.clone(),
            mask: picture.mask.as_ref().map(|mask| {
                let mut labels = vec![VOID; input.width / MASK_STRIDE * (input.height / MASK_STRIDE)];
                augment::render_mask(mask, &view, input, &mut labels);
                labels
            }),
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
