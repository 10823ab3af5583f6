//! Streams and events of the driver, and what steps take, timed by them.

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::result;
use cudarc::driver::sys;

use super::{check, failed, Real};
use crate::cuda::driver::Wait;
use crate::cuda::launch::{Launch, Node};
use crate::cuda::CudaError;

impl Real {
    pub(super) fn stream(&self, priority: i32) -> Result<Stream, CudaError> {
        let (least, greatest) =
            result::stream::get_priority_range().map_err(|e| failed("cuCtxGetStreamPriorityRange", e))?;
        let priority = priority.clamp(greatest.min(least), least.max(greatest));
        let kind = result::stream::StreamKind::NonBlocking;
        let stream = result::stream::create_with_priority(kind, priority);
        Ok(Stream(stream.map_err(|e| failed("cuStreamCreateWithPriority", e))?))
    }

    /// See [`Driver::time`](crate::cuda::Driver::time).
    pub(super) fn least_times(&self, nodes: &[Node], runs: usize) -> Result<Vec<f32>, CudaError> {
        // In a graph each waits for the one before, as in a network. Launched one by one, small
        // kernels would be timed by how fast the CPU launches them.
        const IN_A_ROW: usize = 16;
        let edges: Vec<_> = (0..IN_A_ROW).map(|i| (0..i).rev().take(1).collect()).collect();
        let mut least = |node: &Node| {
            let mut chain = self.graph(&vec![node.clone(); IN_A_ROW], &edges, Wait::Block, 0)?;
            let mut least = f32::INFINITY;
            for _ in 0..=runs {
                least = least.min(chain.microseconds()?);
            }
            Ok(least / IN_A_ROW as f32)
        };
        nodes.iter().map(&mut least).collect()
    }
}

/// A kernel's argument, aligned as the kernel's structure is.
pub(super) struct Argument(Vec<u64>);

impl Argument {
    pub(super) fn of(launch: &Launch) -> Self {
        let words = launch.argument.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        Self(words.collect())
    }

    pub(super) fn pointers(&mut self) -> [*mut c_void; 1] {
        [self.0.as_mut_ptr().cast()]
    }
}

pub(super) struct Stream(pub(super) sys::CUstream);

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created by its owner alone.
        let _ = unsafe { result::stream::destroy(self.0) };
    }
}

pub(super) struct Event(pub(super) sys::CUevent);

impl Event {
    pub(super) fn new(flags: u32) -> Result<Self, CudaError> {
        let mut event = ptr::null_mut();
        // SAFETY: outlives the call.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut event, flags) })?;
        Ok(Self(event))
    }

    pub(super) fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: both live.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.0, stream.0) })
    }

    /// Waits for it; asleep if it was made to.
    pub(super) fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: it lives.
        check("running the graph", unsafe { sys::cuEventSynchronize(self.0) })
    }

    /// Of two events that were made without flags.
    pub(super) fn milliseconds_to(&self, end: &Self) -> Result<f32, CudaError> {
        type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
        let missing = |e: &dyn std::fmt::Display| CudaError::Failed { call: "cuEventElapsedTime", why: e.to_string() };
        let mut milliseconds = 0.0;
        // SAFETY: the call's type is that of the CUDA driver API since 2.0. cudarc has its
        // successor alone, which Orin's driver lacks.
        unsafe {
            let elapsed = sys::culib().get::<Elapsed>(b"cuEventElapsedTime\0").map_err(|e| missing(&e))?;
            check("cuEventElapsedTime", elapsed(&mut milliseconds, self.0, end.0))?;
        }
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created by its owner alone.
        let _ = unsafe { sys::cuEventDestroy_v2(self.0) };
    }
}
