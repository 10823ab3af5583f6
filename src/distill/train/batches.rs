//! Batches, drawn and rendered ahead of the training step by threads of their own.
//!
//! The examples of a batch are read, decoded and rendered side by side; batches arrive in order.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use crossbeam::channel::{bounded, Receiver};
use peregrine_student::architecture::Input;
use peregrine_vision::decode::mask::MASK_STRIDE;
use rayon::prelude::*;

use super::augment;
use super::compose::{self, Example};
use super::config::StudentConfig;
use super::images::TrainImages;
use super::objects::Object;
use super::online::OnlineTeacher;
use super::plan::{self, ExamplePlan, Shown, ViewPlan};
use super::soft_view::{Grid, SoftView};
use crate::data::VOID;
use crate::picture::{Picture, SourceImage, Staying};
use crate::ranks::Ranks;
use crate::soften::stored::StoredMap;

/// Batches rendered ahead.
const AHEAD: usize = 4;

/// Where the pictures of a batch are rendered.
#[derive(Debug, Clone)]
pub enum Rendering {
    /// On the threads that load the images.
    WhileLoading,
    /// By the device that computes the network. Images that stay there are not decoded any more.
    OnDevice(Arc<Staying>),
}

/// One batch.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    pub step: u64,
    /// `[images, 3, height, width]`; empty where the device renders [`pictures`](Self::pictures).
    pub input: Vec<f32>,
    /// What the input shows; empty where it is rendered.
    pub pictures: Vec<Picture>,
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
    /// The scene of each image: the class of each group, if it is labelled.
    pub scenes: Vec<Vec<Option<usize>>>,
    /// The soft targets' logits of each image's scene, group by group, if they hold any.
    pub soft_scenes: Vec<Option<Vec<f32>>>,
    /// The images' files, for error messages.
    pub files: Vec<PathBuf>,
    /// The teacher's tensors for the views, in the order of
    /// [`OnlineTeacher::infer`](super::online::OnlineTeacher::infer); empty without a teacher.
    pub teacher_outputs: Vec<Vec<f32>>,
}

impl Batch {
    /// Of `examples`, whose pictures are in `input` if that is not empty.
    fn new(step: u64, input: Vec<f32>, examples: Vec<Example>) -> Self {
        let mut batch = Self { step, input, ..Self::default() };
        for example in examples {
            if batch.input.is_empty() {
                batch.pictures.push(example.picture);
            }
            batch.objects.push(example.objects);
            batch.known.push(example.known);
            batch.masks.push(example.mask);
            batch.soft_masks.push(example.soft_mask);
            batch.features.push(example.features);
            batch.scenes.push(example.scene);
            batch.soft_scenes.push(example.soft_scene);
            batch.files.push(example.file);
        }
        batch
    }

    /// The class of each image in a group of scenes, or [`VOID`].
    pub fn scene_labels(&self, group: usize) -> Vec<u8> {
        let label = |image: &Vec<Option<usize>>| image.get(group).copied().flatten().map_or(VOID, |class| class as u8);
        self.scenes.iter().map(label).collect()
    }
}

impl TrainImages {
    /// Renders batch `step`, on all of rayon's threads.
    ///
    /// # Errors
    /// When an image cannot be read any more, unless the configuration skips those.
    pub fn batch(&self, step: u64, config: &StudentConfig, input: &Input) -> anyhow::Result<Batch> {
        self.part(step, config, input, 0..config.batch, &Rendering::WhileLoading)
    }

    /// The same of only some images of the batch, rendered or to be. All are drawn, so that they are what
    /// they are in the whole.
    pub(super) fn part(
        &self,
        step: u64,
        config: &StudentConfig,
        input: &Input,
        images: Range<usize>,
        rendering: &Rendering,
    ) -> anyhow::Result<Batch> {
        let plans = plan::batch(self, step, config, input);
        let plans = plans[images].par_iter();
        if let Rendering::OnDevice(staying) = rendering {
            let examples = plans.map(|plan| self.example(plan, config, input, Some(staying)));
            return Ok(Batch::new(step, Vec::new(), examples.collect::<anyhow::Result<_>>()?));
        }
        let len = 3 * input.width * input.height;
        let mut tensors = vec![0.0; plans.len() * len];
        let examples = plans.zip(tensors.par_chunks_mut(len)).map(|(plan, tensor)| {
            let mut example = self.example(plan, config, input, None)?;
            // The images are needed no longer.
            std::mem::take(&mut example.picture).render(input, tensor);
            Ok(example)
        });
        let examples = examples.collect::<anyhow::Result<_>>()?;
        Ok(Batch::new(step, tensors, examples))
    }

