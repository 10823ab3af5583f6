//! How the pixels of a network's input come about: which images it shows, and how each is seen.
//!
//! A [`Picture`] is a recipe. [`Picture::render`] follows it on the CPU; in training on CUDA a kernel
//! does, from images that are in the device's memory.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use image::RgbImage;
use peregrine_core::BoundingBox;
use peregrine_student::architecture::Input;

/// One input of a network.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    /// Together they cover the input, and no two of them overlap: one, or the four of a mosaic.
    pub tiles: Vec<Tile>,
    /// Tiles of another picture that is blended in, and its share, 0 to 0.5.
    pub blended: Option<(f32, Vec<Tile>)>,
}

/// A part of an input, and what it shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Tile {
    pub image: SourceImage,
    pub view: ViewTransform,
    pub colour: Colour,
    pub part: Part,
}

/// An image that is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceImage {
    /// Tells it from all others of a training.
    pub number: usize,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// `None` where a device has them: see [`Staying`].
    pub pixels: Option<Arc<RgbImage>>,
}

/// The images that a device has for the rest of a training, by number: their pixels are needed on the
/// CPU no longer. Those who load images ask it, and the device tells it.
#[derive(Debug, Default)]
pub struct Staying(RwLock<HashSet<usize>>);

/// A rectangle of an input, in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub columns: Range<usize>,
    pub rows: Range<usize>,
}

/// The map from input pixels to source pixels: `source = origin + step · input` along each axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ViewTransform {
    pub origin: [f32; 2],
    /// Source pixels for one input pixel; negative in x if flipped.
    pub step: [f32; 2],
}

/// A change of colour of RGB values of 0…255: away from their grey by `saturation`, then
/// `gain · value + offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Colour {
    pub saturation: f32,
    pub gain: f32,
    pub offset: f32,
}

impl Picture {
    /// The whole input shows one view.
    pub fn view(image: SourceImage, view: ViewTransform, colour: Colour, input: &Input) -> Self {
        Self { tiles: vec![Tile { image, view, colour, part: Part::whole(input) }], blended: None }
    }

    /// Four pictures that meet at (`x`, `y`), each cropped to its quarter: top left, top right, bottom
    /// left, bottom right.
    ///
    /// # Panics
    /// When something is blended into one of them.
    pub fn mosaic(input: &Input, at: (usize, usize), quarters: [Self; 4]) -> Self {
        let mut tiles = Vec::with_capacity(4);
        for (picture, part) in quarters.into_iter().zip(Part::quarters(input, at)) {
            assert!(picture.blended.is_none(), "a quarter of a mosaic is a plain view");
            tiles.extend(picture.tiles.into_iter().map(|tile| Tile { part: tile.part.within(&part), ..tile }));
        }
        Self { tiles, blended: None }
    }

    /// `self` with a `share` of `other` blended in.
    ///
    /// # Panics
    /// When something is blended into one of the two already.
    pub fn mixup(self, other: Self, share: f32) -> Self {
        assert!(self.blended.is_none() && other.blended.is_none(), "two pictures are blended");
        Self { blended: Some((share, other.tiles)), ..self }
    }

    /// Every tile, of what is blended in too.
    pub fn all_tiles(&self) -> impl Iterator<Item = &Tile> {
        self.tiles.iter().chain(self.blended.iter().flat_map(|(_, tiles)| tiles))
    }

    /// Writes the picture into `tensor`, `[3, height, width]` and normalised.
    ///
    /// # Panics
    /// When it shows an image without pixels.
    pub fn render(&self, input: &Input, tensor: &mut [f32]) {
        self.tiles.iter().for_each(|tile| tile.render(input, tensor));
        let Some((share, tiles)) = &self.blended else { return };
        let mut other = vec![0.0; tensor.len()];
        tiles.iter().for_each(|tile| tile.render(input, &mut other));
        tensor.iter_mut().zip(&other).for_each(|(a, b)| *a = (1.0 - share) * *a + share * b);
    }
}

impl SourceImage {
    pub fn new(number: usize, pixels: Arc<RgbImage>) -> Self {
        Self { number, size: pixels.dimensions(), pixels: Some(pixels) }
    }
}

