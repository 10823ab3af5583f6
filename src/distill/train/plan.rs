//! What a batch shows: all that is drawn at random, before any image is read.
//!
//! The draws need only the images' sizes, and are made in one order by one thread; the images are
//! then read and rendered by any number of threads, and the batch is the same.

use peregrine_student::architecture::Input;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::compose;
use super::config::StudentConfig;
use super::images::TrainImages;
use crate::picture::{Colour, ViewTransform};

/// One image of a batch.
pub struct ExamplePlan {
    pub shown: Shown,
    /// A view that is blended in, and its share, 0 to 0.5.
    pub blended: Option<(f32, ViewPlan)>,
}

/// What is shown of the images.
pub enum Shown {
    View(Box<ViewPlan>),
    /// Four views that meet at a point of the input.
    Mosaic((usize, usize), Box<[ViewPlan; 4]>),
}

/// A random view of an image.
pub struct ViewPlan {
    /// The image's number in its set.
    pub image: usize,
    /// Its set.
    pub set: usize,
    /// As it was before the view was drawn: see [`ViewPlan::view`].
    rng: ChaCha8Rng,
}

impl ViewPlan {
    /// The view, and the change of colour, of an image of `size` = (width, height) pixels: of the
    /// plan's, or of one that is shown in its place.
    pub fn view(&self, size: (u32, u32), config: &StudentConfig, input: &Input) -> (ViewTransform, Colour) {
        draw_view(size, config, input, &mut self.rng.clone())
    }
}

fn draw_view(size: (u32, u32), config: &StudentConfig, input: &Input, rng: &mut ChaCha8Rng) -> (ViewTransform, Colour) {
    let view = ViewTransform::random(size, input.width, input.height, &config.augment, rng);
    (view, Colour::random(config.augment.colour, rng))
}

/// The plan of batch `step`, which depends only on it and on the seed, so that a resumed run has the
/// batches of an uninterrupted one.
pub fn batch(images: &TrainImages, step: u64, config: &StudentConfig, input: &Input) -> Vec<ExamplePlan> {
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    rng.set_stream(step);
    (0..config.batch).map(|_| example(images, config, input, &mut rng)).collect()
}

fn example(images: &TrainImages, config: &StudentConfig, input: &Input, rng: &mut ChaCha8Rng) -> ExamplePlan {
    // Nothing is drawn for an augmentation that is off, so that it does not change the other draws.
    let likely = |p: f64, rng: &mut ChaCha8Rng| p > 0.0 && rng.random_bool(p);
    let shown = if likely(config.augment.mosaic, rng) {
        let centre = compose::centre(input, rng);
        Shown::Mosaic(centre, Box::new([(); 4].map(|()| view(images, config, input, rng))))
    } else {
        Shown::View(Box::new(view(images, config, input, rng)))
    };
    let blended =
        likely(config.augment.mixup, rng).then(|| (rng.random_range(0.0..0.5), view(images, config, input, rng)));
    ExamplePlan { shown, blended }
}

/// A random view of a random image.
fn view(images: &TrainImages, config: &StudentConfig, input: &Input, rng: &mut ChaCha8Rng) -> ViewPlan {
    let (set, image) = images.draw(rng);
    let plan = ViewPlan { set, image, rng: rng.clone() };
    draw_view(images.size(set, image), config, input, rng);
    plan
}
