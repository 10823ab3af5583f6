//! Augmentation: a random view of a source image, with its objects and mask.

use image::GrayImage;
use peregrine_core::BoundingBox;
use peregrine_student::architecture::Input;
use peregrine_vision::decode::mask::MASK_STRIDE;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::objects::Object;
use crate::data::VOID;
use crate::defaults::is_default;
use crate::picture::{Colour, ViewTransform};

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

impl Colour {
    /// A random change: the saturation, contrast and brightness each by a factor of up to `strength`
    /// from 1.
    pub fn random(strength: f32, rng: &mut ChaCha8Rng) -> Self {
        let mut draw = || 1.0 + strength * rng.random_range(-1.0..1.0f32);
        let (saturation, contrast, brightness) = (draw(), draw(), draw());
        Self { saturation, gain: contrast * brightness, offset: 127.0 * brightness * (1.0 - contrast) }
    }
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
    use std::sync::Arc;

    use image::RgbImage;
    use rand::SeedableRng;

    use super::*;
    use crate::picture::{Picture, SourceImage};

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
            let image = SourceImage::new(0, Arc::new(image));
            Picture::view(image, view, Colour::NONE, &input()).render(&input(), &mut tensor);
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
