//! Augmentation: a random view of a source image, with its objects and mask.

use image::{GrayImage, RgbImage};
use peregrine_core::BoundingBox;
use peregrine_student::architecture::Input;
use peregrine_vision::decode::mask::MASK_STRIDE;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::objects::Object;
use crate::data::VOID;
use crate::defaults::is_default;

/// The distribution that views are drawn from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Range of the zoom relative to the letterboxed image: below 1 the image is shown smaller.
    pub scale: [f32; 2],
    /// Largest factor by which the aspect ratio is changed, drawn log-uniformly in both directions.
    pub aspect: f32,
    /// Largest relative change of brightness, contrast and saturation.
    pub colour: f32,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Objects of which less than this fraction remains in view are dropped.
    pub min_visible: f32,
    /// Probability of a mosaic of four views (Bochkovskiy et al. 2020, section 3.4).
    #[serde(skip_serializing_if = "is_default")]
    pub mosaic: f64,
    /// Probability of mixup with a second view, whose weight is up to a half (Zhang et al. 2018;
    /// for detection Zhang et al. 2019, "Bag of Freebies").
    #[serde(skip_serializing_if = "is_default")]
    pub mixup: f64,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self { scale: [0.6, 1.7], aspect: 1.2, colour: 0.3, flip: 0.5, min_visible: 0.25, mosaic: 0.0, mixup: 0.0 }
    }
}

/// The map from input pixels to source pixels: `source = origin + step · input` along each axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ViewTransform {
    pub origin: [f32; 2],
    /// Source pixels for one input pixel; negative in x if flipped.
    pub step: [f32; 2],
}

impl ViewTransform {
    /// A random view of a `source` of (width, height) pixels on an input of `width` × `height`.
    pub fn random(
        source: (u32, u32),
        width: usize,
        height: usize,
        config: &AugmentConfig,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let letterbox = (source.0 as f32 / width as f32).max(source.1 as f32 / height as f32);
        let log_uniform = |rng: &mut ChaCha8Rng, low: f32, high: f32| {
            if high > low {
                rng.random_range(low.ln()..high.ln()).exp()
            } else {
                low
            }
        };
        let step = letterbox / log_uniform(rng, config.scale[0], config.scale[1]);
        let aspect = log_uniform(rng, 1.0 / config.aspect, config.aspect).sqrt();
        let steps = [step / aspect, step * aspect];
        // An image that is smaller than the input lies anywhere inside it; in a larger one the
        // input lies inside.
        let mut origin = |source: u32, size: usize, step: f32| {
            let slack = source as f32 - step * size as f32;
            slack * rng.random_range(0.0..1.0f32)
        };
        let mut view =
            Self { origin: [origin(source.0, width, steps[0]), origin(source.1, height, steps[1])], step: steps };
        if rng.random_bool(config.flip) {
            view.origin[0] += view.step[0] * width as f32;
            view.step[0] = -view.step[0];
        }
        view
    }

    /// A source box in input pixels, unclipped.
    pub fn to_input(&self, b: &BoundingBox) -> BoundingBox {
        let map = |v: f32, axis: usize| (v - self.origin[axis]) / self.step[axis];
        let (x0, x1) = (map(b.x_min, 0), map(b.x_max, 0));
        BoundingBox::new(x0.min(x1), map(b.y_min, 1), x0.max(x1), map(b.y_max, 1))
    }
}

/// The objects that remain in view, in input pixels and clipped to the input.
pub fn place_objects(objects: &[Object], view: &ViewTransform, input: &Input, min_visible: f32) -> Vec<Object> {
    let place = |object: &Object| {
        let whole = view.to_input(&object.bbox);
        let clipped = BoundingBox::new(
            whole.x_min.max(0.0),
            whole.y_min.max(0.0),
            whole.x_max.min(input.width as f32),
            whole.y_max.min(input.height as f32),
        );
        let visible = clipped.area() >= min_visible * whole.area();
        let large_enough = clipped.width() >= 3.0 && clipped.height() >= 3.0;
        (visible && large_enough).then(|| Object { bbox: clipped, ..object.clone() })
    };
    objects.iter().filter_map(place).collect()
}

/// A random change of colour: a 3 × 3 matrix and offset on RGB values of 0…255.
pub struct Colour {
    saturation: f32,
    gain: f32,
    offset: f32,
}

