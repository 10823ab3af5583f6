//! Source images in the device's memory, under one bound of bytes.
//!
//! An image is uploaded when it is first shown. While there is room it stays for the whole training;
//! the others pass through a ring that holds at least all images of a step, in which the one that has
//! been there longest goes first. Images are drawn at random, so that none is likelier to be drawn again
//! than another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use anyhow::Context;
use peregrine_engine::cuda::driver::{DeviceMemory, MemoryKind};
use peregrine_engine::cuda::{CudaError, Driver};

use crate::picture::{SourceImage, Staying};

/// What images are aligned to, in bytes.
const ALIGNMENT: usize = 256;

/// The memory that the images of a training ask for, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageBytes {
    /// All of them.
    pub all: usize,
    /// The most that those of one step take.
    pub step: usize,
}

impl ImageBytes {
    /// Of images of so many `pixels`, of which a step shows up to `shown`.
    pub fn new(pixels: impl IntoIterator<Item = usize>, shown: usize) -> Self {
        let mut sizes: Vec<usize> = pixels.into_iter().map(bytes).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        Self { all: sizes.iter().sum(), step: sizes.iter().take(shown).sum() }
    }
}

/// Pixels.
fn area(image: &SourceImage) -> usize {
    image.size.0 as usize * image.size.1 as usize
}

/// Of an image of so many `pixels`.
fn bytes(pixels: usize) -> usize {
    (3 * pixels).next_multiple_of(ALIGNMENT)
}

/// See the module.
pub struct ImageStore {
    memory: DeviceMemory,
    places: Places,
    staying: Arc<Staying>,
    driver: Arc<dyn Driver>,
}

impl ImageStore {
    /// For images that take `need`, in up to `room` bytes of the device's memory; less if it turns out
    /// that it has less.
    ///
    /// # Errors
    /// When there is no room for the images of one step, or the device fails.
    pub fn new(driver: &Arc<dyn Driver>, need: ImageBytes, room: usize) -> anyhow::Result<Self> {
        let mut room = room;
        loop {
            let places = Places::new(need, room).with_context(|| {
                let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
                format!(
                    "the images of one step may take {:.2} GiB, and {:.2} GiB of the GPU's memory are left for them",
                    gib(need.step.min(need.all)),
                    gib(room)
                )
            })?;
            match DeviceMemory::new(driver, MemoryKind::Device, places.end) {
                Ok(memory) => {
                    let (staying, driver) = (Arc::default(), Arc::clone(driver));
                    return Ok(Self { memory, places, staying, driver });
                }
                Err(CudaError::OutOfMemory { .. }) => room = places.end / 2,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The images that stay, of which [`upload`](Self::upload) needs no pixels.
    pub fn staying(&self) -> &Arc<Staying> {
        &self.staying
    }

    /// The addresses of a step's `images`, each of which is there once, uploaded where they are not on
    /// the device yet. No graph that reads others may be running.
    ///
    /// # Errors
    /// When the device fails, after which nothing here is to be used; when they do not fit at once.
    ///
    /// # Panics
    /// When one has no pixels that does not stay.
    pub fn upload(&mut self, images: &[&SourceImage]) -> anyhow::Result<Vec<u64>> {
        let sizes: Vec<(usize, usize)> = images.iter().map(|image| (image.number, area(image))).collect();
        let places = self.places.place(&sizes).context("the images of one step do not fit into the GPU's memory")?;
        let base = self.memory.device();
        for (image, place) in images.iter().zip(&places) {
            if place.is_new {
                let pixels = image.pixels.as_ref().expect("an image that does not stay has pixels");
                self.driver.upload(base + place.at as u64, pixels.as_raw())?;
                if place.stays {
                    self.staying.add(image.number);
                }
            }
        }
        Ok(places.iter().map(|place| base + place.at as u64).collect())
    }

    /// Images that stay, and those in the ring.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        (self.places.kept.len(), self.places.passing.len())
    }
}

/// Where an image lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// In bytes from the first.
    at: usize,
    /// Whether it has yet to be put there.
    is_new: bool,
    /// Whether it is never moved or removed.
    stays: bool,
}

/// Which image lies where.
struct Places {
    /// The images that stay, by number.
    kept: HashMap<usize, usize>,
    /// The end of those, and of the room for them.
    kept_end: usize,
    ring: usize,
    /// The end of the ring, which follows.
    end: usize,
    /// The images in the ring, by number.
    passing: HashMap<usize, usize>,
    /// The same by where they lie: number and end.
    by_place: BTreeMap<usize, (usize, usize)>,
    /// Where the next one in the ring goes.
    next: usize,
}

impl Places {
    /// `None` if a step does not fit.
    fn new(need: ImageBytes, room: usize) -> Option<Self> {
        let ring = if need.all <= room { 0 } else { need.step };
        let end = need.all.min(room) / ALIGNMENT * ALIGNMENT;
        let (kept, passing, by_place) = Default::default();
        let ring = end.checked_sub(ring)?;
        Some(Self { kept, kept_end: 0, ring, end, passing, by_place, next: ring })
    }

