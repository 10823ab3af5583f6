//! How many allocations each thread makes, or the whole process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// Of this thread; without a destructor, so that it may be used at any time of the thread's
    /// life.
    static OF_THREAD: Cell<u64> = const { Cell::new(0) };
}

static OF_PROCESS: AtomicU64 = AtomicU64::new(0);

/// Allocations and reallocations of the calling thread so far; 0 unless a [`CountingAllocator`] is
/// the program's.
pub fn allocations() -> u64 {
    OF_THREAD.with(Cell::get)
}

/// Allocations and reallocations of all threads so far; 0 unless
/// [`CountingAllocator::whole_process`] is the program's.
pub fn process_allocations() -> u64 {
    OF_PROCESS.load(Ordering::Relaxed)
}

/// The system's allocator, counting. The program that measures makes it its global one:
///
/// ```
/// use peregrine_core::allocations::{allocations, CountingAllocator};
///
/// #[global_allocator]
/// static ALLOCATOR: CountingAllocator = CountingAllocator::per_thread();
///
/// let before = allocations();
/// drop(std::hint::black_box(vec![1]));
/// assert_eq!(allocations() - before, 1);
/// ```
#[derive(Debug)]
pub struct CountingAllocator {
    whole_process: bool,
}

impl CountingAllocator {
    /// Counts thread by thread, without anything that threads share.
    pub const fn per_thread() -> Self {
        Self { whole_process: false }
    }

    /// Counts thread by thread and, at the cost of a counter that threads share, all threads
    /// together.
    pub const fn whole_process() -> Self {
        Self { whole_process: true }
    }

    fn count(&self) {
        // The variable is gone while a thread ends.
        let _ = OF_THREAD.try_with(|count| count.set(count.get() + 1));
        if self.whole_process {
            OF_PROCESS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count();
        System.alloc(layout)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count();
        System.alloc_zeroed(layout)
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        System.dealloc(place, layout);
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.count();
        System.realloc(place, layout, size)
    }
}
