//! The fuzzer of one target, which the environment names: `FUZZ_TARGET=labels fuzz CORPUS…`, with libFuzzer's
//! options. `FUZZ_SEEDS=FOLDER` has it write the seeds of all targets there instead.

#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use peregrine_fuzz::{target, Target, TARGETS};

/// The most that may be asked for at once: what is asked for and never touched does not show in the resident memory
/// that libFuzzer watches.
const MAX_ALLOCATION: usize = 512 << 20;

struct Limited;

// SAFETY: the system's allocator, which a too large request ends before it is reached.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn check(size: usize) {
    if size > MAX_ALLOCATION {
        eprintln!("ERROR: an allocation of {} MiB", size >> 20);
        std::process::abort();
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fn choose() {
    if let Some(folder) = std::env::var_os("FUZZ_SEEDS") {
        write_seeds(Path::new(&folder));
        std::process::exit(0);
    }
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let Some(target) = target(&name) else {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("FUZZ_TARGET is {name:?}; it must be one of {}", names.join(", "));
        std::process::exit(2);
    };
    let _ = CHOSEN.set(target);
}

fn write_seeds(folder: &Path) {
    for target in &TARGETS {
        let folder = folder.join(target.name);
        std::fs::create_dir_all(&folder).expect("a folder for the seeds");
        for (i, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{i}")), seed).expect("a seed is written");
        }
        println!("{}", target.name);
    }
}

fuzz_target!(init: choose(), |data: &[u8]| if let Some(target) = CHOSEN.get() { (target.run)(data) });
