//! The thin layer below which calls reach a device. Everything above it is the same on the real
//! driver ([`super::real`]), on one that only records ([`super::recording`]), and on the tests'
//! emulation.

use std::sync::Arc;
use std::time::Duration;

use super::kernels::KernelSource;
use super::launch::Node;
use super::CudaError;

/// A device, as far as plans depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// As the driver gives it.
    pub name: String,
    /// Compute capability, such as 87 for Orin.
    pub architecture: u32,
    /// Number of streaming multiprocessors.
    pub multiprocessors: u32,
    /// Whether it shares the CPU's memory, so that copies are a waste.
    pub integrated: bool,
    /// As the driver gives it, such as 13000 for CUDA 13.0.
    pub driver: u32,
}

/// Where memory lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// The device's own.
    Device,
    /// The CPU's, pinned, and mapped for the device. The CPU writes to it.
    Upload,
    /// The CPU's, pinned, and mapped for the device. The CPU reads from it.
    Download,
}

/// How the CPU waits for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wait {
    /// Sleep: until the device signals or, where the wait has a limit, a little between two looks.
    #[default]
    Block,
    /// Busy-wait: some microseconds lower latency, but uses a core.
    Spin,
}

/// Addresses of an allocation: the device's, and for pinned memory the CPU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The device's.
    pub device: u64,
    /// The CPU's; 0 for memory of the device.
    pub host: u64,
}

/// What is asked of a driver. All calls but those of [`Instance`] happen at configure time and may
/// take their time.
pub trait Driver: Send + Sync {
    /// The device.
    fn device(&self) -> &DeviceInfo;

    /// Makes the kernels of a module ready that is not the engine's own; of no effect where kernels do
    /// not run.
    ///
    /// # Errors
    /// Where it cannot be compiled or loaded.
    fn load(&self, module: &KernelSource) -> Result<(), CudaError> {
        let _ = module;
        Ok(())
    }

    /// Makes the kernels that `nodes` launch ready: the engine's own, or of a module that was
    /// [loaded](Self::load).
    ///
    /// # Errors
    /// Where they cannot be compiled or loaded.
    fn prepare(&self, nodes: &[Node]) -> Result<(), CudaError>;

    /// Allocates; [`DeviceMemory`] gives it back.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`] among others.
    fn allocate(&self, place: MemoryKind, bytes: usize) -> Result<Address, CudaError>;

    /// Gives back what [`allocate`](Self::allocate) returned.
    fn free(&self, place: MemoryKind, address: Address);

    /// Copies to memory of the device, and waits.
    ///
    /// # Errors
    /// Where the device fails.
    fn upload(&self, device: u64, bytes: &[u8]) -> Result<(), CudaError>;

    /// Copies from memory of the device, and waits.
    ///
    /// # Errors
    /// Where the device fails.
    fn download(&self, device: u64, bytes: &mut [u8]) -> Result<(), CudaError>;

    /// A graph of `nodes`, each after those that `edges` names for it, on a stream of its own of
    /// the given priority (0 is normal, below 0 more urgent).
    ///
    /// # Errors
    /// Where the device fails.
    fn instantiate(
        &self,
        nodes: &[Node],
        edges: &[Vec<usize>],
        wait: Wait,
        priority: i32,
    ) -> Result<Box<dyn Instance>, CudaError>;

    /// Microseconds that each of `nodes` takes in a row of itself, the least of `runs`; `None` if
    /// the driver has no clock.
    ///
    /// # Errors
    /// Where the device fails.
    fn time(&self, nodes: &[Node], runs: usize) -> Result<Option<Vec<f32>>, CudaError>;

    /// Free and total bytes of the device's memory; `None` if unknown.
    fn memory(&self) -> Option<(usize, usize)> {
        None
    }
}

/// A graph that can be launched: the only part of a driver on the per-frame path.
pub trait Instance: Send {
    /// Starts it and returns at once.
    ///
    /// # Errors
    /// Where the device fails.
    fn launch(&mut self) -> Result<(), CudaError>;

    /// Waits for its end, at most for `limit`: [`Duration::MAX`] is for as long as it takes, and
    /// zero asks whether it has ended.
    ///
    /// # Errors
    /// Where the device fails; [`CudaError::Hangs`] when the limit has passed. Then it runs still: it
    /// may be waited for again, and must neither be launched nor dropped before it has ended.
    fn wait(&mut self, limit: Duration) -> Result<(), CudaError>;

    /// Runs it and returns the microseconds that it took by the device's clock; `None` if it has no
    /// clock. Not for the per-frame path.
    ///
    /// # Errors
    /// Where the device fails.
    fn time(&mut self) -> Result<Option<f32>, CudaError> {
        Ok(None)
    }
}

/// An allocation, given back when dropped.
pub struct DeviceMemory {
    driver: Arc<dyn Driver>,
    place: MemoryKind,
    address: Address,
    bytes: usize,
}

impl DeviceMemory {
    /// At least one byte.
    ///
    /// # Errors
    /// As [`Driver::allocate`].
    pub fn new(driver: &Arc<dyn Driver>, place: MemoryKind, bytes: usize) -> Result<Self, CudaError> {
        let bytes = bytes.max(1);
        Ok(Self { address: driver.allocate(place, bytes)?, driver: Arc::clone(driver), place, bytes })
    }

    /// Of the device, holding `values`.
    ///
    /// # Errors
    /// As [`Driver::allocate`] and [`Driver::upload`].
    pub fn holding(driver: &Arc<dyn Driver>, values: &[u8]) -> Result<Self, CudaError> {
        let memory = Self::new(driver, MemoryKind::Device, values.len())?;
        driver.upload(memory.device(), values)?;
        Ok(memory)
    }

    /// The device's address.
    pub fn device(&self) -> u64 {
        self.address.device
    }

    /// The CPU's address.
    pub fn host(&self) -> u64 {
        self.address.host
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Never: an allocation has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The pinned memory's bytes.
    ///
    /// # Panics
    /// For memory of the device.
    pub fn as_slice(&self) -> &[u8] {
        assert!(self.address.host != 0, "memory of the device is not the CPU's to read");
        // SAFETY: the driver allocated `bytes` bytes there; no graph writes to them outside a
        // launch.
        unsafe { std::slice::from_raw_parts(self.address.host as *const u8, self.bytes) }
    }

    /// The pinned memory's bytes, to be written to.
    ///
    /// # Panics
    /// For memory of the device.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        assert!(self.address.host != 0, "memory of the device is not the CPU's to write");
        // SAFETY: as above; nothing reads them outside a launch.
        unsafe { std::slice::from_raw_parts_mut(self.address.host as *mut u8, self.bytes) }
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        self.driver.free(self.place, self.address);
    }
}
