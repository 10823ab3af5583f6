//! Every kernel, in every variant, compiles for every architecture and keeps within its limits.
//!
//! Needs NVRTC alone, which launch/setup puts into the project's cache; compiled kernels are kept
//! under target/tmp.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use peregrine_engine::cuda::cubin::{needs, Needs};
use peregrine_engine::cuda::kernels::Module;
use peregrine_engine::cuda::{cache, nvrtc};
use peregrine_support::skip;

/// Of a multiprocessor, on all of them (CUDA C++ Programming Guide, table of technical
/// specifications).
const REGISTERS: u32 = 65_536;

/// Of a thread.
const MOST_REGISTERS: u32 = 255;

/// Of a block, where it is declared in the kernel; 48 KiB on all of them.
const SHARED: u64 = 48 * 1024;

/// Registers are given out to warps in steps of 8 a thread.
const REGISTER_STEP: u32 = 8;

fn cubin(module: Module, architecture: u32, folder: &Path) -> Vec<u8> {
    let version = format!("{:?}", nvrtc::version());
    let key = cache::key(module.name(), &[&version, &architecture.to_string(), &module.source()]);
    cache::load(folder, &key).unwrap_or_else(|| {
        let cubin = nvrtc::compile(&module.whole(), architecture).unwrap_or_else(|error| panic!("{error}"));
        cache::store(folder, &key, &cubin);
        cubin
    })
}

/// All modules for all architectures, by two threads.
fn all() -> Option<Vec<(Module, u32, Vec<Needs>)>> {
    if !nvrtc::is_present() {
        skip("nvrtc", "NVRTC is not installed (launch/setup/setup.sh puts it into the cache)");
        return None;
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cubins");
    let known = nvrtc::architectures();
    let (compiled, unknown): (Vec<u32>, Vec<u32>) = nvrtc::ARCHITECTURES.iter().partition(|a| known.contains(a));
    if !unknown.is_empty() {
        skip("nvrtc", &format!("NVRTC {:?} knows no sm_{unknown:?}", nvrtc::version()));
    }
    let jobs: Vec<_> = Module::ALL.iter().flat_map(|&m| compiled.iter().map(move |&a| (m, a))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = vec![];
        while let Some(&(module, architecture)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let cubin = cubin(module, architecture, &folder);
            done.push((module, architecture, needs(&cubin).expect("a whole cubin")));
        }
        done
    };
    Some(std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().flat_map(|t| t.join().expect("a kernel does not compile; see above")).collect()
    }))
}

#[test]
fn each_kernel_compiles_for_each_architecture_within_limits() {
    let Some(all) = all() else { return };
    for (module, architecture, needs) in all {
        let found: BTreeMap<_, _> = needs.iter().map(|n| (n.kernel.as_str(), n)).collect();
        assert_eq!(found.len(), module.kernels().len(), "{} for sm_{architecture}", module.name());
        for kernel in module.kernels() {
            let of = format!("{} for sm_{architecture}", kernel.name);
            let needs = found.get(kernel.name.as_str()).unwrap_or_else(|| panic!("{of} is missing"));
            assert!((1..=MOST_REGISTERS).contains(&needs.registers), "{of} takes {} registers", needs.registers);
            let block = needs.registers.next_multiple_of(REGISTER_STEP) * kernel.threads;
            assert!(block <= REGISTERS, "a block of {of} takes {block} registers");
            assert!(needs.shared <= SHARED, "{of} takes {} bytes of shared memory", needs.shared);
            assert!(kernel.threads <= 1024 && kernel.threads % 32 == 0, "{of} has {} threads", kernel.threads);
        }
    }
}

#[test]
fn bad_code_is_refused_with_the_compilers_words() {
    if !nvrtc::is_present() {
        return skip("nvrtc", "NVRTC is not installed (launch/setup/setup.sh puts it into the cache)");
    }
    let error = nvrtc::compile(&Module::Movement.whole(), 61).unwrap_err().to_string();
    assert!(error.contains("movement") && error.contains("sm_61"), "{error}");
}
