//! How the C library's allocator, the middleware's and ours, keeps memory that was freed.

use std::{env, thread};

/// With one of these set, the user has chosen.
const CHOSEN: [&str; 4] = ["MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"];

/// Bounds what stays with the process. To be called before threads are made.
///
/// glibc gives each thread an arena, up to eight for each core, and a model that is loaded in a thread
/// of its own leaves a hole of its size in whichever it got: 60 changes of the model left from 123 to
/// 189 MB, and with this 63 MB. Arenas are two, and what is larger than `LARGE` goes back to the
/// system at once. glibc would raise that limit by itself to what was freed last.
pub fn bound() {
    if CHOSEN.iter().any(|name| env::var_os(name).is_some()) {
        return;
    }
    #[cfg(target_env = "gnu")]
    for (option, value) in [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE)] {
        // SAFETY: any value is permitted; one that is refused changes nothing.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Frees what a model held, on a thread of its own: what lies between that which is left goes back to the
/// system as well, which takes some milliseconds, and would else stay until something of its size
/// fits. Over an hour with a change each half minute the node's own memory grew by 12 % without it.
pub fn give_back(model: impl Send + 'static) {
    // Where no thread can be made the model is freed all the same.
    let _ = thread::Builder::new().name("give_back".into()).spawn(move || {
        drop(model);
        #[cfg(target_env = "gnu")]
        // SAFETY: it may be called at any time, by any thread.
        unsafe {
            libc::malloc_trim(0)
        };
    });
}

/// Bytes: the weights of a model, but not an image of 1920×1080, which would cost a fault for each of
/// its pages in every frame.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 8 << 20;
