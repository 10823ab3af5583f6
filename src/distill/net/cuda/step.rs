//! A training step as one graph: forward pass, losses, backward pass and update. The losses are recorded
//! anew at each step; as long as their structure is one that was seen before, so is the graph.

use std::sync::Arc;

use peregrine_engine::cuda::driver::{DeviceMemory, Instance, MemoryKind};
use peregrine_engine::cuda::launch::{span, Node, NodeWork, Span};
use peregrine_engine::cuda::{CudaError, Driver};

use super::losses::program::{Program, Structure};
use super::losses::schedule::{self, Surroundings};
use super::passes::{instantiate, run, upload_step, values_of, CudaNet};
use crate::net::{Mode, NetParams};
use crate::tensor::gradient::gradients;
use crate::tensor::Tensor;

/// Graphs that are kept: a training alternates between a few structures.
const MOST_GRAPHS: usize = 12;

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
struct Key {
    structure: Structure,
    /// Whether each of the layout's seeds is given: the first of what is wanted, in their order.
    given: Vec<bool>,
    parts: Parts,
}

struct Graph {
    key: Key,
    instance: Box<dyn Instance>,
}

/// The graphs of the steps so far, and the memory that the losses share.
#[derive(Default)]
pub struct Graphs {
    // Dropped before the memory that they work on. The one that was used last is the last.
    graphs: Vec<Graph>,
    room: Option<Room>,
}

/// Memory for the losses of any step so far.
struct Room {
    /// Pinned: numbers and arrays.
    host: DeviceMemory,
    /// The same, then the terms, then what the launches need.
    device: DeviceMemory,
    /// Pinned: the terms.
    terms: DeviceMemory,
}

/// Where the parts of a step's memory begin, in bytes.
struct Places {
    arrays: Vec<usize>,
    /// Of numbers and arrays together.
    given: usize,
    arena: usize,
}

impl Places {
    fn new(structure: &Structure, terms: usize) -> Self {
        let mut at = (4 * structure.numbers).next_multiple_of(ALIGNMENT);
        let mut arrays = Vec::with_capacity(structure.arrays.len());
        for bytes in &structure.arrays {
            arrays.push(at);
            at += bytes.next_multiple_of(ALIGNMENT);
        }
        Self { arrays, given: at, arena: at + (4 * terms).next_multiple_of(ALIGNMENT) }
    }
}

impl CudaNet {
    /// One step over `input` (`[batch, channels, height, width]`), or over the pictures if any are shown: runs both passes, adds to the
    /// gradients those of the loss `total`, and updates the parameters if that was
    /// [announced](Self::announce). Returns the values of the scalars `terms`.
    ///
    /// # Errors
    /// When the device fails, or has too little memory for the losses.
    pub fn step(
        &mut self,
        params: &NetParams,
        input: &[f32],
        total: &Tensor,
        terms: &[Tensor],
    ) -> anyhow::Result<Vec<f32>> {
        self.take_pixels(input, Mode::Train);
        let update = self.is_announced();
        self.differentiate(params, total, terms, Parts { forward: true, update })
    }

    /// The gradients of `total`, and the values of `terms`, in a graph of these `parts`.
    pub(super) fn differentiate(
        &mut self,
        params: &NetParams,
        total: &Tensor,
        terms: &[Tensor],
        parts: Parts,
    ) -> anyhow::Result<Vec<f32>> {
        let mut wanted = Vec::new();
        let mut given = vec![false; self.layout.planar_seeds.len()];
        for (leaf, gradient) in gradients(&total.recorded())? {
            let layer = self.layout.planar_outputs[leaf].0;
            if let Some(at) = self.layout.planar_seeds.iter().position(|&(of, _)| of == layer) {
                given[at] = true;
                wanted.push((at, gradient));
            }
        }
        wanted.sort_by_key(|(at, _)| *at);
        let mut wanted: Vec<_> = wanted.into_iter().map(|(_, gradient)| gradient).collect();
        let of_device: Vec<_> = terms.iter().filter(|term| term.on_host().is_none()).map(Tensor::recorded).collect();
        wanted.extend(of_device.iter().cloned());
        wanted.push(total.recorded());
        let program = Program::new(&wanted);
        // The last is the whole loss, which the update looks at.
        let recorded = of_device.len() + 1;

        let key = Key { structure: program.structure.clone(), given, parts };
        let places = Places::new(&key.structure, recorded);
        let at = match self.graphs.graphs.iter().position(|graph| graph.key == key) {
            Some(at) => at,
            None => self.add_graph(params, key, &places, recorded)?,
        };
        let graph = self.graphs.graphs.remove(at);
        self.graphs.graphs.push(graph);
        let room = self.graphs.room.as_mut().expect("made with the first graph");
        write(&program, &places, room.host.as_mut_slice())?;
        let graph = self.graphs.graphs.last_mut().expect("just pushed");
        run(&mut graph.instance)?;
        self.ran(parts);

        let room = self.graphs.room.as_ref().expect("as above");
        let mut values = values_of(&room.terms.as_slice()[..4 * recorded]).into_iter();
        let value = |term: &Tensor| match term.on_host() {
            Some(known) => known.to_scalar(),
            None => Ok(values.next().expect("one for each that is recorded")),
        };
        Ok(terms.iter().map(value).collect::<candle_core::Result<_>>()?)
    }

