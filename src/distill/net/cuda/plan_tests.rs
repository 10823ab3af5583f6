//! What a training asks of a device: graphs, memory, kernels that compile, and what becomes of calls
//! that fail.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use peregrine_engine::cuda::cubin::needs;
use peregrine_engine::cuda::kernels::KernelSource;
use peregrine_engine::cuda::launch::NodeWork;
use peregrine_engine::cuda::recording::Recording;
use peregrine_engine::cuda::{cache, nvrtc, Driver};
use peregrine_engine::{Graph, LayerId};
use peregrine_reference::cuda::failing::{Failing, Faults};

use super::kernels::Precision;
use super::tests::{all_operations, small};
use super::{CudaNet, Training};
use crate::net::{Mode, NetParams};
use crate::tensor::record::Operation;
use crate::tensor::Tensor;

fn training<'a>(graph: &'a Graph, params: &'a NetParams, needed: &'a [bool], batch: usize) -> Training<'a> {
    Training { graph, params, needed, batch, fetched: &graph.outputs, precision: Precision::Single }
}

#[test]
fn a_step_is_whole_graphs_of_known_kernels_within_their_memory() {
    let graph = all_operations();
    let params = NetParams::random(&graph, 5);
    let mut needed = vec![true; graph.layers.len()];
    needed[0] = false;
    let recording = Arc::new(Recording::of_architecture(90));
    let driver: Arc<dyn Driver> = recording.clone();
    let mut net = CudaNet::new(&driver, &training(&graph, &params, &needed, 4)).unwrap();
    net.optimize(super::Rule::AdamW, &[], &params).unwrap();
    let input = vec![0.0; 4 * graph.input_shape().len()];
    net.forward(&params, &input, Mode::Evaluate).unwrap();
    // Two steps of one structure, and one of another.
    for terms in [1, 1, 2] {
        let leaf = Operation::Leaf(0).of(&[4 * graph.layers[net.first_output()].shape.len()]);
        let terms = vec![Tensor::from(leaf).sqr().unwrap().sum_all().unwrap(); terms];
        net.announce(super::arguments::Step::default());
        net.step(&params, &input, &terms[0], &terms).unwrap();
        net.update(super::arguments::Step::default()).unwrap();
    }
    // Clearing, update, evaluation, and a whole step for each structure.
    assert_eq!(recording.graphs().len(), 5);
    let step = &recording.graphs()[3];
    for part in ["upload", "norm_sums", "loss 0 pointwise", "losses download", "out unpack", "reduce", "adamw"] {
        assert!(step.nodes.iter().any(|node| node.name.contains(part)), "a step has no {part}");
    }
    let known: BTreeSet<String> =
        Precision::Single.modules().into_iter().flat_map(|m| m.kernels).map(|kernel| kernel.name).collect();
    let held = recording.held();
    let within =
        |span: &std::ops::Range<u64>| held.iter().any(|&(at, bytes)| at <= span.start && span.end <= at + bytes as u64);
    for recorded in recording.graphs() {
        for node in &recorded.nodes {
            if let NodeWork::Kernel(launch) = &node.work {
                assert!(known.contains(&launch.kernel), "{}", launch.kernel);
                assert!(launch.grid.iter().all(|&n| n > 0) && launch.grid[1] < 65536 && launch.grid[2] < 65536);
            }
            let spans = node.reads.iter().chain(&node.writes);
            spans.filter(|span| !span.is_empty()).for_each(|span| assert!(within(span), "{}", node.name));
        }
        // Nothing is ready at once but what reads nothing that another node makes.
        let first = recorded.edges.iter().filter(|before| before.is_empty()).count();
        assert!(first >= 1 && recorded.nodes.len() == recorded.edges.len());
    }
    drop(net);
    assert!(recording.held().is_empty(), "memory is left");
}

#[test]
fn buffers_that_are_needed_together_do_not_overlap() {
    let graph = all_operations();
    let params = NetParams::random(&graph, 5);
    let mut needed = vec![true; graph.layers.len()];
    needed[0] = false;
    let layout = training(&graph, &params, &needed, 4).layout(4, 40).unwrap();
    let buffers: Vec<_> = layout.buffers.iter().filter(|b| b.bytes > 0).collect();
    for (i, a) in buffers.iter().enumerate() {
        assert!(a.offset + a.bytes <= layout.arena);
        for b in &buffers[..i] {
            let together = a.first <= b.last && b.first <= a.last;
            let apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
            assert!(apart || !together);
        }
    }
    // Less than all that there is, and more for a larger batch.
    assert!(layout.arena < buffers.iter().map(|b| b.bytes).sum::<usize>());
    assert!(layout.device_bytes(2) < training(&graph, &params, &needed, 4).layout(8, 40).unwrap().device_bytes(2));
}

