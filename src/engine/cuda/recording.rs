//! A driver without a device: it hands out addresses and records what it is asked for.
//!
//! For inspecting a plan without a GPU, and for tests.

use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use super::driver::{Address, DeviceInfo, Driver, Instance, MemoryKind, Wait};
use super::launch::Node;
use super::CudaError;

/// Addresses begin here, far above any that a missing base would give.
const FIRST: u64 = 0x7000_0000_0000;

/// What allocations are aligned to, as by the real driver.
const ALIGNMENT: u64 = 256;

/// See the module.
pub struct Recording {
    device: DeviceInfo,
    /// Bytes of memory that it says are free; `None`: it doesn't say.
    free: Option<usize>,
    has_clock: bool,
    state: Mutex<RecordingState>,
}

#[derive(Default)]
struct RecordingState {
    next: u64,
    /// Sizes of the allocations that are held, by address.
    held: BTreeMap<u64, usize>,
    graphs: Vec<RecordedGraph>,
    /// Nodes that were timed.
    timed: usize,
}

/// A graph as it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedGraph {
    pub nodes: Vec<Node>,
    /// For each node those that it waits for.
    pub edges: Vec<Vec<usize>>,
    pub wait: Wait,
    /// Of its stream.
    pub priority: i32,
}

impl Recording {
    /// Stands in for `device`.
    pub fn new(device: DeviceInfo) -> Self {
        let state = Mutex::new(RecordingState { next: FIRST, ..RecordingState::default() });
        Self { device, free: None, has_clock: false, state }
    }

    /// Says that so many bytes of its memory are free.
    #[must_use]
    pub fn with_free(self, bytes: usize) -> Self {
        Self { free: Some(bytes), ..self }
    }

    /// Has a clock by which the n-th node that is timed takes n microseconds, from 0.
    #[must_use]
    pub fn with_clock(self) -> Self {
        Self { has_clock: true, ..self }
    }

    /// Stands in for the first device of the table in the documentation that is of `architecture`:
    /// an H100 for 90, and Orin for 87.
    pub fn of_architecture(architecture: u32) -> Self {
        let (name, multiprocessors) = match architecture {
            87 => ("Orin", 16),
            90 => ("H100", 132),
            _ => ("a device", 40),
        };
        let name = format!("{name} (recorded, not run)");
        Self::new(DeviceInfo { name, architecture, multiprocessors, integrated: architecture == 87, driver: 13000 })
    }

    /// The allocations that are held: address and size.
    pub fn held(&self) -> Vec<(u64, usize)> {
        self.lock().held.iter().map(|(&at, &bytes)| (at, bytes)).collect()
    }

    /// The graphs instantiated so far.
    pub fn graphs(&self) -> Vec<RecordedGraph> {
        self.lock().graphs.clone()
    }

    /// Nodes that were timed so far.
    pub fn timed(&self) -> usize {
        self.lock().timed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, RecordingState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, ALIGNMENT as usize).expect("far from the largest size")
}

impl Driver for Recording {
    fn device(&self) -> &DeviceInfo {
        &self.device
    }

    fn prepare(&self, _: &[Node]) -> Result<(), CudaError> {
        Ok(())
    }

    fn allocate(&self, place: MemoryKind, bytes: usize) -> Result<Address, CudaError> {
        let host = match place {
            MemoryKind::Device => 0,
            // SAFETY: at least one byte, as `DeviceMemory` sees to.
            MemoryKind::Upload | MemoryKind::Download => unsafe { alloc_zeroed(layout(bytes)) as u64 },
        };
        let mut state = self.lock();
        let device = state.next;
        state.next += (bytes as u64).next_multiple_of(ALIGNMENT) + ALIGNMENT;
        state.held.insert(device, bytes);
        Ok(Address { device, host })
    }

    fn free(&self, _: MemoryKind, address: Address) {
        let bytes = self.lock().held.remove(&address.device);
        if let (Some(bytes), true) = (bytes, address.host != 0) {
            // SAFETY: allocated above with the same layout.
            unsafe { dealloc(address.host as *mut u8, layout(bytes)) };
        }
    }

    fn upload(&self, _: u64, _: &[u8]) -> Result<(), CudaError> {
        Ok(())
    }

    fn download(&self, _: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        bytes.fill(0);
        Ok(())
    }

    fn instantiate(
        &self,
        nodes: &[Node],
        edges: &[Vec<usize>],
        wait: Wait,
        priority: i32,
    ) -> Result<Box<dyn Instance>, CudaError> {
        let (nodes, edges) = (nodes.to_vec(), edges.to_vec());
        self.lock().graphs.push(RecordedGraph { nodes, edges, wait, priority });
        Ok(Box::new(RecordedInstance))
    }

    fn time(&self, nodes: &[Node], _: usize) -> Result<Option<Vec<f32>>, CudaError> {
        if !self.has_clock {
            return Ok(None);
        }
        let mut state = self.lock();
        let first = state.timed;
        state.timed += nodes.len();
        Ok(Some((first..state.timed).map(|n| n as f32).collect()))
    }

    fn memory(&self) -> Option<(usize, usize)> {
        self.free.map(|free| (free, 2 * free))
    }
}

/// A graph that does nothing.
struct RecordedInstance;

impl Instance for RecordedInstance {
    fn launch(&mut self) -> Result<(), CudaError> {
        Ok(())
    }

    fn wait(&mut self, _: Duration) -> Result<(), CudaError> {
        Ok(())
    }
}
