//! Graphs of the driver: built node by node, instantiated once, launched for each frame.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cudarc::driver::result;
use cudarc::driver::sys;

use super::stream::{Argument, Event, Stream};
use super::{check, device, failed, Context, Real};
use crate::cuda::driver::{Instance, Wait};
use crate::cuda::launch::{Node, NodeWork};
use crate::cuda::CudaError;

/// The first architecture whose kernels can start before those that they wait for have ended.
const FIRST_EARLY: u32 = 90;

/// The end of a graph is noticed late by at most this part of what it takes, while that is between
/// these.
const LATENESS: u32 = 64;
const SHORTEST_SLEEP: Duration = Duration::from_micros(10);
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// Only called where it is there: CUDA 12.3 brought it.
const ADD_EDGES: &str = "cuGraphAddDependencies_v2";

/// Programmatic dependent launch (CUDA driver API, CUgraphKernelNodePortProgrammatic and
/// CUgraphDependencyType).
const EARLY: sys::CUgraphEdgeData = sys::CUgraphEdgeData {
    from_port: 1,
    to_port: 0,
    type_: sys::CUgraphDependencyType_enum::CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC as u8,
    reserved: [0; 5],
};

impl Real {
    /// See [`Driver::instantiate`](crate::cuda::Driver::instantiate).
    pub(super) fn graph(
        &self,
        nodes: &[Node],
        edges: &[Vec<usize>],
        wait: Wait,
        priority: i32,
    ) -> Result<Ready, CudaError> {
        self.context.enter()?;
        // Kernels start early where device and driver let them (see `wait_for_inputs` in
        // kernels/common.cuh).
        let early = self.device.architecture >= FIRST_EARLY && device::has_all(&[ADD_EDGES]).is_ok();
        if early {
            if let Ok(ready) = self.ready(nodes, edges, true, wait, priority) {
                return Ok(ready);
            }
        }
        self.ready(nodes, edges, false, wait, priority)
    }

    /// The graph, whose kernels start `early`: before those that they wait for have ended.
    fn ready(
        &self,
        nodes: &[Node],
        edges: &[Vec<usize>],
        early: bool,
        wait: Wait,
        priority: i32,
    ) -> Result<Ready, CudaError> {
        let mut graph = Graph(ptr::null_mut());
        // SAFETY: outlives the call.
        check("cuGraphCreate", unsafe { sys::cuGraphCreate(&mut graph.0, 0) })?;
        let mut added: Vec<sys::CUgraphNode> = Vec::with_capacity(nodes.len());
        let is_kernel = |node: &Node| matches!(node.work, NodeWork::Kernel(_));
        for (node, before) in nodes.iter().zip(edges) {
            let starts_early = |j: &&usize| early && is_kernel(node) && is_kernel(&nodes[**j]);
            let ended: Vec<_> = before.iter().filter(|j| !starts_early(j)).map(|&j| added[j]).collect();
            let begun: Vec<_> = before.iter().filter(starts_early).map(|&j| added[j]).collect();
            let this = self.add(graph.0, node, &ended)?;
            if !begun.is_empty() {
                let (to, how) = (vec![this; begun.len()], vec![EARLY; begun.len()]);
                // SAFETY: nodes of this graph, and as many of each as is said.
                check(ADD_EDGES, unsafe {
                    sys::cuGraphAddDependencies_v2(graph.0, begun.as_ptr(), to.as_ptr(), how.as_ptr(), begun.len())
                })?;
            }
            added.push(this);
        }
        let flags = match wait {
            Wait::Block => {
                sys::CUevent_flags_enum::CU_EVENT_BLOCKING_SYNC as u32
                    | sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32
            }
            Wait::Spin => sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32,
        };
        let done = Event::new(flags)?;
        let stream = self.stream(priority)?;
        let mut executable = Executable(ptr::null_mut());
        // SAFETY: outlives the call; the graph is whole.
        check("cuGraphInstantiate", unsafe { sys::cuGraphInstantiateWithFlags(&mut executable.0, graph.0, 0) })?;
        // SAFETY: instantiated just now.
        check("cuGraphUpload", unsafe { sys::cuGraphUpload(executable.0, stream.0) })?;
        // SAFETY: a living stream.
        unsafe { result::stream::synchronize(stream.0) }.map_err(|e| failed("cuStreamSynchronize", e))?;
        Ok(Ready { executable, done, stream, wait, context: Arc::clone(&self.context) })
    }

