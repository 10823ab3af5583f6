//! A device for tests where there is none: the kernels, compiled by g++ over `emulation.h`, run on
//! the CPU.
//!
//! Memory of this device is the process's own, filled with not-a-number so that what was never
//! written shows, and ending at a page that may not be touched.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void, CString};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use peregrine_core::files::sha256;
use peregrine_engine::cuda::driver::{Address, DeviceInfo, Driver, Instance, MemoryKind, Wait};
use peregrine_engine::cuda::kernels::{KernelSource, Module};
use peregrine_engine::cuda::launch::{Node, NodeWork};
use peregrine_engine::cuda::CudaError;

type RunKernel = unsafe extern "C" fn(*const c_char, *const u32, u32, *const c_void) -> bool;

/// The kernels, compiled for this machine.
struct EmulatedKernels {
    run: RunKernel,
}

/// Blocks share the emulation's state: one launch at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// See the module.
pub struct Emulated {
    device: DeviceInfo,
    kernels: EmulatedKernels,
    held: Mutex<BTreeMap<u64, usize>>,
}

impl Emulated {
    /// With tensor cores emulated, or (`scalar`) the kernels' scalar paths. `None`, with the skip
    /// recorded, if there is no g++.
    pub fn driver(scalar: bool, integrated: bool) -> Option<Arc<dyn Driver>> {
        Self::of(&Module::ALL.map(Module::whole), scalar, integrated)
    }

    /// The same with the kernels of `modules` alone.
    pub fn of(modules: &[KernelSource], scalar: bool, integrated: bool) -> Option<Arc<dyn Driver>> {
        // Tests of one program would compile the same files at once.
        let _alone = alone();
        let kernels = EmulatedKernels::build(modules, scalar)?;
        let name = "an emulated device".into();
        let device = DeviceInfo { name, architecture: 80, multiprocessors: 4, integrated, driver: 13000 };
        Some(Arc::new(Self { device, kernels, held: Mutex::default() }))
    }
}

impl EmulatedKernels {
    fn build(modules: &[KernelSource], scalar: bool) -> Option<Self> {
        if Command::new("g++").arg("--version").output().is_err() {
            peregrine_support::skip("cxx", "there is no g++ to compile the emulation of a GPU with");
            return None;
        }
        let mut source = format!("#include \"emulation.h\"\n{}\n", Module::common());
        let mut table = String::from("static const Kernel kernels[] = {\n");
        for KernelSource { name, own, kernels } in modules {
            // Each in a namespace of its own, as each is compiled alone for a device.
            source += &format!("namespace module_{name} {{\n{own}\n}}\n");
            for kernel in kernels {
                table += &format!("    {{\"{0}\", Runner<&module_{name}::{0}>::run}},\n", kernel.name);
            }
        }
        source += "template <auto F> struct Runner;\n\
                   template <typename A, void (*F)(A)> struct Runner<F> {\n    \
                   static void run(const void* a) { F(*(const A*)a); }\n};\n";
        source += &table;
        source +=
            "    {nullptr, nullptr}};\nextern \"C\" __attribute__((visibility(\"default\"))) bool peregrine_run(\n    \
                   const char* name, const unsigned* grid, unsigned block, const void* argument) {\n    \
                   return launch(kernels, name, grid, block, argument);\n}\n";

        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cuda");
        let header = std::fs::read_to_string(here.join("emulation.h")).expect("it is beside this file");
        let digest = sha256(format!("{source}{header}{scalar}").as_bytes());
        // Beside the test program, where cargo keeps what is built.
        let program = std::env::current_exe().expect("a test program knows its path");
        let folder = program.parent().expect("it lies in a folder");
        let library = folder.join(format!("cuda-emulation-{}.so", &digest[..16]));
        if !library.exists() {
            // Under a name of its own first: other tests may be compiling the same.
            let stem = folder.join(format!("cuda-emulation-{}-{}", std::process::id(), &digest[..16]));
            let (code, object) = (stem.with_extension("cpp"), stem.with_extension("so"));
            std::fs::write(&code, &source).expect("the target folder can be written to");
            let mut compiler = Command::new("g++");
            compiler.args([
                "-std=c++17",
                "-O2",
                "-fPIC",
                "-shared",
                "-fno-strict-aliasing",
                "-ffp-contract=off",
                "-fvisibility=hidden",
                "-w",
                "-DPEREGRINE_HOST",
            ]);
            if scalar {
                compiler.arg("-DPEREGRINE_SCALAR");
            }
            let output =
                compiler.arg("-I").arg(&here).arg(&code).arg("-o").arg(&object).output().expect("g++ is there");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            std::fs::rename(&object, &library).expect("within one folder");
            let _ = std::fs::remove_file(&code);
        }
        // SAFETY: the library made above, whose one function has this type.
        unsafe {
            // Never unloaded: graphs may outlive the driver.
            let library = Box::leak(Box::new(libloading::Library::new(&library).expect("compiled above")));
            Some(Self { run: *library.get::<RunKernel>(b"peregrine_run\0").expect("defined above") })
        }
    }
}

