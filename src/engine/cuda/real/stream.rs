//! Streams and events of the driver, and what steps take, timed by them.

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::result;
use cudarc::driver::sys;

use super::{check, failed, Real};
use crate::engine::cuda::launch::{Launch, Node, Work};
use crate::engine::cuda::CudaError;

impl Real {
    pub(super) fn stream(&self, priority: i32) -> Result<Stream, CudaError> {
        let (least, greatest) =
            result::stream::get_priority_range().map_err(|e| failed("cuCtxGetStreamPriorityRange", e))?;
        let priority = priority.clamp(greatest.min(least), least.max(greatest));
        let kind = result::stream::StreamKind::NonBlocking;
        let stream = result::stream::create_with_priority(kind, priority);
        Ok(Stream(stream.map_err(|e| failed("cuStreamCreateWithPriority", e))?))
    }

    fn issue(&self, node: &Node, stream: &Stream) -> Result<(), CudaError> {
        match &node.work {
            Work::Kernel(launch) => {
                let function = self.function(&launch.kernel)?;
                let mut argument = Argument::of(launch);
                let [x, y, z] = launch.grid;
                // SAFETY: the kernel takes one argument of this type; its addresses are of living memory.
                check("cuLaunchKernel", unsafe {
                    sys::cuLaunchKernel(
                        function,
                        x,
                        y,
                        z,
                        launch.threads,
                        1,
                        1,
                        0,
                        stream.0,
                        argument.pointers().as_mut_ptr(),
                        ptr::null_mut(),
                    )
                })
            }
            // SAFETY: both ends are allocations of at least so many bytes.
            &Work::Upload { host, device, bytes } => check("cuMemcpyHtoDAsync", unsafe {
                sys::cuMemcpyHtoDAsync_v2(device, host as *const c_void, bytes, stream.0)
            }),
            // SAFETY: as above.
            &Work::Download { device, host, bytes } => check("cuMemcpyDtoHAsync", unsafe {
                sys::cuMemcpyDtoHAsync_v2(host as *mut c_void, device, bytes, stream.0)
            }),
        }
    }

    /// See [`Driver::time`](crate::engine::cuda::Driver::time).
    pub(super) fn least_times(&self, nodes: &[Node], runs: usize) -> Result<Vec<f32>, CudaError> {
        // Short kernels are timed by tens, since events are half a microsecond apart at best.
        const AT_ONCE: usize = 10;
        self.context.enter()?;
        let stream = self.stream(0)?;
        let (start, end) = (Event::new(0)?, Event::new(0)?);
        let mut times = vec![];
        for node in nodes {
            let mut least = f32::INFINITY;
            self.issue(node, &stream)?;
            for _ in 0..runs {
                start.record(&stream)?;
                for _ in 0..AT_ONCE {
                    self.issue(node, &stream)?;
                }
                end.record(&stream)?;
                end.synchronize()?;
                least = least.min(1000.0 * start.milliseconds_to(&end)? / AT_ONCE as f32);
            }
            times.push(least);
        }
        Ok(times)
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

    fn milliseconds_to(&self, end: &Self) -> Result<f32, CudaError> {
        type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
        let missing = |e: &dyn std::fmt::Display| CudaError::Failed { call: "cuEventElapsedTime", why: e.to_string() };
        let mut milliseconds = 0.0;
        // SAFETY: the call's type is that of the CUDA driver API since 2.0. cudarc has its successor alone, which
        // Orin's driver lacks.
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
