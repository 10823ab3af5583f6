//! The real driver, through cudarc: its library is opened at run time, so that the program starts
//! without it.
//!
//! Only calls that CUDA 12.0 has are used, but for one that is looked for first: cudarc looks each
//! one up when it is first made, and newer ones are missing from Orin's driver.
//!
//! - `graph`: instantiated graphs, which a frame launches; `stream`: streams, events, and times by
//!   them.

mod graph;
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{c_void, CString};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};

use super::compiled::{self, CompilerInUse};
use super::device::{self, NoCudaDevice};
use super::driver::{Address, DeviceInfo, Driver, Instance, MemoryKind, Wait};
use super::kernels::{KernelSource, Module};
use super::launch::{Node, NodeWork};
use super::{cache, CudaError};

/// Device `number`, from 0, made ready; the same one for all callers of the process while any of them holds it.
///
/// # Errors
/// A sentence with the remedy, where there is none that the engine can use; [`CudaError::Hangs`]
/// while it hangs.
pub fn open(number: u32) -> Result<Arc<dyn Driver>, CudaError> {
    static OPEN: Mutex<BTreeMap<u32, std::sync::Weak<Real>>> = Mutex::new(BTreeMap::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(real) = open.get(&number).and_then(std::sync::Weak::upgrade) {
        // Any further call might wait for it without limit.
        real.context.check_hanging()?;
        // A device that was lost is opened anew.
        if real.is_sound() {
            return Ok(real);
        }
    }
    let real = Arc::new(Real::new(number)?);
    open.insert(number, Arc::downgrade(&real));
    Ok(real)
}

/// What the engine calls once it has found a device, directly and through cudarc.
const CALLS: [&str; 33] = [
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuCtxGetStreamPriorityRange",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemHostGetDevicePointer_v2",
    "cuMemGetInfo_v2",
    "cuMemcpyHtoD_v2",
    "cuMemcpyDtoH_v2",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuStreamCreateWithPriority",
    "cuStreamSynchronize",
    "cuStreamDestroy_v2",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuEventQuery",
    "cuEventElapsedTime",
    "cuGraphCreate",
    "cuGraphDestroy",
    "cuGraphAddKernelNode_v2",
    "cuGraphAddMemcpyNode",
    "cuGraphInstantiateWithFlags",
    "cuGraphUpload",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
];

struct Real {
    device: DeviceInfo,
    context: Arc<Context>,
    functions: Mutex<HashMap<String, sys::CUfunction>>,
    /// Modules in use, to be unloaded at the end.
    modules: Mutex<BTreeMap<&'static str, sys::CUmodule>>,
}

// SAFETY: the driver's handles may be used from any thread that has made the context its own, as
// each method does.
unsafe impl Send for Real {}
// SAFETY: as above, and the driver locks what is shared.
unsafe impl Sync for Real {}

/// The device's primary context.
struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// The limit in ms that a graph has exceeded which runs still; 0 otherwise.
    exceeded: AtomicU64,
}

// SAFETY: as for `Real`.
unsafe impl Send for Context {}
// SAFETY: as for `Real`.
unsafe impl Sync for Context {}

impl Context {
    /// Makes it the calling thread's.
    fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: retained until the drop.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| failed("cuCtxSetCurrent", e))
    }
}

impl Context {
    /// Remembers that a graph has exceeded a limit, or has ended after all (0).
    fn set_exceeded(&self, limit_ms: u64) {
        self.exceeded.store(limit_ms, Relaxed);
    }