impl Staying {
    pub fn contains(&self, number: usize) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&number)
    }

    pub fn add(&self, number: usize) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(number);
    }
}

impl Tile {
    /// Writes its part of the input into the whole input's `tensor`; outside the image that is 0, as in
    /// deployment.
    fn render(&self, input: &Input, tensor: &mut [f32]) {
        let Self { image, view, colour, part } = self;
        let image = image.pixels.as_deref().expect("what the CPU renders has pixels");
        let plane = input.width * input.height;
        let taps = view.taps();
        let share = 1.0 / (taps[0] * taps[1]) as f32;
        for y in part.rows.clone() {
            for x in part.columns.clone() {
                let mut sum = [0.0f32; 3];
                for ty in 0..taps[1] {
                    for tx in 0..taps[0] {
                        let at = |i: usize, t: usize, axis: usize| {
                            view.origin[axis] + view.step[axis] * (i as f32 + (t as f32 + 0.5) / taps[axis] as f32)
                        };
                        let rgb = bilinear(image, at(x, tx, 0), at(y, ty, 1));
                        let rgb = rgb.map_or(input.mean, |rgb| colour.apply(rgb));
                        (0..3).for_each(|c| sum[c] += share * rgb[c]);
                    }
                }
                for c in 0..3 {
                    tensor[c * plane + y * input.width + x] = (sum[c] - input.mean[c]) / input.std[c];
                }
            }
        }
    }
}

impl Part {
    /// All of an input.
    pub fn whole(input: &Input) -> Self {
        Self { columns: 0..input.width, rows: 0..input.height }
    }

    /// The four parts that meet at (`x`, `y`): top left, top right, bottom left, bottom right.
    pub fn quarters(input: &Input, (x, y): (usize, usize)) -> [Self; 4] {
        let columns = |i: usize| if i.is_multiple_of(2) { 0..x } else { x..input.width };
        let rows = |i: usize| if i < 2 { 0..y } else { y..input.height };
        std::array::from_fn(|i| Self { columns: columns(i), rows: rows(i) })
    }

    /// What lies in `other` as well.
    fn within(&self, other: &Self) -> Self {
        let both = |a: &Range<usize>, b: &Range<usize>| a.start.max(b.start)..a.end.min(b.end);
        Self { columns: both(&self.columns, &other.columns), rows: both(&self.rows, &other.rows) }
    }
}

impl ViewTransform {
    /// A source box in input pixels, unclipped.
    pub fn to_input(&self, b: &BoundingBox) -> BoundingBox {
        let map = |v: f32, axis: usize| (v - self.origin[axis]) / self.step[axis];
        let (x0, x1) = (map(b.x_min, 0), map(b.x_max, 0));
        BoundingBox::new(x0.min(x1), map(b.y_min, 1), x0.max(x1), map(b.y_max, 1))
    }

    /// Samples of an input pixel along x and y, 1 to 4: one for each source pixel in it, against
    /// aliasing.
    pub fn taps(&self) -> [usize; 2] {
        self.step.map(|s| (s.abs().round() as usize).clamp(1, 4))
    }
}

impl Colour {
    /// No change.
    pub const NONE: Self = Self { saturation: 1.0, gain: 1.0, offset: 0.0 };

    fn apply(&self, rgb: [f32; 3]) -> [f32; 3] {
        let grey = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
        rgb.map(|v| ((grey + self.saturation * (v - grey)) * self.gain + self.offset).clamp(0.0, 255.0))
    }
}