impl Colour {
    /// No change.
    pub const NONE: Self = Self { saturation: 1.0, gain: 1.0, offset: 0.0 };

    pub fn random(strength: f32, rng: &mut ChaCha8Rng) -> Self {
        let mut draw = || 1.0 + strength * rng.random_range(-1.0..1.0f32);
        let (saturation, contrast, brightness) = (draw(), draw(), draw());
        Self { saturation, gain: contrast * brightness, offset: 127.0 * brightness * (1.0 - contrast) }
    }

    fn apply(&self, rgb: [f32; 3]) -> [f32; 3] {
        let grey = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
        rgb.map(|v| ((grey + self.saturation * (v - grey)) * self.gain + self.offset).clamp(0.0, 255.0))
    }
}

/// Writes the view into `tensor`, planar and normalised; outside the image it is 0, as in
/// deployment.
pub fn render(image: &RgbImage, view: &ViewTransform, colour: &Colour, input: &Input, tensor: &mut [f32]) {
    let plane = input.width * input.height;
    // One sample for each source pixel in an input pixel along each axis, against aliasing.
    let taps = view.step.map(|s| (s.abs().round() as usize).clamp(1, 4));
    let share = 1.0 / (taps[0] * taps[1]) as f32;
    for y in 0..input.height {
        for x in 0..input.width {
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

/// The mask's class at each cell of the segmentation head (nearest), [`VOID`] outside the image.
pub fn render_mask(mask: &GrayImage, view: &ViewTransform, input: &Input, labels: &mut [u8]) {
    let columns = input.width / MASK_STRIDE;
    for (i, label) in labels.iter_mut().enumerate() {
        let at =
            |cell: usize, axis: usize| view.origin[axis] + view.step[axis] * ((cell as f32 + 0.5) * MASK_STRIDE as f32);
        let (x, y) = (at(i % columns, 0), at(i / columns, 1));
        let inside = x >= 0.0 && y >= 0.0 && x < mask.width() as f32 && y < mask.height() as f32;
        *label = if inside { mask.get_pixel(x as u32, y as u32).0[0] } else { VOID };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn input() -> Input {
        Input { width: 64, height: 32, mean: [127.0; 3], std: [128.0; 3] }
    }

    #[test]
    fn a_box_drawn_into_the_image_is_rendered_where_it_is_placed() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..20 {
            let bbox = BoundingBox::new(30.0, 20.0, 70.0, 60.0);
            let image = RgbImage::from_fn(100, 80, |x, y| {
                let inside = (30..70).contains(&x) && (20..60).contains(&y);
                image::Rgb(if inside { [255; 3] } else { [127; 3] })
            });
            let view = ViewTransform::random((100, 80), 64, 32, &AugmentConfig::default(), &mut rng);
            let mut tensor = vec![0.0; 3 * 64 * 32];
            render(&image, &view, &Colour::NONE, &input(), &mut tensor);
            let placed = view.to_input(&bbox);
            for y in 0..32 {
                for x in 0..64 {
                    let (cx, cy) = (x as f32 + 0.5, y as f32 + 0.5);
                    let margin = 2.0;
                    let inside = |m: f32| {
                        cx > placed.x_min + m && cx < placed.x_max - m && cy > placed.y_min + m && cy < placed.y_max - m
                    };
                    let value = tensor[y * 64 + x];
                    if inside(margin) {
                        assert!(value > 0.95, "{value} at {x},{y} in {placed:?}");
                    } else if !inside(-margin) {
                        assert!(value.abs() < 1e-3, "{value} at {x},{y} out of {placed:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_object_out_of_view_is_dropped_and_one_at_the_edge_clipped() {
        let view = ViewTransform { origin: [0.0, 0.0], step: [1.0, 1.0] };
        let object = |x_min: f32, x_max: f32| Object::at(BoundingBox::new(x_min, 4.0, x_max, 20.0));
        let placed = place_objects(&[object(54.0, 74.0), object(63.0, 90.0)], &view, &input(), 0.25);
        assert_eq!(placed.len(), 1);
        assert_eq!(placed[0].bbox, BoundingBox::new(54.0, 4.0, 64.0, 20.0));
    }
}