    fn check_hanging(&self) -> Result<(), CudaError> {
        match self.exceeded.load(Relaxed) {
            0 => Ok(()),
            limit_ms => Err(CudaError::Hangs { limit_ms }),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained by `Real::new`, and given back here alone.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

fn failed(call: &'static str, error: DriverError) -> CudaError {
    CudaError::Failed { call, why: device::describe(error) }
}

fn check(call: &'static str, status: sys::CUresult) -> Result<(), CudaError> {
    status.result().map_err(|e| failed(call, e))
}

impl Real {
    fn new(number: u32) -> Result<Self, CudaError> {
        device::find_device(number)?;
        let driver = |e: DriverError| CudaError::NoDevice(NoCudaDevice::Driver(device::describe(e)));
        let mut version = 0;
        // SAFETY: outlives the call; the library is there, or `find_device` had failed.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(driver)?;
        let version = u32::try_from(version).unwrap_or(0);
        let handle = result::device::get(number as i32).map_err(driver)?;
        let attribute = |which| {
            // SAFETY: the driver has just given the device.
            let value = unsafe { result::device::get_attribute(handle, which) }.map_err(driver)?;
            Ok::<_, CudaError>(u32::try_from(value).unwrap_or(0))
        };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let found = DeviceInfo {
            name: result::device::get_name(handle).map_err(driver)?,
            architecture: 10 * major + attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            integrated: attribute(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0,
            driver: version,
        };
        device::check(&found)?;
        device::has_all(&CALLS)?;
        // SAFETY: as above.
        let context = unsafe { result::primary_ctx::retain(handle) }.map_err(driver)?;
        let context = Arc::new(Context { device: handle, context, exceeded: AtomicU64::new(0) });
        context.enter()?;
        Ok(Self { device: found, context, functions: Mutex::default(), modules: Mutex::default() })
    }

    /// Whether the device still answers.
    fn is_sound(&self) -> bool {
        self.context.enter().is_ok() && result::ctx::synchronize().is_ok()
    }

    fn has(&self, module: &'static str) -> bool {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner).contains_key(module)
    }

    fn load_module(&self, module: &KernelSource) -> Result<(), CudaError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if modules.contains_key(module.name) {
            return Ok(());
        }
        let compiler = CompilerInUse::installed();
        let loaded = compiled::load(&self.device, module, cache::folder().as_deref(), compiler, |cubin| {
            // SAFETY: a cubin, whole, as the cache checks and the compiler gives it.
            unsafe { result::module::load_data(cubin.as_ptr().cast()) }.map_err(|e| match e.0 {
                sys::CUresult::CUDA_ERROR_INVALID_IMAGE
                | sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
                | sys::CUresult::CUDA_ERROR_INVALID_SOURCE => CudaError::KernelRefused { why: device::describe(e) },
                _ => failed("loading a kernel", e),
            })
        })?;
        let functions: Result<Vec<_>, _> = module
            .kernels
            .iter()
            .map(|kernel| {
                let name = CString::new(kernel.name.clone()).expect("names have no NUL");
                // SAFETY: loaded just now.
                let function = unsafe { result::module::get_function(loaded, name) };
                Ok((kernel.name.clone(), function.map_err(|e| failed("looking up a kernel", e))?))
            })
            .collect();
        match functions {
            Ok(functions) => {
                modules.insert(module.name, loaded);
                self.functions.lock().unwrap_or_else(PoisonError::into_inner).extend(functions);
                Ok(())
            }
            Err(error) => {
                // SAFETY: loaded just now, and not used yet.
                let _ = unsafe { result::module::unload(loaded) };
                Err(error)
            }
        }
    }

    fn function(&self, name: &str) -> Result<sys::CUfunction, CudaError> {
        let functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || CudaError::Failed { call: "looking up a kernel", why: format!("{name} was not prepared") };
        functions.get(name).copied().ok_or_else(missing)
    }
}

impl Driver for Real {
    fn device(&self) -> &DeviceInfo {
        &self.device
    }

    fn prepare(&self, nodes: &[Node]) -> Result<(), CudaError> {
        static MODULE_OF: OnceLock<HashMap<String, Module>> = OnceLock::new();
        let module_of = MODULE_OF.get_or_init(|| {
            Module::ALL.iter().flat_map(|&m| m.kernels().into_iter().map(move |k| (k.name, m))).collect()
        });
        self.context.enter()?;
        for node in nodes {
            if let NodeWork::Kernel(launch) = &node.work {
                let missing = || CudaError::Failed { call: "looking up a kernel", why: launch.kernel.clone() };
                match module_of.get(&launch.kernel) {
                    Some(module) if self.has(module.name()) => {}
                    Some(module) => self.load_module(&module.whole())?,
                    // Of a module that was loaded by its source.
                    None => drop(self.function(&launch.kernel).map_err(|_| missing())?),
                }
            }
        }
        Ok(())
    }

    fn load(&self, module: &KernelSource) -> Result<(), CudaError> {
        self.context.enter()?;
        self.load_module(module)
    }

    fn allocate(&self, place: MemoryKind, bytes: usize) -> Result<Address, CudaError> {
        self.context.enter()?;
        let full = |e: DriverError| match e.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => CudaError::OutOfMemory { bytes },
            _ => failed("allocating memory", e),
        };
        let flags = match place {
            MemoryKind::Device => {
                // SAFETY: at least one byte, as `DeviceMemory` sees to.
                let device = unsafe { result::malloc_sync(bytes) }.map_err(full)?;
                return Ok(Address { device, host: 0 });
            }
            // The CPU only writes: write-combined, it stays out of the caches. Orin's CPU would
            // write to it slowly.
            MemoryKind::Upload if !self.device.integrated => {
                sys::CU_MEMHOSTALLOC_WRITECOMBINED | sys::CU_MEMHOSTALLOC_DEVICEMAP
            }
            MemoryKind::Upload | MemoryKind::Download => sys::CU_MEMHOSTALLOC_DEVICEMAP,
        };
        // SAFETY: as above.
        let host = unsafe { result::malloc_host(bytes, flags) }.map_err(full)?;
        let mut device = 0;
        // SAFETY: allocated just now, and mapped.
        let mapped =
            check("cuMemHostGetDevicePointer", unsafe { sys::cuMemHostGetDevicePointer_v2(&mut device, host, 0) });
        if let Err(error) = mapped {
            // SAFETY: allocated just now, and not handed out yet.
            let _ = unsafe { result::free_host(host) };
            return Err(error);
        }
        Ok(Address { device, host: host as u64 })
    }

    fn free(&self, place: MemoryKind, address: Address) {
        // Of a device that was lost nothing may be left to give back; what is pinned still is the
        // process's.
        let _ = self.context.enter();
        // SAFETY: allocated above, and freed once: `DeviceMemory` owns it.
        let _ = unsafe {
            match place {
                MemoryKind::Device => result::free_sync(address.device),
                MemoryKind::Upload | MemoryKind::Download => result::free_host(address.host as *mut c_void),
            }
        };
    }

    fn upload(&self, device: u64, bytes: &[u8]) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: the caller's memory on the device is at least as large.
        unsafe { result::memcpy_htod_sync(device, bytes) }.map_err(|e| failed("cuMemcpyHtoD", e))?;
        // From memory that is not pinned the copy may return while its last part is under way, and
        // the graphs' streams do not wait for the default one.
        result::ctx::synchronize().map_err(|e| failed("cuCtxSynchronize", e))
    }

    fn download(&self, device: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: as above.
        unsafe { result::memcpy_dtoh_sync(bytes, device) }.map_err(|e| failed("cuMemcpyDtoH", e))
    }

    fn instantiate(
        &self,
        nodes: &[Node],
        edges: &[Vec<usize>],
        wait: Wait,
        priority: i32,
    ) -> Result<Box<dyn Instance>, CudaError> {
        Ok(Box::new(self.graph(nodes, edges, wait, priority)?))
    }

    fn time(&self, nodes: &[Node], runs: usize) -> Result<Option<Vec<f32>>, CudaError> {
        self.least_times(nodes, runs).map(Some)
    }

    fn memory(&self) -> Option<(usize, usize)> {
        self.context.enter().ok()?;
        result::mem_get_info().ok()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.context.enter();
        for module in std::mem::take(self.modules.get_mut().unwrap_or_else(PoisonError::into_inner)).into_values() {
            // SAFETY: loaded by `load`; no graph is left, since each holds its model and that this.
            let _ = unsafe { result::module::unload(module) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CALLS;

    #[test]
    fn every_call_that_is_made_is_looked_for_beforehand() {
        let sources = [include_str!("mod.rs"), include_str!("graph.rs"), include_str!("stream.rs")].concat();
        let made = sources.split("sys::cu").skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            format!("cu{}", &rest[..end])
        });
        // Looked for where it is called: older drivers do without.
        let found = ["culib", "cu", "cuDriverGetVersion", "cuGraphAddDependencies_v2"];
        for call in made.filter(|call| !found.contains(&call.as_str())) {
            assert!(CALLS.contains(&call.as_str()), "{call}");
        }
    }
}
