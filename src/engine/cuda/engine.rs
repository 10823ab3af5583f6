//! The network alone behind the [`Engine`] trait: planar floats in, planar floats out.
//!
//! For networks whose input is not a camera image, and for tests against the CPU.

use std::sync::Arc;
use std::time::Duration;

use super::arguments as arg;
use super::driver::{DeviceMemory, Instance, MemoryKind, Wait};
use super::kernels::THREADS;
use super::launch::{dependencies, span, Launch, Node, NodeWork};
use super::model::Model;
use super::CudaError;
use crate::{Engine, EngineError};

/// Runs a [`Model`].
pub struct CudaEngine {
    // Declared, and so dropped, before the memory that it works on.
    instance: Box<dyn Instance>,
    input: DeviceMemory,
    output: DeviceMemory,
    /// First value and number of values of each output.
    ranges: Vec<(usize, usize)>,
    nodes: Vec<Node>,
    edges: Vec<Vec<usize>>,
    model: Arc<Model>,
    _device: Vec<DeviceMemory>,
}

impl CudaEngine {
    /// Allocates memory for a run of `model` and instantiates its graph.
    ///
    /// # Errors
    /// When the device fails, or has too little memory.
    pub fn new(model: &Arc<Model>, wait: Wait) -> Result<Self, CudaError> {
        let (driver, network) = (model.driver(), model.network());
        let graph_outputs = network.layout.plan.outputs.clone();
        let mut ranges = vec![];
        let mut end = 0;
        for &tensor in &graph_outputs {
            let length = network.view(tensor).shape.len();
            ranges.push((end, length));
            end += length;
        }
        let input_bytes = 4 * network.view(0).shape.len();
        let arena = DeviceMemory::new(driver, MemoryKind::Device, network.layout.arena)?;
        let input = DeviceMemory::new(driver, MemoryKind::Upload, input_bytes)?;
        let output = DeviceMemory::new(driver, MemoryKind::Download, 4 * end)?;
        // Shared memory is read and written in place.
        let integrated = driver.device().integrated;
        let staged_input =
            if integrated { None } else { Some(DeviceMemory::new(driver, MemoryKind::Device, input_bytes)?) };
        let staged_output =
            if integrated { None } else { Some(DeviceMemory::new(driver, MemoryKind::Device, 4 * end)?) };
        let planar_input = staged_input.as_ref().unwrap_or(&input).device();
        let planar_output = staged_output.as_ref().unwrap_or(&output).device();

        let bases = model.bases(&arena);
        let mut nodes = vec![];
        if staged_input.is_some() {
            nodes.push(Node {
                name: "upload".into(),
                work: NodeWork::Upload { host: input.host(), device: planar_input, bytes: input_bytes },
                reads: vec![],
                writes: vec![span(planar_input, input_bytes)],
            });
        }
        let view = network.view(0);
        let values = view.shape.pixels() * view.pitch;
        let (channels, pixels) = (view.shape.channels as i32, view.shape.pixels() as i32);
        let (planar, packed, pitch) = (planar_input, network.address(0, bases), view.pitch as i32);
        let launch = match network.layout.scales[0] {
            Some(scale) => {
                let (scale, zero) = (scale.scale, i32::from(scale.zero_point));
                let argument = arg::PackBytes { planar, packed, channels, pixels, pitch, scale, zero, unused: 0 };
                Launch::flat("pack_bytes", values, THREADS, &argument)
            }
            None => {
                let argument = arg::Repack { planar, packed, channels, pixels, pitch, unused: 0 };
                Launch::flat("pack_planar", values, THREADS, &argument)
            }
        };
        nodes.push(Node {
            name: "pack".into(),
            work: NodeWork::Kernel(launch),
            reads: vec![span(planar_input, input_bytes)],
            writes: vec![network.span(0, bases)],
        });
        nodes.extend(model.nodes(&arena));
        for (&tensor, &(first, _)) in graph_outputs.iter().zip(&ranges) {
            nodes.push(network.unpack(tensor, planar_output + 4 * first as u64, bases));
        }
        if staged_output.is_some() {
            nodes.push(Node {
                name: "download".into(),
                work: NodeWork::Download { device: planar_output, host: output.host(), bytes: 4 * end },
                reads: vec![span(planar_output, 4 * end)],
                writes: vec![],
            });
        }
        driver.prepare(&nodes)?;
        let edges = dependencies(&nodes);
        let instance = driver.instantiate(&nodes, &edges, wait, 0)?;
        let device = [Some(arena), staged_input, staged_output].into_iter().flatten().collect();
        Ok(Self { instance, input, output, ranges, nodes, edges, model: Arc::clone(model), _device: device })
    }

    /// What runs, as a human-readable table.
    pub fn explain(&self) -> String {
        super::explain::table(&self.model, &self.nodes, &self.edges)
    }

    /// The graph's nodes, each with those that it waits for.
    pub fn graph(&self) -> (&[Node], &[Vec<usize>]) {
        (&self.nodes, &self.edges)
    }

    /// The least microseconds that each node took alone in `runs` runs, by its name; `None` if the
    /// driver has no clock.
    ///
    /// # Errors
    /// When the device fails.
    pub fn profile(&mut self, runs: usize) -> Result<Option<Vec<(String, f32)>>, CudaError> {
        let times = self.model.driver().time(&self.nodes, runs)?;
        Ok(times.map(|times| self.nodes.iter().map(|n| n.name.clone()).zip(times).collect()))
    }

    /// Runs the network and returns the microseconds that it took by the device's clock; `None` if
    /// it has no clock.
    ///
    /// # Errors
    /// When the device fails.
    pub fn device_time(&mut self) -> Result<Option<f32>, CudaError> {
        self.instance.time()
    }
}

impl Engine for CudaEngine {
    fn input(&mut self) -> &mut [f32] {
        let bytes = self.input.as_mut_slice();
        // SAFETY: allocated as that many floats, aligned far beyond them, and every pattern of bits
        // is one.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / 4) }
    }

    fn run(&mut self) -> Result<(), EngineError> {
        self.instance.launch()?;
        Ok(self.instance.wait(Duration::MAX)?)
    }

    fn output(&self, index: usize) -> &[f32] {
        let (first, length) = self.ranges[index];
        let bytes = &self.output.as_slice()[4 * first..][..4 * length];
        // SAFETY: as for the input; the graph has written them all.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), length) }
    }
}
