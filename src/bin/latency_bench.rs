//! `latency_bench`: does a student meet a deadline on this machine? See `latency_bench --help`, and
//! [`peregrine_bench`] for how it works.

use std::process::ExitCode;

use peregrine_bench::command;
use peregrine_core::allocations::CountingAllocator;

// Allocations per frame are measured.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::per_thread();

fn main() -> ExitCode {
    command::main()
}