#[test]
fn too_little_memory_names_what_is_needed_and_the_batch_that_fits() {
    let (graph, params) = small();
    let needed = [false, true, true, true];
    let of = |batch: usize| training(&graph, &params, &needed, batch).layout(batch, 132).unwrap().device_bytes(2);
    let new = |free: usize, batch| {
        let driver: Arc<dyn Driver> = Arc::new(Recording::of_architecture(90).with_free(free));
        CudaNet::new(&driver, &training(&graph, &params, &needed, batch)).map(drop).map_err(|e| e.to_string())
    };
    let reserve = 256 << 20;
    assert_eq!(new(reserve + of(64), 64), Ok(()));
    let why = new(reserve + of(17), 64).unwrap_err();
    assert!(["a batch of 64 needs", "batch = 17 fits", "--device cpu"].iter().all(|part| why.contains(part)), "{why}");
    let why = new(reserve, 64).unwrap_err();
    assert!(why.contains("not even one image"), "{why}");
    // Where the driver does not tell, the allocation that fails does.
    let faults = Faults::memory(1 << 10);
    let driver = Failing::driver(Arc::new(Recording::of_architecture(90)), &faults);
    let why = CudaNet::new(&driver, &training(&graph, &params, &needed, 64)).map(drop).unwrap_err().to_string();
    assert!(["a batch of 64 needs", "lower batch"].iter().all(|part| why.contains(part)), "{why}");
}

#[test]
fn a_device_that_is_lost_leaves_one_error_and_no_memory() {
    let (graph, params) = small();
    let needed = [false, true, true, true];
    let run = |faults: &Faults| -> (usize, Result<(), String>) {
        let recording = Arc::new(Recording::of_architecture(90));
        let driver = Failing::driver(recording.clone(), faults);
        let work = || -> anyhow::Result<()> {
            let mut net = CudaNet::new(&driver, &training(&graph, &params, &needed, 2))?;
            net.optimize(super::Rule::Sgd, &[], &params)?;
            net.forward(&params, &vec![0.0; 2 * graph.input_shape().len()], Mode::Train)?;
            net.backward(&params, std::iter::empty::<(LayerId, &[f32])>())?;
            net.update(super::arguments::Step::default())?;
            net.take(&mut params.clone())
        };
        let result = work().map_err(|e| e.to_string());
        (recording.held().len(), result)
    };
    let faults = Faults::lost_at(usize::MAX);
    assert_eq!(run(&faults), (0, Ok(())));
    for call in 0..faults.calls() {
        let (held, result) = run(&Faults::lost_at(call));
        let why = result.unwrap_err();
        assert!(held == 0 && why.contains("lost in a test"), "call {call}: {held} held; {why}");
    }
}

#[test]
fn each_kernel_compiles_for_each_architecture_within_limits() {
    if !nvrtc::is_present() {
        return peregrine_support::skip(
            "nvrtc",
            "NVRTC is not installed (launch/setup/setup.sh puts it into the cache)",
        );
    }
    // Beside the test program, where cargo keeps what is built.
    let folder = std::env::current_exe().unwrap().with_file_name("training-cubins");
    let known = nvrtc::architectures();
    let (compiled, unknown): (Vec<u32>, Vec<u32>) = nvrtc::ARCHITECTURES.iter().partition(|a| known.contains(a));
    if !unknown.is_empty() {
        peregrine_support::skip("nvrtc", &format!("NVRTC {:?} knows no sm_{unknown:?}", nvrtc::version()));
    }
    let modules = [Precision::Single, Precision::Half].map(Precision::modules).concat();
    let jobs: Vec<_> = modules.iter().flat_map(|module| compiled.iter().map(move |&a| (module, a))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(&(module, architecture)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            check_needs(module, architecture, &cubin(module, architecture, &folder));
        }
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().for_each(|thread| thread.join().expect("a kernel does not fit; see above"));
    });
}

/// Compiled now, or kept.
fn cubin(module: &KernelSource, architecture: u32, folder: &Path) -> Vec<u8> {
    let version = format!("{:?}", nvrtc::version());
    let key = cache::key(module.name, &[&version, &architecture.to_string(), &module.text()]);
    cache::load(folder, &key).unwrap_or_else(|| {
        let cubin = nvrtc::compile(module, architecture).unwrap_or_else(|error| panic!("{error}"));
        cache::store(folder, &key, &cubin);
        cubin
    })
}

fn check_needs(module: &KernelSource, architecture: u32, cubin: &[u8]) {
    let needs = needs(cubin).expect("a whole cubin");
    assert_eq!(needs.len(), module.kernels.len(), "{} for sm_{architecture}", module.name);
    for need in needs {
        let of = format!("{} for sm_{architecture}", need.kernel);
        // Of 65,536 registers of a multiprocessor, so that two blocks of 256 threads fit.
        assert!((1..=128).contains(&need.registers), "{of} takes {} registers", need.registers);
        assert!(need.shared <= 24 * 1024, "{of} takes {} bytes of shared memory", need.shared);
    }
}
