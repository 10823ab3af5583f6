//! The real driver, through cudarc: its library is opened at run time, so that the program starts without it.
//!
//! Compiled, and never run yet (see [`super`]). Only calls that CUDA 12.0 has are used: cudarc looks each one up when it
//! is first made, and newer ones are missing from Orin's driver.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{c_void, CString};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};

use super::device::{self, NoCudaDevice};
use super::driver::{Address, DeviceInfo, Driver, Instance, Place, Wait};
use super::kernels::Module;
use super::launch::{Launch, Node, Work};
use super::{cache, nvrtc, CudaError};

/// The oldest driver, as CUDA numbers it.
const LEAST_DRIVER: u32 = 12_000;

/// The first device, made ready; the same one for all callers of the process while any of them holds it.
///
/// # Errors
/// A sentence with the remedy, where there is none that the engine can use.
pub fn open() -> Result<Arc<dyn Driver>, CudaError> {
    static OPEN: Mutex<Option<std::sync::Weak<Real>>> = Mutex::new(None);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    // A device that was lost is opened anew.
    if let Some(real) = open.as_ref().and_then(std::sync::Weak::upgrade).filter(|real| real.is_sound()) {
        return Ok(real);
    }
    let real = Arc::new(Real::new()?);
    *open = Some(Arc::downgrade(&real));
    Ok(real)
}

struct Real {
    device: DeviceInfo,
    context: Arc<Context>,
    functions: Mutex<HashMap<String, sys::CUfunction>>,
    /// Modules in use, to be unloaded at the end.
    modules: Mutex<BTreeMap<Module, sys::CUmodule>>,
}

// SAFETY: the driver's handles may be used from any thread that has made the context its own, as each method does.
unsafe impl Send for Real {}
// SAFETY: as above, and the driver locks what is shared.
unsafe impl Sync for Real {}

/// The device's primary context.
struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
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

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained by `Real::new`, and given back here alone.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

fn failed(call: &'static str, error: DriverError) -> CudaError {
    let name = error.error_name().map_or_else(|_| format!("{error:?}"), |n| n.to_string_lossy().into_owned());
    let text = error.error_string().map_or_else(|_| String::new(), |s| s.to_string_lossy().into_owned());
    CudaError::Failed { call, why: format!("{name}: {text}") }
}

fn check(call: &'static str, status: sys::CUresult) -> Result<(), CudaError> {
    status.result().map_err(|e| failed(call, e))
}

impl Real {
    fn new() -> Result<Self, CudaError> {
        device::find_device()?;
        let driver = |e: DriverError| CudaError::NoDevice(NoCudaDevice::Driver(e.to_string()));
        let mut version = 0;
        // SAFETY: outlives the call; the library is there, or `find_device` had failed.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(driver)?;
        let version = u32::try_from(version).unwrap_or(0);
        if version < LEAST_DRIVER {
            let text = |v: u32| format!("{}.{}", v / 1000, v % 1000 / 10);
            return Err(CudaError::DriverTooOld { found: text(version), needed: text(LEAST_DRIVER) });
        }
        let first = result::device::get(0).map_err(driver)?;
        let attribute = |which| {
            // SAFETY: the driver has just given the device.
            let value = unsafe { result::device::get_attribute(first, which) }.map_err(driver)?;
            Ok::<_, CudaError>(u32::try_from(value).unwrap_or(0))
        };
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let device = DeviceInfo {
            name: result::device::get_name(first).map_err(driver)?,
            architecture: 10 * major + attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            integrated: attribute(Attribute::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0,
            driver: version,
        };
        if device.architecture < nvrtc::LEAST_ARCHITECTURE {
            return Err(CudaError::Architecture { device: device.name, architecture: device.architecture });
        }
        // SAFETY: as above.
        let context = unsafe { result::primary_ctx::retain(first) }.map_err(driver)?;
        let context = Arc::new(Context { device: first, context });
        context.enter()?;
        Ok(Self { device, context, functions: Mutex::default(), modules: Mutex::default() })
    }

    /// Whether the device still answers.
    fn is_sound(&self) -> bool {
        self.context.enter().is_ok() && result::ctx::synchronize().is_ok()
    }

    /// The cubin of `module` for this device: the kept one, or one compiled now and kept.
    fn cubin(&self, module: Module) -> Result<Vec<u8>, CudaError> {
        let (architecture, driver) = (self.device.architecture.to_string(), self.device.driver.to_string());
        let key = cache::key(module.name(), &[&architecture, &driver, &module.source()]);
        let folder = cache::folder();
        if let Some(cubin) = folder.as_deref().and_then(|f| cache::load(f, &key)) {
            return Ok(cubin);
        }
        if !nvrtc::is_present() {
            let cache = folder.map_or_else(|| "any cache".to_owned(), |f| f.display().to_string());
            return Err(CudaError::NoCompiler { device: self.device.name.clone(), cache });
        }
        let cubin = nvrtc::compile(module, self.device.architecture)?;
        if let Some(folder) = folder {
            cache::store(&folder, &key, &cubin);
        }
        Ok(cubin)
    }

    fn load(&self, module: Module) -> Result<(), CudaError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if modules.contains_key(&module) {
            return Ok(());
        }
        let cubin = self.cubin(module)?;
        // SAFETY: a cubin, whole, as the cache checks and the compiler gives it.
        let loaded =
            unsafe { result::module::load_data(cubin.as_ptr().cast()) }.map_err(|e| failed("loading a kernel", e))?;
        modules.insert(module, loaded);
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        for kernel in module.kernels() {
            let name = CString::new(kernel.name.clone()).expect("names have no NUL");
            // SAFETY: loaded just now.
            let function = unsafe { result::module::get_function(loaded, name) };
            functions.insert(kernel.name, function.map_err(|e| failed("looking up a kernel", e))?);
        }
        Ok(())
    }