    /// The places of images given by number and pixels, all of them at once; `None` if they do not fit.
    fn place(&mut self, images: &[(usize, usize)]) -> Option<Vec<Place>> {
        let place = |&(number, pixels): &(usize, usize)| match (self.kept.get(&number), self.passing.get(&number)) {
            (Some(&at), _) => Some(Place { at, is_new: false, stays: true }),
            (None, Some(&at)) => Some(Place { at, is_new: false, stays: false }),
            (None, None) => self.keep(number, bytes(pixels)).map(|at| Place { at, is_new: true, stays: true }),
        };
        let mut places: Vec<Option<Place>> = images.iter().map(place).collect();
        // What is not there goes where nothing is that this step shows.
        let shown: HashSet<usize> = images.iter().map(|(number, _)| *number).collect();
        for at in 0..images.len() {
            let (number, pixels) = images[at];
            if places[at].is_none() {
                let Some(place) = self.pass(number, bytes(pixels), &shown) else { return self.anew(images, places) };
                places[at] = Some(Place { at: place, is_new: true, stays: false });
            }
        }
        places.into_iter().collect()
    }

    /// The same with an empty ring, where what the step shows is in the way: of the `places` only those
    /// of images that stay are good.
    fn anew(&mut self, images: &[(usize, usize)], mut places: Vec<Option<Place>>) -> Option<Vec<Place>> {
        self.passing.clear();
        self.by_place.clear();
        self.next = self.ring;
        for (place, &(number, pixels)) in places.iter_mut().zip(images) {
            if place.is_none_or(|place| !place.stays) {
                let (at, end) = (self.next, self.next + bytes(pixels));
                if end > self.end {
                    return None;
                }
                self.next = end;
                self.insert(number, at, end);
                *place = Some(Place { at, is_new: true, stays: false });
            }
        }
        places.into_iter().collect()
    }

    /// A place for good.
    fn keep(&mut self, number: usize, bytes: usize) -> Option<usize> {
        let at = self.kept_end;
        (at + bytes <= self.ring).then(|| {
            self.kept_end += bytes;
            self.kept.insert(number, at);
            at
        })
    }

    /// A place in the ring, in front of the last one and at the expense of whatever is there, but for
    /// the images `shown`.
    fn pass(&mut self, number: usize, bytes: usize, shown: &HashSet<usize>) -> Option<usize> {
        let (mut at, mut is_second_round) = (self.next, false);
        loop {
            if at + bytes > self.end {
                if std::mem::replace(&mut is_second_round, true) || self.ring + bytes > self.end {
                    return None;
                }
                at = self.ring;
            }
            let in_the_way = |places: &Self| -> Vec<(usize, usize, usize)> {
                let before = places.by_place.range(..at + bytes).rev();
                before.take_while(|(_, (_, end))| *end > at).map(|(&at, &(number, end))| (at, number, end)).collect()
            };
            let others = in_the_way(self);
            if let Some((_, _, end)) = others.iter().find(|(_, number, _)| shown.contains(number)) {
                at = *end;
                continue;
            }
            for (other, number, _) in others {
                self.by_place.remove(&other);
                self.passing.remove(&number);
            }
            self.next = at + bytes;
            self.insert(number, at, self.next);
            return Some(at);
        }
    }

