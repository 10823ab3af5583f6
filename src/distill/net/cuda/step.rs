//! A training step as one graph: forward pass, losses, backward pass and update. The losses are recorded
//! anew at each step; as long as their structure is one that was seen before, so is the graph.

use peregrine_engine::cuda::launch::{span, Node, NodeWork, Span};

use super::graphs::{write, Graph, Key, Parts, Places, MOST_GRAPHS};
use super::layout::Layout;
use super::losses::program::Program;
use super::losses::schedule::{self, Surroundings};
use super::memory::{instantiate, run, upload_step, values_of};
use super::passes::CudaNet;
use super::teacher::{Teacher, Teaching};
use crate::net::{Mode, NetParams};
use crate::tensor::gradient::gradients;
use crate::tensor::Tensor;

impl CudaNet {
    /// Adds a teacher, whose tensors the losses may read from then on. For the average an optimizer must
    /// have been [set](Self::optimize).
    ///
    /// # Errors
    /// As [`Teacher::new`].
    pub fn teach(&mut self, teaching: &Teaching) -> anyhow::Result<()> {
        let Layout { batch, precision, .. } = self.layout;
        self.teacher = Some(Teacher::new(&self.driver, teaching, batch, precision)?);
        Ok(())
    }

    /// The shape of the teacher's tensor of this number, `[batch, channels, height, width]`; `None` without
    /// one.
    pub fn teacher_shape(&self, number: usize) -> Option<[usize; 4]> {
        self.teacher.as_ref()?.shape(number)
    }

    /// One step over `input` (`[batch, channels, height, width]`), or over the pictures if any are shown:
    /// runs both passes, adds to the gradients those of the loss `total`, and updates the parameters if
    /// that was [announced](Self::announce). Returns the values of the scalars `terms`.
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
        let Program { structure, arrays, numbers } = Program::new(&wanted);
        // The last is the whole loss, which the update looks at.
        let recorded = of_device.len() + 1;

        let key = Key { structure, given, parts };
        let places = Places::new(&key.structure, recorded);
        let at = match self.graphs.graphs.iter().position(|graph| graph.key == key) {
            Some(at) => at,
            None => self.add_graph(params, key, &places, recorded)?,
        };
        let graph = self.graphs.graphs.remove(at);
        self.graphs.graphs.push(graph);
        let room = self.graphs.room.as_mut().expect("made with the first graph");
        write(&numbers, &arrays, &places, room.host.as_mut_slice())?;
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
            let input = plan.buffer(self.layout.planar_input);
            nodes.extend(self.teacher.iter().flat_map(|teacher| teacher.nodes(&input, self.average())));
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
        Surroundings {
            precision: self.layout.precision,
            leaves: self.layout.planar_outputs.iter().map(|&(_, buffer)| plan.buffer(buffer)).collect(),
            given: self.teacher.as_ref().map_or_else(Vec::new, |teacher| teacher.tensors(self.average())),
            numbers: at(0, 4 * key.structure.numbers),
            arrays: places.arrays.iter().map(|array| at(array.start, array.len())).collect(),
            results,
        }
    }
}