    /// What a plan shows, and the labels of that. Images that are `staying` come without pixels.
    fn example(
        &self,
        plan: &ExamplePlan,
        config: &StudentConfig,
        input: &Input,
        staying: Option<&Staying>,
    ) -> anyhow::Result<Example> {
        let view = |plan: &ViewPlan| self.view(plan, config, input, staying);
        let example = match &plan.shown {
            Shown::View(plan) => view(plan)?,
            Shown::Mosaic(centre, plans) => {
                let [a, b, c, d] = &**plans;
                compose::mosaic(input, *centre, [view(a)?, view(b)?, view(c)?, view(d)?])
            }
        };
        Ok(match &plan.blended {
            Some((share, plan)) => compose::mixup(example, view(plan)?, *share),
            None => example,
        })
    }

    fn view(
        &self,
        plan: &ViewPlan,
        config: &StudentConfig,
        input: &Input,
        staying: Option<&Staying>,
    ) -> anyhow::Result<Example> {
        let (number, pixels) = self.pixels(plan.set, plan.image, config.skip_bad, staying)?;
        let (source, size) = (self.image(plan.set, number), self.size(plan.set, number));
        let (view, colour) = plan.view(size, config, input);
        let image = SourceImage { number: self.number(plan.set, number), size, pixels: pixels.image.clone() };
        let soft = |map: &StoredMap, grid| anyhow::Ok(SoftView::new(&map.read()?, size, &view, input, grid));
        let head = Grid { columns: input.width / MASK_STRIDE, rows: input.height / MASK_STRIDE };
        Ok(Example {
            picture: Picture::view(image, view, colour, input),
            objects: augment::place_objects(&source.objects, &view, input, config.augment.min_visible),
            known: source.known.clone(),
            mask: pixels.mask.as_ref().map(|mask| {
                let mut labels = vec![VOID; input.width / MASK_STRIDE * (input.height / MASK_STRIDE)];
                augment::render_mask(mask, &view, input, &mut labels);
                labels
            }),
            soft_mask: source.soft_mask.as_ref().map(|mask| soft(mask, head)).transpose()?,
            features: source
                .features
                .iter()
                .zip(&self.layers)
                .map(|(map, &grid)| map.as_ref().map(|map| soft(map, grid)).transpose())
                .collect::<anyhow::Result<_>>()?,
            scene: self.scene(plan.set, number).to_vec(),
            soft_scene: source.soft_scene.clone(),
            file: self.path(plan.set, number).clone(),
        })
    }

    /// Starts to render batches from `step` on, of each the part of this one of `ranks`, and to run the
    /// `teacher` on them, which needs them rendered; the threads end when the receiver is dropped.
    ///
    /// # Errors
    /// When a thread cannot be started; through the channel, when an image cannot be read or the
    /// teacher fails.
    ///
    /// # Panics
    /// When there is a teacher, and they are to be rendered on the device.
    pub fn start(
        self,
        step: u64,
        config: StudentConfig,
        input: Input,
        teacher: Option<OnlineTeacher>,
        ranks: &Ranks,
        rendering: Rendering,
    ) -> anyhow::Result<Receiver<anyhow::Result<Batch>>> {
        assert!(teacher.is_none() || matches!(rendering, Rendering::WhileLoading), "the teacher sees rendered views");
        let each = config.batch / ranks.size();
        let images = ranks.rank() * each..(ranks.rank() + 1) * each;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).thread_name(|i| format!("loader-{i}"));
        let pool = pool.build().context("cannot start the threads that load images")?;
        // A teacher's thread has batches ahead of its own.
        let (sender, receiver) = bounded(if teacher.is_some() { 1 } else { AHEAD });
        let render = move || {
            for step in step..config.steps {
                let batch = pool.install(|| self.part(step, &config, &input, images.clone(), &rendering));
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    break;
                }
            }
        };
        thread::Builder::new()
            .name("batches".into())
            .spawn(render)
            .context("cannot start the thread that renders batches")?;
        match teacher {
            Some(teacher) => teach(receiver, teacher),
            None => Ok(receiver),
        }
    }
}

/// Runs the teacher on each batch, on a thread of its own, so that the next are rendered meanwhile.
fn teach(
    batches: Receiver<anyhow::Result<Batch>>,
    mut teacher: OnlineTeacher,
) -> anyhow::Result<Receiver<anyhow::Result<Batch>>> {
    let (sender, receiver) = bounded(AHEAD);
    let run = move || {
        for batch in batches {
            let taught = batch.and_then(|mut batch| {
                batch.teacher_outputs = teacher.infer(&batch.input)?;
                Ok(batch)
            });
            let failed = taught.is_err();
            if sender.send(taught).is_err() || failed {
                break;
            }
        }
    };
    thread::Builder::new().name("teacher".into()).spawn(run).context("cannot start the teacher's thread")?;
    Ok(receiver)
}
