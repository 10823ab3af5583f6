//! `latency_bench`: does the student keep a deadline on this machine, and how sure is that? See
//! `latency_bench --help`, and [`peregrine_bench`] for how it works.

use std::process::ExitCode;

use peregrine_bench::command;
use peregrine_core::allocations::CountingAllocator;

// What a frame allocates is part of what is measured.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::per_thread();

fn main() -> ExitCode {
    command::main()
}