    fn add(
        &self,
        graph: sys::CUgraph,
        node: &Node,
        before: &[sys::CUgraphNode],
    ) -> Result<sys::CUgraphNode, CudaError> {
        let mut added = ptr::null_mut();
        let (first, count) = (before.as_ptr(), before.len());
        match &node.work {
            NodeWork::Kernel(launch) => {
                let mut argument = Argument::of(launch);
                let mut pointers = argument.pointers();
                let [x, y, z] = launch.grid;
                let parameters = sys::CUDA_KERNEL_NODE_PARAMS {
                    func: self.function(&launch.kernel)?,
                    gridDimX: x,
                    gridDimY: y,
                    gridDimZ: z,
                    blockDimX: launch.threads,
                    blockDimY: 1,
                    blockDimZ: 1,
                    sharedMemBytes: 0,
                    kernelParams: pointers.as_mut_ptr(),
                    extra: ptr::null_mut(),
                    kern: ptr::null_mut(),
                    ctx: ptr::null_mut(),
                };
                // SAFETY: the driver copies the argument before it returns.
                check("cuGraphAddKernelNode", unsafe {
                    sys::cuGraphAddKernelNode_v2(&mut added, graph, first, count, &parameters)
                })?;
            }
            &NodeWork::Upload { host, device, bytes } => {
                let mut copy = copy(bytes);
                copy.srcMemoryType = sys::CUmemorytype_enum::CU_MEMORYTYPE_HOST;
                copy.srcHost = host as *const c_void;
                copy.dstMemoryType = sys::CUmemorytype_enum::CU_MEMORYTYPE_DEVICE;
                copy.dstDevice = device;
                // SAFETY: both ends outlive the graph.
                check("cuGraphAddMemcpyNode", unsafe {
                    sys::cuGraphAddMemcpyNode(&mut added, graph, first, count, &copy, self.context.context)
                })?;
            }
            &NodeWork::Download { device, host, bytes } => {
                let mut copy = copy(bytes);
                copy.srcMemoryType = sys::CUmemorytype_enum::CU_MEMORYTYPE_DEVICE;
                copy.srcDevice = device;
                copy.dstMemoryType = sys::CUmemorytype_enum::CU_MEMORYTYPE_HOST;
                copy.dstHost = host as *mut c_void;
                // SAFETY: both ends outlive the graph.
                check("cuGraphAddMemcpyNode", unsafe {
                    sys::cuGraphAddMemcpyNode(&mut added, graph, first, count, &copy, self.context.context)
                })?;
            }
        }
        Ok(added)
    }
}

/// A copy of one row of `bytes`, its ends yet to be set.
fn copy(bytes: usize) -> sys::CUDA_MEMCPY3D {
    // SAFETY: numbers, null pointers, and enumerations whose 0 is overwritten before use.
    let mut copy: MaybeUninit<sys::CUDA_MEMCPY3D> = MaybeUninit::zeroed();
    // SAFETY: a valid value for both enumerations; the rest is valid as zeros.
    unsafe {
        (*copy.as_mut_ptr()).srcMemoryType = sys::CUmemorytype_enum::CU_MEMORYTYPE_HOST;
        (*copy.as_mut_ptr()).dstMemoryType = sys::CUmemorytype_enum::CU_MEMORYTYPE_HOST;
        let mut copy = copy.assume_init();
        (copy.WidthInBytes, copy.Height, copy.Depth) = (bytes, 1, 1);
        (copy.srcPitch, copy.srcHeight, copy.dstPitch, copy.dstHeight) = (bytes, 1, bytes, 1);
        copy
    }
}

/// An instantiated graph with its stream and the event at its end.
pub(super) struct Ready {
    executable: Executable,
    done: Event,
    stream: Stream,
    wait: Wait,
    context: Arc<Context>,
}

// SAFETY: used by one thread at a time, as `&mut self` sees to, and each call makes the context the
// thread's.
unsafe impl Send for Ready {}

impl Ready {
    /// Runs it, and gives what it took from its start to its end by the device's clock.
    pub(super) fn microseconds(&mut self) -> Result<f32, CudaError> {
        self.context.enter()?;
        let (start, end) = (Event::new(0)?, Event::new(0)?);
        start.record(&self.stream)?;
        self.launch()?;
        end.record(&self.stream)?;
        end.synchronize()?;
        Ok(1000.0 * start.milliseconds_to(&end)?)
    }
}

impl Instance for Ready {
    fn launch(&mut self) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: the graph's memory lives as long as its owner, who drops this first.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(self.executable.0, self.stream.0) })?;
        self.done.record(&self.stream)
    }

    fn wait(&mut self, limit: Duration) -> Result<(), CudaError> {
        // The driver's own wait has no limit.
        if self.wait == Wait::Block && limit == Duration::MAX {
            return self.done.synchronize();
        }
        let start = Instant::now();
        loop {
            // SAFETY: a living event.
            let status = unsafe { sys::cuEventQuery(self.done.0) };
            if status != sys::CUresult::CUDA_ERROR_NOT_READY {
                self.context.set_exceeded(0);
                return check("running the graph", status);
            }
            let lasts = start.elapsed();
            if lasts >= limit {
                // A limit of zero asks once more about a graph that has exceeded one before.
                if !limit.is_zero() {
                    self.context.set_exceeded((limit.as_millis() as u64).max(1));
                }
                return Err(self.context.check_hanging().err().unwrap_or(CudaError::Hangs { limit_ms: 0 }));
            }
            match self.wait {
                Wait::Block => thread::sleep((lasts / LATENESS).clamp(SHORTEST_SLEEP, LONGEST_SLEEP)),
                Wait::Spin => std::hint::spin_loop(),
            }
        }
    }

    fn time(&mut self) -> Result<Option<f32>, CudaError> {
        self.microseconds().map(Some)
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // Its memory may be freed next.
        let _ = self.context.enter();
        let _ = self.done.synchronize();
    }
}

struct Graph(sys::CUgraph);

impl Drop for Graph {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: created by its owner alone; destroying it leaves instances alive.
            let _ = unsafe { sys::cuGraphDestroy(self.0) };
        }
    }
}

struct Executable(sys::CUgraphExec);

impl Drop for Executable {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: instantiated by its owner alone.
            let _ = unsafe { sys::cuGraphExecDestroy(self.0) };
        }
    }
}
