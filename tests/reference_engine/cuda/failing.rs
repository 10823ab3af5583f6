//! A driver that fails when it is told to: in front of any other, to see what becomes of the calls
//! around.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use peregrine_engine::cuda::driver::{Address, DeviceInfo, Driver, Instance, MemoryKind, Wait};
use peregrine_engine::cuda::kernels::KernelSource;
use peregrine_engine::cuda::launch::Node;
use peregrine_engine::cuda::CudaError;

/// See the module. Giving memory back does not fail, as no caller could act on it.
pub struct Failing {
    inner: Arc<dyn Driver>,
    faults: Faults,
}

/// What fails.
#[derive(Clone)]
pub struct Faults {
    calls: Arc<AtomicUsize>,
    /// The first call that fails, counted from 0; all later ones fail too, as they do when a device
    /// is lost.
    lost_at: usize,
    /// Bytes that may be allocated altogether.
    memory: usize,
    allocated: Arc<AtomicUsize>,
    /// Whether no graph ends.
    hangs: Arc<AtomicBool>,
    launches: Arc<Launches>,
}

/// Counts of launches.
#[derive(Default)]
struct Launches {
    all: AtomicUsize,
    /// Not seen to end.
    running: AtomicUsize,
    most_running: AtomicUsize,
}

impl Faults {
    /// The device is lost at call `n`.
    pub fn lost_at(n: usize) -> Self {
        let (calls, allocated, hangs, launches) = Default::default();
        Self { calls, lost_at: n, memory: usize::MAX, allocated, hangs, launches }
    }

    /// The device has `bytes` of memory.
    pub fn memory(bytes: usize) -> Self {
        Self { memory: bytes, ..Self::lost_at(usize::MAX) }
    }

    /// From now on no graph ends, or they end again.
    pub fn set_hanging(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }

    /// Calls so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Launches so far.
    pub fn launches(&self) -> usize {
        self.launches.all.load(Ordering::Relaxed)
    }

    /// The most graphs so far that were launched before the first of them was seen to end.
    pub fn most_at_once(&self) -> usize {
        self.launches.most_running.load(Ordering::Relaxed)
    }

    fn call(&self, call: &'static str) -> Result<(), CudaError> {
        if self.calls.fetch_add(1, Ordering::Relaxed) < self.lost_at {
            Ok(())
        } else {
            Err(CudaError::Failed { call, why: "CUDA_ERROR_DEVICE_UNAVAILABLE: lost in a test".into() })
        }
    }
}

impl Failing {
    pub fn driver(inner: Arc<dyn Driver>, faults: &Faults) -> Arc<dyn Driver> {
        Arc::new(Self { inner, faults: faults.clone() })
    }
}

impl Driver for Failing {
    fn device(&self) -> &DeviceInfo {
        self.inner.device()
    }

    fn load(&self, module: &KernelSource) -> Result<(), CudaError> {
        self.faults.call("loading a kernel")?;
        self.inner.load(module)
    }

    fn prepare(&self, nodes: &[Node]) -> Result<(), CudaError> {
        self.faults.call("loading a kernel")?;
        self.inner.prepare(nodes)
    }

    fn allocate(&self, place: MemoryKind, bytes: usize) -> Result<Address, CudaError> {
        self.faults.call("allocating memory")?;
        if self.faults.allocated.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.faults.memory {
            return Err(CudaError::OutOfMemory { bytes });
        }
        self.inner.allocate(place, bytes)
    }

    fn free(&self, place: MemoryKind, address: Address) {
        self.inner.free(place, address);
    }

    fn upload(&self, device: u64, bytes: &[u8]) -> Result<(), CudaError> {
        self.faults.call("cuMemcpyHtoD")?;
        self.inner.upload(device, bytes)
    }

    fn download(&self, device: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.faults.call("cuMemcpyDtoH")?;
        self.inner.download(device, bytes)
    }

    fn instantiate(
        &self,
        nodes: &[Node],
        edges: &[Vec<usize>],
        wait: Wait,
        priority: i32,
    ) -> Result<Box<dyn Instance>, CudaError> {
        self.faults.call("cuGraphInstantiate")?;
        let inner = self.inner.instantiate(nodes, edges, wait, priority)?;
        Ok(Box::new(FailingInstance { inner, faults: self.faults.clone(), is_running: false }))
    }

    fn time(&self, nodes: &[Node], runs: usize) -> Result<Option<Vec<f32>>, CudaError> {
        self.faults.call("cuEventElapsedTime")?;
        self.inner.time(nodes, runs)
    }
}

struct FailingInstance {
    inner: Box<dyn Instance>,
    faults: Faults,
    is_running: bool,
}

impl FailingInstance {
    /// It has ended, or was lost with the device.
    fn end(&mut self) {
        if std::mem::take(&mut self.is_running) {
            self.faults.launches.running.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Instance for FailingInstance {
    fn launch(&mut self) -> Result<(), CudaError> {
        self.faults.call("cuGraphLaunch")?;
        assert!(!self.is_running, "launched while it runs");
        self.inner.launch()?;
        self.is_running = true;
        let Launches { all, running, most_running } = &*self.faults.launches;
        all.fetch_add(1, Ordering::Relaxed);
        most_running.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        Ok(())
    }

    fn wait(&mut self, limit: Duration) -> Result<(), CudaError> {
        if let Err(lost) = self.faults.call("running the graph") {
            self.end();
            return Err(lost);
        }
        if self.is_running && self.faults.hangs.load(Ordering::Relaxed) {
            return Err(CudaError::Hangs { limit_ms: limit.as_millis() as u64 });
        }
        self.end();
        self.inner.wait(limit)
    }
}

impl Drop for FailingInstance {
    fn drop(&mut self) {
        // Here the real one would wait, for ever if it hangs.
        assert!(!self.is_running || std::thread::panicking(), "dropped while it runs");
    }
}