    fn insert(&mut self, number: usize, at: usize, end: usize) {
        self.passing.insert(number, at);
        self.by_place.insert(at, (number, end));
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Pixels of each of a set of images.
    fn pixels(rng: &mut ChaCha8Rng) -> Vec<usize> {
        (0..40).map(|_| rng.random_range(1..3000)).collect()
    }

    #[test]
    fn every_step_has_its_images_where_they_were_put_last_and_none_overlap() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for case in 0..60 {
            let pixels = pixels(&mut rng);
            let shown = rng.random_range(1..12);
            let need = ImageBytes::new(pixels.iter().copied(), shown);
            // From just a step to more than all.
            let room = need.step + (need.all - need.step) * (case % 12) / 10;
            let mut places = Places::new(need, room).unwrap();
            assert!(places.end <= room && places.end <= need.all);
            let mut memory: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
            let (mut uploads, mut stay) = (0, HashMap::new());
            for _ in 0..50 {
                let step: HashSet<usize> = (0..shown).map(|_| rng.random_range(0..pixels.len())).collect();
                let step: Vec<(usize, usize)> = step.into_iter().map(|i| (i, pixels[i])).collect();
                let found = places.place(&step).expect("a step fits");
                for (&(number, pixels), place) in step.iter().zip(&found) {
                    let end = place.at + bytes(pixels);
                    assert!(!place.is_new || !stay.contains_key(&number), "what stays is uploaded once");
                    let before = stay.get(&number).copied().or_else(|| place.stays.then_some(place.at));
                    assert!(before.is_none_or(|at| at == place.at), "what stays does not move");
                    stay.extend(before.map(|at| (number, at)));
                    assert!(end <= room && place.at % ALIGNMENT == 0);
                    if place.is_new {
                        uploads += 1;
                        memory.retain(|&at, &mut (_, other)| other <= place.at || end <= at);
                        memory.insert(place.at, (number, end));
                    }
                }
                for (&(number, pixels), place) in step.iter().zip(&found) {
                    assert_eq!(memory.get(&place.at), Some(&(number, place.at + bytes(pixels))), "case {case}");
                }
            }
            let all = need.all <= room;
            assert!(!all || uploads <= pixels.len(), "each is uploaded once where all fit");
        }
    }

    #[test]
    fn images_that_stay_are_uploaded_once_and_the_others_pass() {
        let need = ImageBytes::new([256; 10], 2);
        assert_eq!(need, ImageBytes { all: 7680, step: 1536 });
        // Six stay, and two pass.
        let mut places = Places::new(need, 6 * 768 + 1536 + 100).unwrap();
        let mut step = |of: [usize; 2]| places.place(&of.map(|i| (i, 256))).unwrap().iter().map(|p| p.is_new).collect();
        let steps: Vec<Vec<bool>> =
            [[0, 1], [2, 3], [4, 5], [0, 5], [6, 7], [6, 1], [8, 7], [6, 9]].map(&mut step).to_vec();
        assert_eq!(steps[3], [false, false]);
        assert_eq!(steps[4], [true, true]);
        assert_eq!(steps[5], [false, false]);
        assert_eq!(steps[6], [true, false], "8 goes where 6 was, which was there longest");
        assert_eq!(steps[7], [true, true]);
        assert_eq!((places.kept.len(), places.passing.len()), (6, 2));
    }

    #[test]
    fn room_for_less_than_a_step_is_refused() {
        let need = ImageBytes::new([100, 5000, 300], 2);
        assert!(Places::new(need, need.step - 1).is_none());
        assert!(Places::new(need, need.step).is_some());
        let driver: Arc<dyn Driver> = Arc::new(peregrine_engine::cuda::recording::Recording::of_architecture(90));
        let why = format!("{:#}", ImageStore::new(&driver, need, 0).err().unwrap());
        assert!(why.contains("GiB of the GPU's memory"), "{why}");
    }
}