/// The image at a point (pixel `i` spans `[i, i + 1)`); `None` outside it.
fn bilinear(image: &RgbImage, x: f32, y: f32) -> Option<[f32; 3]> {
    let (width, height) = image.dimensions();
    if x < 0.0 || y < 0.0 || x >= width as f32 || y >= height as f32 {
        return None;
    }
    let (x, y) = ((x - 0.5).max(0.0), (y - 0.5).max(0.0));
    let (x0, y0) = (x as u32, y as u32);
    let (x1, y1) = ((x0 + 1).min(width - 1), (y0 + 1).min(height - 1));
    let (fx, fy) = (x - x0 as f32, y - y0 as f32);
    let raw = image.as_raw();
    let pixel = |x: u32, y: u32| &raw[((y * width + x) * 3) as usize..][..3];
    let (a, b, c, d) = (pixel(x0, y0), pixel(x1, y0), pixel(x0, y1), pixel(x1, y1));
    Some(std::array::from_fn(|i| {
        let upper = f32::from(a[i]) + fx * (f32::from(b[i]) - f32::from(a[i]));
        let lower = f32::from(c[i]) + fx * (f32::from(d[i]) - f32::from(c[i]));
        upper + fy * (lower - upper)
    }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    pub fn input() -> Input {
        Input { width: 24, height: 16, mean: [123.7, 116.3, 103.5], std: [58.4, 57.1, 57.4] }
    }

    /// An image of noise.
    pub fn image(number: usize, width: u32, height: u32) -> SourceImage {
        let mut rng = ChaCha8Rng::seed_from_u64(number as u64);
        let pixels = RgbImage::from_fn(width, height, |_, _| image::Rgb(rng.random()));
        SourceImage::new(number, Arc::new(pixels))
    }

    /// A view of `image` that shows some of what is around it too.
    pub fn view(image: SourceImage, seed: u64) -> Picture {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (width, height) = image.size;
        let mut along = |source: u32, size: usize, flip: bool| {
            let step = source as f32 / size as f32 * rng.random_range(0.3..1.8f32);
            let origin = (source as f32 - step * size as f32) * rng.random_range(-0.2..1.2f32);
            if flip {
                (origin + step * size as f32, -step)
            } else {
                (origin, step)
            }
        };
        let ((x, across), (y, down)) = (along(width, 24, seed % 2 == 1), along(height, 16, false));
        let mut near_one = || rng.random_range(0.5..1.5f32);
        let colour = Colour { saturation: near_one(), gain: near_one(), offset: 20.0 * near_one() - 20.0 };
        Picture::view(image, ViewTransform { origin: [x, y], step: [across, down] }, colour, &input())
    }

    fn rendered(picture: &Picture) -> Vec<f32> {
        let mut tensor = vec![f32::NAN; 3 * 24 * 16];
        picture.render(&input(), &mut tensor);
        tensor
    }

    #[test]
    fn a_mosaic_has_each_quarter_of_its_own_view_to_the_last_bit() {
        let views = [0, 1, 2, 3].map(|i| view(image(i, 20 + 9 * i as u32, 31), i as u64));
        let whole = views.each_ref().map(rendered);
        for at in [(8, 4), (12, 12), (0, 8), (24, 16)] {
            let found = rendered(&Picture::mosaic(&input(), at, views.clone()));
            for (i, value) in found.iter().enumerate() {
                let (x, y) = (i % 24, i / 24 % 16);
                assert_eq!(*value, whole[usize::from(x >= at.0) + 2 * usize::from(y >= at.1)][i], "{x}, {y} of {at:?}");
            }
        }
    }

    #[test]
    fn mixup_blends_the_normalised_values_of_two_pictures() {
        let [a, b] = [1, 2].map(|i| view(image(i, 40, 30), i as u64));
        let (of_a, of_b) = (rendered(&a), rendered(&b));
        let found = rendered(&a.mixup(b, 0.25));
        assert!(found.iter().zip(of_a.iter().zip(&of_b)).all(|(v, (a, b))| *v == 0.75 * a + 0.25 * b));
    }

    #[test]
    fn an_image_at_its_own_size_keeps_its_pixels() {
        let image = image(1, 24, 16);
        let view = ViewTransform { origin: [0.0; 2], step: [1.0; 2] };
        let found = rendered(&Picture::view(image.clone(), view, Colour::NONE, &input()));
        for (x, y, pixel) in image.pixels.unwrap().enumerate_pixels() {
            for c in 0..3 {
                let expected = (f32::from(pixel.0[c]) - input().mean[c]) / input().std[c];
                assert!((found[c * 24 * 16 + y as usize * 24 + x as usize] - expected).abs() < 1e-5);
            }
        }
    }
}