    fn function(&self, name: &str) -> Result<sys::CUfunction, CudaError> {
        let functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || CudaError::Failed { call: "looking up a kernel", why: format!("{name} was not prepared") };
        functions.get(name).copied().ok_or_else(missing)
    }

    fn stream(&self, priority: i32) -> Result<Stream, CudaError> {
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

    fn add(
        &self,
        graph: sys::CUgraph,
        node: &Node,
        before: &[sys::CUgraphNode],
    ) -> Result<sys::CUgraphNode, CudaError> {
        let mut added = ptr::null_mut();
        let (first, count) = (before.as_ptr(), before.len());
        match &node.work {
            Work::Kernel(launch) => {
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
            &Work::Upload { host, device, bytes } => {
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
            &Work::Download { device, host, bytes } => {
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

/// A kernel's argument, aligned as the kernel's structure is.
struct Argument(Vec<u64>);

impl Argument {
    fn of(launch: &Launch) -> Self {
        let words = launch.argument.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        });
        Self(words.collect())
    }

    fn pointers(&mut self) -> [*mut c_void; 1] {
        [self.0.as_mut_ptr().cast()]
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
            if let Work::Kernel(launch) = &node.work {
                let missing = || CudaError::Failed { call: "looking up a kernel", why: launch.kernel.clone() };
                self.load(*module_of.get(&launch.kernel).ok_or_else(missing)?)?;
            }
        }
        Ok(())
    }

    fn allocate(&self, place: Place, bytes: usize) -> Result<Address, CudaError> {
        self.context.enter()?;
        let full = |e: DriverError| match e.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => CudaError::OutOfMemory { bytes },
            _ => failed("allocating memory", e),
        };
        let flags = match place {
            // SAFETY: at least one byte, as `Memory` sees to.
            Place::Device => {
                return Ok(Address { device: unsafe { result::malloc_sync(bytes) }.map_err(full)?, host: 0 })
            }
            // The CPU only writes: write-combined, it stays out of the caches. Orin's CPU would write to it slowly.
            Place::Upload if !self.device.integrated => {
                sys::CU_MEMHOSTALLOC_WRITECOMBINED | sys::CU_MEMHOSTALLOC_DEVICEMAP
            }
            Place::Upload | Place::Download => sys::CU_MEMHOSTALLOC_DEVICEMAP,
        };
        // SAFETY: as above.
        let host = unsafe { result::malloc_host(bytes, flags) }.map_err(full)?;
        let mut device = 0;
        // SAFETY: allocated just now, and mapped.
        let mapped =
            check("cuMemHostGetDevicePointer", unsafe { sys::cuMemHostGetDevicePointer_v2(&mut device, host, 0) });
        if let Err(error) = mapped {
            // SAFETY: allocated just now, and given to nobody.
            let _ = unsafe { result::free_host(host) };
            return Err(error);
        }
        Ok(Address { device, host: host as u64 })
    }

    fn free(&self, place: Place, address: Address) {
        // A device that was lost has nothing to give back.
        if self.context.enter().is_err() {
            return;
        }
        // SAFETY: allocated above, and freed once: `Memory` owns it.
        let _ = unsafe {
            match place {
                Place::Device => result::free_sync(address.device),
                Place::Upload | Place::Download => result::free_host(address.host as *mut c_void),
            }
        };
    }

    fn upload(&self, device: u64, bytes: &[u8]) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: the caller's memory on the device is at least as large.
        unsafe { result::memcpy_htod_sync(device, bytes) }.map_err(|e| failed("cuMemcpyHtoD", e))
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
        self.context.enter()?;
        let mut graph = Graph(ptr::null_mut());
        // SAFETY: outlives the call.
        check("cuGraphCreate", unsafe { sys::cuGraphCreate(&mut graph.0, 0) })?;
        let mut added: Vec<sys::CUgraphNode> = Vec::with_capacity(nodes.len());
        for (node, before) in nodes.iter().zip(edges) {
            let before: Vec<_> = before.iter().map(|&j| added[j]).collect();
            added.push(self.add(graph.0, node, &before)?);
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
        Ok(Box::new(Ready { executable, done, stream, wait, context: Arc::clone(&self.context) }))
    }

    fn time(&self, nodes: &[Node], runs: usize) -> Result<Option<Vec<f32>>, CudaError> {
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
        Ok(Some(times))
    }

    fn memory(&self) -> Option<(usize, usize)> {
        self.context.enter().ok()?;
        result::mem_get_info().ok()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            for module in std::mem::take(self.modules.get_mut().unwrap_or_else(PoisonError::into_inner)).into_values() {
                // SAFETY: loaded by `load`; no graph is left, since each holds its model and that this.
                let _ = unsafe { result::module::unload(module) };
            }
        }
    }
}

/// An instantiated graph with its stream and the event at its end.
struct Ready {
    executable: Executable,
    done: Event,
    stream: Stream,
    wait: Wait,
    context: Arc<Context>,
}

// SAFETY: used by one thread at a time, as `&mut self` sees to, and each call makes the context the thread's.
unsafe impl Send for Ready {}

impl Instance for Ready {
    fn launch(&mut self) -> Result<(), CudaError> {
        self.context.enter()?;
        // SAFETY: the graph's memory lives as long as its owner, who drops this first.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(self.executable.0, self.stream.0) })?;
        self.done.record(&self.stream)
    }

    fn wait(&mut self) -> Result<(), CudaError> {
        if self.wait == Wait::Block {
            return self.done.synchronize();
        }
        loop {
            // SAFETY: a living event.
            match unsafe { sys::cuEventQuery(self.done.0) } {
                sys::CUresult::CUDA_ERROR_NOT_READY => std::hint::spin_loop(),
                status => return check("running the graph", status),
            }
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // Its memory may be freed next.
        if self.context.enter().is_ok() {
            let _ = self.done.synchronize();
        }
    }
}

struct Graph(sys::CUgraph);

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: created by its owner alone; destroying it leaves instances alive.
        let _ = unsafe { sys::cuGraphDestroy(self.0) };
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

struct Stream(sys::CUstream);

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created by its owner alone.
        let _ = unsafe { result::stream::destroy(self.0) };
    }
}

struct Event(sys::CUevent);

impl Event {
    fn new(flags: u32) -> Result<Self, CudaError> {
        let mut event = ptr::null_mut();
        // SAFETY: outlives the call.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut event, flags) })?;
        Ok(Self(event))
    }

    fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: both live.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.0, stream.0) })
    }

    /// Waits for it; asleep if it was made to.
    fn synchronize(&self) -> Result<(), CudaError> {
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
