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
use super::config::StudentConfig;
use super::objects::{self, Object};
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
                let labels = sample.boxes.as_deref().unwrap_or_default();
                let known = (0..classes)
                    .map(|c| opinions.is_some() || (sample.boxes.is_some() && dataset.labelled[c]))
                    .collect();
                pictures.push(Picture {
                    path: sample.image.clone(),
                    image: load_image(&sample.image)?,
                    objects: objects::merge(labels, opinions.unwrap_or_default(), config.pseudo_label_score),
                    mask: sample.mask.as_deref().map(|m| dataset.load_mask(m)).transpose()?,
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
        };
        for tensor in batch.input.chunks_mut(len) {
            let picture = self.draw(&mut rng);
            let augment = &config.augment;
            let view = View::random(picture.image.dimensions(), input.width, input.height, augment, &mut rng);
            let colour = Colour::random(augment.colour, &mut rng);
            augment::render(&picture.image, &view, &colour, input, tensor);
            batch.objects.push(augment::place_objects(&picture.objects, &view, input, augment.min_visible));
            batch.known.push(picture.known.clone());
            batch.masks.push(picture.mask.as_ref().map(|mask| {
                let mut labels = vec![VOID; input.width / MASK_STRIDE * (input.height / MASK_STRIDE)];
                augment::render_mask(mask, &view, input, &mut labels);
                labels
            }));
            batch.files.push(picture.path.clone());
        }
        batch
    }

    /// Starts rendering batches from `step` on; the thread ends when the receiver is dropped.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(self, step: u64, config: StudentConfig, input: Input) -> anyhow::Result<Receiver<Batch>> {
        let (sender, receiver) = bounded(AHEAD);
        thread::Builder::new()
            .name("batches".into())
            .spawn(move || {
                let last = config.steps;
                for step in step..last {
                    if sender.send(self.batch(step, &config, &input)).is_err() {
                        break;
                    }
                }
            })
            .context("cannot start the thread that renders batches")?;
        Ok(receiver)
    }
}