    /// Makes a graph; the place where it is kept.
    fn add_graph(&mut self, params: &NetParams, key: Key, places: &Places, terms: usize) -> anyhow::Result<usize> {
        let surroundings = self.surroundings(&key, places, terms, 0);
        let bytes = places.arena + schedule::memory(&key.structure, &surroundings);
        self.graphs.make_room(&self.driver, places.given, bytes, terms)?;
        if self.graphs.graphs.len() == MOST_GRAPHS {
            self.graphs.graphs.remove(0);
        }
        let room = self.graphs.room.as_ref().expect("just made");
        let (host, device, terms_host) = (room.host.host(), room.device.device(), room.terms.host());
        let surroundings = self.surroundings(&key, places, terms, device);

        let plan = self.plan();
        let mut nodes = vec![upload_step(&self.step_host, &self.step)];
        if key.parts.forward {
            nodes.extend(self.input_nodes(Mode::Train));
            // The memory of the input is used again later.
            nodes.extend(self.teacher_nodes(&plan.buffer(self.layout.planar_input)));
            nodes.extend(plan.forward(params, Mode::Train));
        }
        nodes.push(Node {
            name: "losses upload".into(),
            work: NodeWork::Upload { host, device, bytes: places.given.max(4) },
            reads: vec![],
            writes: vec![span(device, places.given.max(4))],
        });
        nodes.extend(schedule::nodes(&key.structure, &surroundings, device + places.arena as u64));
        let from = span(device + places.given as u64, 4 * terms);
        let whole = span(from.end - 4, 4);
        nodes.push(Node {
            name: "losses download".into(),
            work: NodeWork::Download { device: from.start, host: terms_host, bytes: 4 * terms },
            reads: vec![from],
            writes: vec![],
        });
        nodes.extend(plan.backward(params, &key.given));
        if key.parts.update {
            nodes.extend(self.update_nodes(Some(whole)));
        }
        let instance = instantiate(&self.driver, &nodes)?;
        self.graphs.graphs.push(Graph { key, instance });
        Ok(self.graphs.graphs.len() - 1)
    }

    /// What the losses' launches work on, with the losses' memory from `device` on.
    fn surroundings(&self, key: &Key, places: &Places, terms: usize, device: u64) -> Surroundings {
        let plan = self.plan();
        let at = |offset: usize, bytes: usize| span(device + offset as u64, bytes);
        let seeds = self.layout.planar_seeds.iter().zip(&key.given).filter(|(_, given)| **given);
        let mut results: Vec<Span> = seeds.map(|(&(_, buffer), _)| plan.buffer(buffer)).collect();
        results.extend((0..terms).map(|term| at(places.given + 4 * term, 4)));
        let arrays = places.arrays.iter().zip(&key.structure.arrays);
        Surroundings {
            precision: self.layout.precision,
            leaves: self.layout.planar_outputs.iter().map(|&(_, buffer)| plan.buffer(buffer)).collect(),
            given: self.teacher_tensors(),
            numbers: at(0, 4 * key.structure.numbers),
            arrays: arrays.map(|(&offset, &bytes)| at(offset, bytes)).collect(),
            results,
        }
    }
}

impl Graphs {
    /// Sees to memory for losses of so many bytes; graphs that use memory which is too small go.
    fn make_room(&mut self, driver: &Arc<dyn Driver>, host: usize, device: usize, terms: usize) -> anyhow::Result<()> {
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
fn write(program: &Program, places: &Places, to: &mut [u8]) -> candle_core::Result<()> {
    to.chunks_exact_mut(4).zip(&program.numbers).for_each(|(to, number)| to.copy_from_slice(&number.to_ne_bytes()));
    let mut arrays = program.arrays.iter().zip(&program.structure.arrays).zip(&places.arrays);
    arrays.try_for_each(|((array, &bytes), &at)| array.write(&mut to[at..at + bytes]))
}
