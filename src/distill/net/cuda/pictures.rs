//! The inputs of a batch, rendered by the device from images in its memory.
//!
//! Before a step the host uploads the images that are not on the device yet, and writes the table of
//! what each input shows; the step's graph uploads that table and renders the inputs.

use std::collections::HashMap;
use std::sync::Arc;

use peregrine_engine::cuda::driver::{DeviceMemory, MemoryKind};
use peregrine_engine::cuda::launch::{span, Launch, Node, NodeWork, Span};
use peregrine_engine::cuda::plain::Plain;
use peregrine_engine::cuda::Driver;
use peregrine_student::architecture::Input;

use super::arguments::{self as arg, int};
use super::image_store::{ImageBytes, ImageStore};
use super::kernels::{Precision, BLOCK};
use crate::picture::{Picture, SourceImage, Staying, Tile};

/// Tiles that an input may have, with those that are blended in.
const MOST_TILES: usize = 8;

/// Of an input in the table.
const ENTRY: usize = size_of::<arg::Picture>();

/// See the module.
pub struct Pictures {
    images: ImageStore,
    table: DeviceMemory,
    /// Pinned.
    table_host: DeviceMemory,
    input: Input,
    batch: usize,
}

impl Pictures {
    /// For batches of `batch` inputs of images that take `need`, for which there are `room` bytes of the
    /// device's memory.
    ///
    /// # Errors
    /// As [`ImageStore::new`].
    pub fn new(
        driver: &Arc<dyn Driver>,
        input: &Input,
        batch: usize,
        need: ImageBytes,
        room: usize,
    ) -> anyhow::Result<Self> {
        let table = |kind| DeviceMemory::new(driver, kind, batch * ENTRY);
        Ok(Self {
            table: table(MemoryKind::Device)?,
            table_host: table(MemoryKind::Upload)?,
            images: ImageStore::new(driver, need, room.saturating_sub(batch * ENTRY))?,
            input: input.clone(),
            batch,
        })
    }

    /// The images whose pixels are not needed any more.
    pub fn staying(&self) -> &Arc<Staying> {
        self.images.staying()
    }

    /// Has the next launch of the [nodes](Self::nodes) render `pictures`, one for each input of a batch.
    /// No launch before may be running.
    ///
    /// # Errors
    /// As [`ImageStore::upload`].
    ///
    /// # Panics
    /// When there are more or fewer than a batch has, or one has more tiles than fit, or an image without
    /// pixels that does not [stay](Self::staying).
    pub fn show(&mut self, pictures: &[Picture]) -> anyhow::Result<()> {
        assert_eq!(pictures.len(), self.batch, "a batch of pictures");
        let mut at: HashMap<usize, usize> = HashMap::new();
        let mut images: Vec<&SourceImage> = Vec::new();
        for tile in pictures.iter().flat_map(Picture::all_tiles) {
            at.entry(tile.image.number).or_insert_with(|| {
                images.push(&tile.image);
                images.len() - 1
            });
        }
        let addresses = self.images.upload(&images)?;
        for (picture, entry) in pictures.iter().zip(self.table_host.as_mut_slice().chunks_exact_mut(ENTRY)) {
            entry_of(picture, |tile| addresses[at[&tile.image.number]]).write(entry);
        }
        Ok(())
    }

    /// From the table in pinned memory to the `planar` input, `[batch, 3, height, width]` in single
    /// precision.
    pub fn nodes(&self, planar: &Span, precision: Precision) -> [Node; 2] {
        let (table, bytes) = (span(self.table.device(), self.table.len()), self.table.len());
        let Input { width, height, mean, std } = self.input;
        let argument = arg::Pictures {
            pictures: table.start,
            planar: planar.start,
            mean,
            std,
            images: int(self.batch),
            height: int(height),
            width: int(width),
            unused: 0,
        };
        let pixels = self.batch * height * width;
        let launch = Launch::flat(precision.kernel("render"), pixels, BLOCK as u32, &argument);
        [
            Node {
                name: "pictures upload".into(),
                work: NodeWork::Upload { host: self.table_host.host(), device: table.start, bytes },
                reads: vec![],
                writes: vec![table.clone()],
            },
            Node {
                name: "input render".into(),
                work: NodeWork::Kernel(launch),
                reads: vec![table],
                writes: vec![planar.clone()],
            },
        ]
    }

    /// Images that stay on the device, and those that pass through.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        self.images.held()
    }
}

/// The table's entry of a picture, with the image of each tile at an `address`.
fn entry_of(picture: &Picture, address: impl Fn(&Tile) -> u64) -> arg::Picture {
    let (share, blended) = picture.blended.as_ref().map_or((0.0, &[][..]), |(share, tiles)| (*share, &tiles[..]));
    let mut entry =
        arg::Picture { tiles: int(picture.tiles.len()), blended: int(blended.len()), share, ..arg::Picture::default() };
    assert!(picture.tiles.len() + blended.len() <= MOST_TILES, "an input has up to {MOST_TILES} tiles");
    for (to, tile) in entry.tile.iter_mut().zip(picture.all_tiles()) {
        let Tile { image, view, colour, part } = tile;
        let (width, height) = image.size;
        *to = arg::PictureTile {
            pixels: address(tile),
            width: int(width as usize),
            height: int(height as usize),
            origin: view.origin,
            step: view.step,
            taps: view.taps().map(int),
            saturation: colour.saturation,
            gain: colour.gain,
            offset: colour.offset,
            left: int(part.columns.start),
            top: int(part.rows.start),
            right: int(part.columns.end),
            bottom: int(part.rows.end),
            unused: 0,
        };
    }
    entry
}