fn run(kernel: RunKernel, node: &Node) {
    match &node.work {
        NodeWork::Kernel(launch) => {
            let name = CString::new(launch.kernel.clone()).unwrap();
            let argument: Vec<u64> = launch
                .argument
                .chunks(8)
                .map(|c| {
                    let mut word = [0; 8];
                    word[..c.len()].copy_from_slice(c);
                    u64::from_ne_bytes(word)
                })
                .collect();
            // SAFETY: the argument is the kernel's, and its addresses are this process's.
            let done = unsafe { kernel(name.as_ptr(), launch.grid.as_ptr(), launch.threads, argument.as_ptr().cast()) };
            assert!(done, "{} ({})", node.name, launch.kernel);
        }
        // SAFETY: both ends are allocations of at least as many bytes.
        &NodeWork::Upload { host, device, bytes } => unsafe {
            std::ptr::copy_nonoverlapping(host as *const u8, device as *mut u8, bytes);
        },
        // SAFETY: as above.
        &NodeWork::Download { device, host, bytes } => unsafe {
            std::ptr::copy_nonoverlapping(device as *const u8, host as *mut u8, bytes);
        },
    }
}

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Driver for Emulated {
    fn device(&self) -> &DeviceInfo {
        &self.device
    }

    fn prepare(&self, _: &[Node]) -> Result<(), CudaError> {
        Ok(())
    }

    fn allocate(&self, place: MemoryKind, bytes: usize) -> Result<Address, CudaError> {
        const PAGE: usize = 4096;
        let pages = bytes.next_multiple_of(PAGE);
        // SAFETY: fresh pages, the last of which is then closed.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let all = libc::mmap(std::ptr::null_mut(), pages + PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            assert!(all != libc::MAP_FAILED);
            libc::mprotect(all.cast::<u8>().add(pages).cast(), PAGE, libc::PROT_NONE);
            std::slice::from_raw_parts_mut(all.cast::<u8>(), pages).fill(0xff);
            // As near to the end as an alignment of 16 bytes allows.
            all.cast::<u8>().add((pages - bytes) / 16 * 16)
        };
        self.held.lock().unwrap().insert(start as u64, bytes);
        Ok(Address { device: start as u64, host: if place == MemoryKind::Device { 0 } else { start as u64 } })
    }

    fn free(&self, _: MemoryKind, address: Address) {
        let bytes = self.held.lock().unwrap().remove(&address.device).expect("freed once");
        let pages = bytes.next_multiple_of(4096);
        // SAFETY: mapped above.
        unsafe { libc::munmap((address.device as usize / 4096 * 4096) as *mut c_void, pages + 4096) };
    }

    fn upload(&self, device: u64, bytes: &[u8]) -> Result<(), CudaError> {
        // SAFETY: an allocation of at least as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), device as *mut u8, bytes.len()) };
        Ok(())
    }

    fn download(&self, device: u64, bytes: &mut [u8]) -> Result<(), CudaError> {
        // SAFETY: an allocation of at least as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(device as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn instantiate(
        &self,
        nodes: &[Node],
        edges: &[Vec<usize>],
        _: Wait,
        _: i32,
    ) -> Result<Box<dyn Instance>, CudaError> {
        // The last of those that are ready first: an order far from the list's that the edges must
        // allow.
        let mut waiting: Vec<usize> = edges.iter().map(Vec::len).collect();
        let mut ready: Vec<usize> = (0..nodes.len()).filter(|&i| waiting[i] == 0).collect();
        let mut order = vec![];
        while let Some(next) = ready.pop() {
            order.push(nodes[next].clone());
            for (i, _) in edges.iter().enumerate().filter(|(_, before)| before.contains(&next)) {
                waiting[i] -= 1;
                if waiting[i] == 0 {
                    ready.push(i);
                }
            }
        }
        assert_eq!(order.len(), nodes.len(), "the edges form no cycle");
        Ok(Box::new(Emulation { nodes: order, run: self.kernels.run }))
    }

    fn time(&self, _: &[Node], _: usize) -> Result<Option<Vec<f32>>, CudaError> {
        Ok(None)
    }
}

struct Emulation {
    nodes: Vec<Node>,
    run: RunKernel,
}

impl Instance for Emulation {
    fn launch(&mut self) -> Result<(), CudaError> {
        let _alone = alone();
        self.nodes.iter().for_each(|node| run(self.run, node));
        Ok(())
    }

    fn wait(&mut self, _: Duration) -> Result<(), CudaError> {
        Ok(())
    }
}
