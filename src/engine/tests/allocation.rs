//! A run of the CPU engine allocates nothing. In a file of its own, since its allocator counts for
//! the whole process.

use std::sync::Mutex;

use peregrine_core::allocations::{process_allocations, CountingAllocator};
use peregrine_engine::cpu::int8::Int8Engine;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::{Activation, Conv, Engine, Graph, Padding, Shape, Window};
use peregrine_student::architecture::Architecture;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::whole_process();

/// Held by each test, since all are counted together.
static ALONE: Mutex<()> = Mutex::new(());

/// The fewest allocations, in all threads, of three times `times` runs: the test harness allocates
/// now and then on threads of its own; what a run allocates would be there each time.
fn least_allocations(times: usize, mut run: impl FnMut()) -> u64 {
    let mut count = || {
        let before = process_allocations();
        (0..times).for_each(|_| run());
        process_allocations() - before
    };
    (0..3).map(|_| count()).min().expect("it was counted")
}

#[test]
fn allocations_of_all_threads_are_counted() {
    let _alone = ALONE.lock();
    let allocate = || {
        std::hint::black_box(Vec::<u8>::with_capacity(1));
    };
    let before = process_allocations();
    std::thread::spawn(allocate).join().unwrap();
    // The thread itself allocates as well.
    assert!(process_allocations() > before);
    assert!(least_allocations(10, allocate) >= 10);
}

#[test]
fn ten_thousand_inferences_allocate_nothing() {
    let _alone = ALONE.lock();
    let mut graph = Graph::new(Shape::new(3, 8, 8));
    let conv = Conv { kernel: 3, stride: 1, depthwise: false, activation: Activation::Silu, padding: Padding::Same };
    let a = graph.conv("a", 0, 16, conv);
    let b = graph.conv("b", a, 0, Conv { depthwise: true, ..conv });
    let pooled = graph.max_pool("pool", b, Window::same(3, 1));
    let part = graph.slice("part", pooled, 3..11);
    let c = graph.conv("c", part, 16, Conv { kernel: 1, ..conv });
    let sum = graph.add("sum", b, c);
    graph.outputs.push(sum);
    let weights = peregrine_reference::random_weights(&graph, 1);
    let mut engine = CpuEngine::new(&graph, &weights, 1).unwrap();
    engine.run().unwrap();
    let run = || {
        engine.input()[0] += 1e-3;
        engine.run().unwrap();
        std::hint::black_box(engine.output(0)[0]);
    };
    assert_eq!(least_allocations(10_000, run), 0);
}

#[test]
fn a_run_allocates_nothing_in_any_thread() {
    let _alone = ALONE.lock();
    let graph = Architecture::default_student().graph(96, 64);
    let weights = peregrine_reference::random_weights(&graph, 1);
    let quantization = peregrine_reference::random_quantization(&graph, 2, 0.2);
    for (threads, quantized) in [(1, false), (3, false), (1, true), (3, true)] {
        let mut engine: Box<dyn Engine> = if quantized {
            Box::new(Int8Engine::new(&graph, &weights, &quantization, threads).unwrap())
        } else {
            Box::new(CpuEngine::new(&graph, &weights, threads).unwrap())
        };
        for _ in 0..3 {
            engine.run().unwrap();
        }
        let run = || {
            engine.input()[0] += 1.0;
            engine.run().unwrap();
            std::hint::black_box(engine.output(0)[0]);
        };
        assert_eq!(least_allocations(200, run), 0, "{threads} threads, quantized {quantized}");
    }
}
