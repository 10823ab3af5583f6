//! The graphs of the steps so far, and the memory that their losses share.

use std::ops::Range;
use std::sync::Arc;

use peregrine_engine::cuda::driver::{DeviceMemory, Instance, MemoryKind};
use peregrine_engine::cuda::{CudaError, Driver};

use super::losses::program::{Array, Structure};

/// Graphs that are kept: a training alternates between a few structures.
pub const MOST_GRAPHS: usize = 12;

/// What arrays are aligned to, in bytes.
const ALIGNMENT: usize = 256;

/// The parts of a step that a graph has besides losses and backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The forward pass, in training.
    pub forward: bool,
    /// The update of the parameters.
    pub update: bool,
}

/// What a graph is made for.
#[derive(PartialEq)]
pub struct Key {
    pub structure: Structure,
    /// Whether each of the layout's seeds is given: the first of what is wanted, in their order.
    pub given: Vec<bool>,
    pub parts: Parts,
}

pub struct Graph {
    pub key: Key,
    pub instance: Box<dyn Instance>,
}

/// The graphs of the steps so far, and the memory that the losses share.
#[derive(Default)]
pub struct Graphs {
    // Dropped before the memory that they work on. The one that was used last is the last.
    pub graphs: Vec<Graph>,
    pub room: Option<Room>,
}

/// Memory for the losses of any step so far.
pub struct Room {
    /// Pinned: numbers and arrays.
    pub host: DeviceMemory,
    /// The same, then the terms, then what the launches need.
    pub device: DeviceMemory,
    /// Pinned: the terms.
    pub terms: DeviceMemory,
}

/// Where the parts of a step's memory begin, in bytes.
pub struct Places {
    /// From and to where each array lies.
    pub arrays: Vec<Range<usize>>,
    /// Of numbers and arrays together.
    pub given: usize,
    pub arena: usize,
}

impl Places {
    /// Of a structure with so many terms.
    pub fn new(structure: &Structure, terms: usize) -> Self {
        let mut at = (4 * structure.numbers).next_multiple_of(ALIGNMENT);
        let mut arrays = Vec::with_capacity(structure.arrays.len());
        for bytes in &structure.arrays {
            arrays.push(at..at + bytes);
            at += bytes.next_multiple_of(ALIGNMENT);
        }
        Self { arrays, given: at, arena: at + (4 * terms).next_multiple_of(ALIGNMENT) }
    }
}

impl Graphs {
    /// Sees to memory for losses of so many bytes; graphs that use memory which is too small go.
    pub fn make_room(
        &mut self,
        driver: &Arc<dyn Driver>,
        host: usize,
        device: usize,
        terms: usize,
    ) -> anyhow::Result<()> {
        let fits =
            |room: &Room| room.host.len() >= host && room.device.len() >= device && room.terms.len() >= 4 * terms;
        if self.room.as_ref().is_some_and(fits) {
            return Ok(());
        }
        self.graphs.clear();
        self.room = None;
        // A little more, so that the next does not need more again.
        let new = |kind, bytes: usize, least| DeviceMemory::new(driver, kind, (bytes + bytes / 4).max(least));
        let memory = || -> Result<Room, CudaError> {
            Ok(Room {
                host: new(MemoryKind::Upload, host, 1 << 16)?,
                device: new(MemoryKind::Device, device, 1 << 20)?,
                terms: new(MemoryKind::Download, 4 * terms, 256)?,
            })
        };
        self.room = Some(memory().map_err(|error| match error {
            CudaError::OutOfMemory { .. } => anyhow::anyhow!(
                "{error}: the losses need {} MiB beside the network; lower batch, or use fewer [[method]] tables",
                device >> 20
            ),
            other => other.into(),
        })?);
        Ok(())
    }
}

/// Copies numbers and arrays to their places.
pub fn write(numbers: &[f32], arrays: &[Array], places: &Places, to: &mut [u8]) -> candle_core::Result<()> {
    to.chunks_exact_mut(4).zip(numbers).for_each(|(to, number)| to.copy_from_slice(&number.to_ne_bytes()));
    arrays.iter().zip(&places.arrays).try_for_each(|(array, at)| array.write(&mut to[at.clone()]))
}
