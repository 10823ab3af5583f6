//! Decoded images in memory, up to a number of bytes.
//!
//! Images are drawn at random, so that none is likelier to be drawn again than another: the one that
//! has been held longest goes first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use image::{GrayImage, RgbImage};

/// A decoded image, and its mask if there is one.
#[derive(Debug, PartialEq)]
pub struct Pixels {
    /// `None` where a device has it.
    pub image: Option<Arc<RgbImage>>,
    pub mask: Option<GrayImage>,
}

impl Pixels {
    fn bytes(&self) -> usize {
        self.image.as_ref().map_or(0, |image| image.as_raw().len())
            + self.mask.as_ref().map_or(0, |mask| mask.as_raw().len())
    }
}

/// The cache. What callers still use of what it has let go is theirs: at most an image a thread.
pub struct ImageCache {
    /// Most bytes held.
    bound: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    pixels: HashMap<usize, Arc<Pixels>>,
    /// From the one that has been held longest on.
    order: VecDeque<usize>,
    bytes: usize,
}

impl ImageCache {
    /// One that holds up to `bound` bytes of pixels; with 0 none is held.
    pub fn new(bound: usize) -> Self {
        Self { bound, held: Mutex::default() }
    }

    /// The image with the number `key`, decoded by `decode` if it is not held. Two threads that
    /// need an image at the same time may both decode it.
    ///
    /// # Errors
    /// Those of `decode`.
    pub fn get<E>(&self, key: usize, decode: impl FnOnce() -> Result<Pixels, E>) -> Result<Arc<Pixels>, E> {
        if let Some(pixels) = self.held(|held| held.pixels.get(&key).cloned()) {
            return Ok(pixels);
        }
        let pixels = Arc::new(decode()?);
        self.held(|held| held.add(key, &pixels, self.bound));
        Ok(pixels)
    }

    /// Bytes of pixels that are held.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.held(|held| held.bytes)
    }

    fn held<T>(&self, with: impl FnOnce(&mut Held) -> T) -> T {
        with(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Held {
    fn add(&mut self, key: usize, pixels: &Arc<Pixels>, bound: usize) {
        let bytes = pixels.bytes();
        if bytes > bound || self.pixels.contains_key(&key) {
            return;
        }
        while self.bytes + bytes > bound {
            let Some(first) = self.order.pop_front() else { break };
            self.bytes -= self.pixels.remove(&first).map_or(0, |gone| gone.bytes());
        }
        self.pixels.insert(key, Arc::clone(pixels));
        self.order.push_back(key);
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// 10 × 10 pixels, 300 bytes, or 400 with a mask.
    fn pixels(value: usize, mask: bool) -> Pixels {
        let image = RgbImage::from_pixel(10, 10, image::Rgb([value as u8; 3]));
        Pixels { image: Some(Arc::new(image)), mask: mask.then(|| GrayImage::new(10, 10)) }
    }

    #[test]
    fn what_is_held_stays_within_the_bound() {
        for bound in [0, 299, 700, 1000, 10_000] {
            let cache = ImageCache::new(bound);
            for i in 0..50 {
                let key = i * 7 % 20;
                let make = || Ok::<_, Infallible>(pixels(key, key % 2 == 0));
                assert_eq!(*cache.get(key, make).unwrap(), pixels(key, key % 2 == 0));
                assert!(cache.bytes() <= bound, "{} of {bound}", cache.bytes());
            }
        }
    }

    #[test]
    fn a_held_image_is_not_decoded_again_and_an_error_is_not_held() {
        let cache = ImageCache::new(600);
        let mut decoded = Vec::new();
        for key in [1, 2, 1, 3, 2, 1] {
            let make = || {
                decoded.push(key);
                Ok::<_, Infallible>(pixels(key, false))
            };
            cache.get(key, make).unwrap();
        }
        assert_eq!(decoded, [1, 2, 3, 1], "3 displaces 1, which was held longest");
        assert_eq!(cache.get(9, || Err::<Pixels, _>("damaged")), Err("damaged"));
        assert!(cache.get(9, || Ok::<_, Infallible>(pixels(9, false))).is_ok());
    }
}
