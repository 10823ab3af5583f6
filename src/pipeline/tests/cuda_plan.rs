//! What the CUDA engine would make a device do, checked on a driver that records instead.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::encoding::YuvRange;
use peregrine_core::{Encoding, ImageView};
use peregrine_engine::cuda::autotune;
use peregrine_engine::cuda::driver::{DeviceInfo, DeviceMemory, MemoryKind};
use peregrine_engine::cuda::kernels::Module;
use peregrine_engine::cuda::launch::{Launch, Node, NodeWork};
use peregrine_engine::cuda::layout::Layout;
use peregrine_engine::cuda::network::{Network, Variant};
use peregrine_engine::cuda::recording::{RecordedGraph, Recording};
use peregrine_engine::cuda::{CudaEngine, Driver, Model, Wait};
use peregrine_engine::{Activation, Conv, Graph, Padding, Shape};
use peregrine_pipeline::cuda::FrameGraphs;
use peregrine_pipeline::cuda::{Decoding, FrameOptions};
use peregrine_pipeline::{GpuOptions, GpuWait, Pipeline, PipelineOptions};
use peregrine_reference::graphs::{any_graph, student_graph};
use peregrine_reference::{random_quantization, random_weights};
use peregrine_student::architecture::Architecture;
use peregrine_student::Student;
use peregrine_vision::decode::NmsIou;
use proptest::prelude::*;

/// Follows the steps over the arena, and returns the first that reads something other than what was
/// written for it.
fn first_disturbed(layout: &Layout) -> Option<String> {
    let mut owner = vec![usize::MAX; layout.arena];
    // The bytes of a tensor, pixel by pixel: parts of a concatenation lie between one another.
    let values = |tensor: usize| {
        let view = layout.views[tensor];
        let (pixels, bytes) = (0..view.shape.pixels(), view.element.bytes());
        pixels.flat_map(move |pixel| {
            let first = view.base + pixel * view.pitch * bytes;
            first..first + view.padded() * bytes
        })
    };
    values(0).for_each(|at| owner[at] = 0);
    for &s in &layout.order {
        let step = &layout.plan.steps[s];
        for &input in &step.inputs {
            // A whole may be read of which parts were written, or a part of a whole.
            let right =
                |at: usize| owner[at] != usize::MAX && layout.plan.storage(owner[at]) == layout.plan.storage(input);
            if !values(input).all(right) {
                return Some(format!("{} reads tensor {input} after it was overwritten", step.name));
            }
        }
        let parts: Vec<_> = (0..layout.views.len()).filter(|&t| layout.plan.storage(t) == step.output).collect();
        if parts.len() <= 1 || layout.plan.storage(step.output) != step.output {
            values(step.output).for_each(|at| owner[at] = step.output);
        } else {
            // The concatenation's own step: what its parts have not written, it has copied.
            values(step.output).for_each(|at| {
                if !parts.contains(&owner[at]) {
                    owner[at] = step.output;
                }
            });
        }
    }
    let whole = |&tensor: &usize| {
        values(tensor).all(|at| owner[at] == tensor || layout.plan.storage(owner[at]) == layout.plan.storage(tensor))
    };
    layout.plan.outputs.iter().find(|t| !whole(t)).map(|t| format!("output {t} was overwritten"))
}

fn kernels(nodes: &[Node]) -> impl Iterator<Item = (&Node, &Launch)> {
    nodes.iter().filter_map(|node| match &node.work {
        NodeWork::Kernel(launch) => Some((node, launch)),
        _ => None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_step_overwrites_what_another_still_needs(graph in any_graph()) {
        prop_assert_eq!(first_disturbed(&Layout::new(&graph).unwrap()), None);
    }

    #[test]
    fn no_quantized_step_overwrites_what_another_still_needs(graph in student_graph(), seed: u64) {
        for float in [0.0, 0.3] {
            let quantization = random_quantization(&graph, seed, float);
            prop_assert_eq!(first_disturbed(&Layout::quantized(&graph, &quantization).unwrap()), None);
        }
    }

    #[test]
    fn steps_of_one_level_touch_nothing_of_one_another(graph in any_graph()) {
        let layout = Layout::new(&graph).unwrap();
        let span = |t: usize| layout.views[t].base..layout.views[t].base + layout.views[t].extent();
        for (i, &a) in layout.order.iter().enumerate() {
            for &b in layout.order[i + 1..].iter().filter(|&&b| layout.levels[b] == layout.levels[a]) {
                let (a, b) = (&layout.plan.steps[a], &layout.plan.steps[b]);
                for (writer, other) in [(a, b), (b, a)] {
                    let written = span(writer.output);
                    // Parts of one concatenation lie between one another, in channels of their own.
                    let storage = layout.plan.storage(writer.output);
                    for &t in other.inputs.iter().chain([&other.output]).filter(|&&t| layout.plan.storage(t) != storage) {
                        let span = span(t);
                        prop_assert!(written.end <= span.start || span.end <= written.start);
                    }
                }
            }
        }
    }

    #[test]
    fn launches_stay_within_memory_and_cover_their_outputs(graph in any_graph(), choose in 0usize..50) {
        check_launches(&graph, Network::new(&graph).unwrap(), choose)?;
    }

    #[test]
    fn so_do_those_of_quantized_networks(graph in student_graph(), choose in 0usize..50, seed: u64) {
        let quantization = random_quantization(&graph, seed, 0.3);
        check_launches(&graph, Network::quantized(&graph, &quantization).unwrap(), choose)?;
    }
}

fn check_launches(graph: &Graph, network: Network, choose: usize) -> Result<(), TestCaseError> {
    let recording = Arc::new(Recording::of_architecture(90));
    let driver: Arc<dyn Driver> = recording.clone();
    let pick = |s: usize| {
        let variants = network.variants(s);
        variants[(choose + s) % variants.len()]
    };
    let variants: Vec<_> = (0..network.layout.plan.steps.len()).map(pick).collect();
    let model = Arc::new(Model::with_variants(&driver, network, &random_weights(graph, 1), variants).unwrap());
    let engine = CudaEngine::new(&model, Wait::Block).unwrap();
    let (nodes, edges) = engine.graph();
    check_graph(nodes, edges, &recording)?;
    for (s, step) in model.network().layout.plan.steps.iter().enumerate() {
        let Variant::Dense(tile) = model.variants()[s] else { continue };
        let shape = model.network().view(step.output).shape;
        let (_, launch) = kernels(nodes).find(|(node, _)| node.name == step.name).unwrap();
        let covered =
            [(launch.grid[0], tile.pixels(), shape.pixels()), (launch.grid[1], tile.channels(), shape.channels)];
        for (blocks, of, n) in covered {
            prop_assert!(blocks as usize * of >= n && (blocks as usize - 1) * of < n);
        }
    }
    Ok(())
}

/// Each node waits for earlier ones only, stays within what is allocated, and has the threads that
/// its kernel is compiled for.
fn check_graph(nodes: &[Node], edges: &[Vec<usize>], recording: &Recording) -> Result<(), TestCaseError> {
    let held = recording.held();
    let threads: BTreeMap<_, _> = Module::ALL.iter().flat_map(|m| m.kernels()).map(|k| (k.name, k.threads)).collect();
    prop_assert!(edges.iter().enumerate().all(|(i, before)| before.iter().all(|&j| j < i)));
    for node in nodes {
        for span in node.reads.iter().chain(&node.writes) {
            let inside = |&(at, bytes): &(u64, usize)| at <= span.start && span.end <= at + bytes as u64;
            prop_assert!(held.iter().any(inside), "{} touches {span:x?}", node.name);
        }
    }
    for (node, launch) in kernels(nodes) {
        prop_assert_eq!(threads.get(&launch.kernel), Some(&launch.threads), "{}", &launch.kernel);
        prop_assert!(launch.grid.iter().all(|&g| g > 0) && launch.grid[1] < 65_536, "{}", node.name);
    }
    Ok(())
}

#[test]
fn a_frames_launches_stay_within_memory_for_any_image() {
    let recording = Arc::new(Recording::of_architecture(90));
    let driver: Arc<dyn Driver> = recording.clone();
    let path = RefCell::new(frame_path(&driver, &Student::embedded()));
    let kinds = (prop::sample::select(Encoding::ALL.to_vec()), 1usize..4000, 1usize..3000);
    proptest!(ProptestConfig::with_cases(100), |((encoding, width, height) in kinds)| {
        // Pixels share their chroma, and a mosaic has neighbours.
        let (width, height) = ((width + 2).next_multiple_of(2), (height + 2).next_multiple_of(2));
        let mut path = path.borrow_mut();
        path.prepare(encoding, (width, height)).unwrap();
        let (nodes, edges) = path.graph().unwrap();
        check_graph(nodes, edges, &recording)?;
        let letterbox = nodes.iter().position(|node| node.name == "letterbox").expect("an image is scaled");
        let reads: u64 = nodes[letterbox].reads.iter().map(|span| span.end - span.start).sum();
        prop_assert!(reads >= encoding.image_bytes((width, height)) as u64, "{reads} bytes of {width}x{height}");
    });
}

#[test]
fn the_heads_run_beside_one_another() {
    let student = Student::embedded();
    let driver: Arc<dyn Driver> = Arc::new(Recording::of_architecture(90));
    let model =
        Arc::new(Model::new(&driver, &student.graph(), &student.weights, student.quantization.as_ref()).unwrap());
    let engine = CudaEngine::new(&model, Wait::Block).unwrap();
    let (nodes, edges) = engine.graph();
    let depth = peregrine_engine::cuda::launch::depth(edges);
    assert!(depth * 4 < nodes.len() * 3, "{depth} of {} nodes one after the other", nodes.len());
}

#[test]
fn a_channel_shuffle_is_one_launch() {
    // A ShuffleNet unit of NanoDet: 116 channels, read one here and one there.
    let point = Conv { kernel: 1, stride: 1, depthwise: false, activation: Activation::Relu, padding: Padding::Same };
    let mut graph = Graph::new(Shape::new(3, 8, 8));
    let [a, b] = ["a", "b"].map(|name| graph.conv(name, 0, 58, point));
    let both = graph.concat("both", &[a, b]);
    let shuffled = graph.shuffle("shuffle", both, 2);
    let half = graph.slice("half", shuffled, 58..116);
    let out = graph.conv("out", half, 58, point);
    graph.outputs.push(out);
    let driver: Arc<dyn Driver> = Arc::new(Recording::of_architecture(90));
    let model = Arc::new(Model::new(&driver, &graph, &random_weights(&graph, 1), None).unwrap());
    let engine = CudaEngine::new(&model, Wait::Block).unwrap();
    let names: Vec<_> = kernels(engine.graph().0).map(|(_, launch)| launch.kernel.as_str()).collect();
    assert_eq!(names.iter().filter(|name| **name == "gather").count(), 1, "{names:?}");
    assert!(!names.contains(&"copy_part"), "{names:?}");
}

#[test]
fn sizes_at_the_limits_are_planned_or_refused_and_never_wrap() {
    // The most pixels that are taken: offsets beyond 2^32 bytes, counts below 2^31.
    let architecture = Architecture::default_student();
    let network = Network::new(&architecture.graph(16_384, 16_384)).unwrap();
    assert!(network.layout.arena > 1 << 32);
    for s in 0..network.layout.plan.steps.len() {
        for variant in network.variants(s) {
            let bases = peregrine_engine::cuda::network::Bases { arena: 1 << 40, weights: 1 << 50 };
            for node in network.step_nodes(s, variant, (0, 0), bases) {
                assert!(node
                    .writes
                    .iter()
                    .all(|w| w.start < w.end && w.end <= (1 << 40) + network.layout.arena as u64));
            }
        }
    }
    let mut huge = Graph::new(Shape::new(3, 1 << 15, 1 << 15));
    let conv = Conv { kernel: 3, stride: 2, depthwise: false, activation: Activation::Relu6, padding: Padding::Same };
    let out = huge.conv("stem", 0, 8, conv);
    huge.outputs.push(out);
    let error = Network::new(&huge).unwrap_err().to_string();
    assert!(error.contains("pixels") && error.contains("CUDA"), "{error}");
}

fn frame_path(driver: &Arc<dyn Driver>, student: &Student) -> FrameGraphs {
    let model =
        Model::shared(driver, &student.graph(), &student.weights, None, &student.manifest.weights.sha256).unwrap();
    let options = FrameOptions {
        max_detections: 100,
        decoding: Decoding::OnDevice,
        segmentation: true,
        wait: Wait::Block,
        priority: 0,
        timeout: Duration::MAX,
    };
    FrameGraphs::new(&model, &student.manifest.architecture, options).unwrap()
}

#[test]
fn each_kind_of_image_has_a_graph_and_the_last_are_kept() {
    let recording = Arc::new(Recording::of_architecture(90));
    let driver: Arc<dyn Driver> = recording.clone();
    let mut path = frame_path(&driver, &Student::embedded());
    let (mut detections, mut mask) = (vec![], Default::default());
    let mut frame = |encoding: Encoding, width: u32| {
        let step = encoding.row_bytes(width as usize) as u32;
        let data = vec![0; step as usize * 48];
        let image = ImageView::with_encoding(encoding, width, 48, step, &data).unwrap();
        path.process(&image, (0.3, NmsIou::by_class(0.6)), &mut detections, &mut mask).unwrap();
        recording.graphs().len()
    };
    // As many as a camera may have in turn, none of which is made twice.
    let kinds: Vec<_> = (0..8).flat_map(|n| [(Encoding::Rgb8, 64 + 2 * n), (Encoding::Bgr8, 64 + 2 * n)]).collect();
    for _ in 0..3 {
        kinds.iter().for_each(|&(encoding, width)| assert!(frame(encoding, width) <= kinds.len()));
    }
    // One more takes the place of the one that was not used for longest.
    let uyvy = Encoding::Uyvy(YuvRange::Limited);
    assert_eq!(frame(Encoding::Rgb8, 64), 16);
    assert_eq!(frame(uyvy, 64), 17);
    assert_eq!(frame(Encoding::Rgb8, 64), 17);
    assert_eq!(frame(Encoding::Bgr8, 64), 18);
    let held = recording.held().len();
    for width in 0..40 {
        frame(Encoding::Rgb8, 64 + 2 * width);
    }
    assert_eq!(recording.held().len(), held, "memory of kinds long gone is given back");
}

#[test]
fn streams_of_one_student_share_its_weights() {
    let recording = Arc::new(Recording::of_architecture(90));
    let driver: Arc<dyn Driver> = recording.clone();
    let student = Student::embedded();
    let first = frame_path(&driver, &student);
    let alone: usize = recording.held().iter().map(|h| h.1).sum();
    let second = frame_path(&driver, &student);
    let both: usize = recording.held().iter().map(|h| h.1).sum();
    let model =
        Model::shared(&driver, &student.graph(), &student.weights, None, &student.manifest.weights.sha256).unwrap();
    assert_eq!(both - alone, alone - model.weight_bytes());
    drop((first, second, model));
    assert_eq!(recording.held(), [], "all is given back");
}

#[test]
fn each_stream_has_its_own_wait_priority_and_memory() {
    let recording = Arc::new(Recording::of_architecture(90));
    let driver: Arc<dyn Driver> = recording.clone();
    let student = Student::embedded();
    let pixels = vec![0; 64 * 48 * 3];
    let image = ImageView::new("rgb8", 64, 48, 192, &pixels).unwrap();
    let asked = [(GpuWait::Spin, -2), (GpuWait::Block, 0), (GpuWait::Block, 1)];
    let mut cameras: Vec<_> = asked
        .iter()
        .map(|&(wait, priority)| {
            let options = PipelineOptions {
                gpu: GpuOptions { wait, priority, ..GpuOptions::default() },
                ..PipelineOptions::default()
            };
            Pipeline::on_cuda(&driver, &student, &options, false).unwrap()
        })
        .collect();
    for camera in &mut cameras {
        camera.process(&image).unwrap();
    }
    let graphs = recording.graphs();
    let found: Vec<_> = graphs.iter().map(|graph| (graph.wait, graph.priority)).collect();
    assert_eq!(found, [(Wait::Spin, -2), (Wait::Block, 0), (Wait::Block, 1)]);
    assert_apart(&graphs);
}

/// Graphs that run at the same time write to nothing that another touches.
fn assert_apart(graphs: &[RecordedGraph]) {
    for (i, a) in graphs.iter().enumerate() {
        for b in graphs.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, b)| b) {
            let written = a.nodes.iter().flat_map(|node| &node.writes);
            let touched: Vec<_> = b.nodes.iter().flat_map(|node| node.reads.iter().chain(&node.writes)).collect();
            for w in written {
                assert!(
                    touched.iter().all(|t| t.end <= w.start || w.end <= t.start),
                    "{w:x?} is not one stream's alone"
                );
            }
        }
    }
}

#[test]
fn cameras_share_weights_but_neither_graphs_nor_memory() {
    const CAMERAS: usize = 6;
    let recording = Arc::new(Recording::of_architecture(90));
    let driver: Arc<dyn Driver> = recording.clone();
    let student = Student::embedded();
    let gpu = GpuOptions { priority: -1, ..GpuOptions::default() };
    let options = PipelineOptions { gpu, ..PipelineOptions::default() };
    let mut pipeline = Pipeline::on_cuda(&driver, &student, &options, false).unwrap();
    let bytes = || recording.held().iter().map(|h| h.1).sum::<usize>();
    let mut steps = vec![bytes()];
    let pixels = vec![0; 128 * 48 * 3];
    // More kinds of images than one camera keeps graphs of.
    for round in 0..3 {
        for camera in 0..CAMERAS {
            let width = 64 + 2 * camera as u32;
            let image = ImageView::new("rgb8", width, 48, 3 * width, &pixels).unwrap();
            pipeline.process_from(camera, &image, round).unwrap();
            steps.push(bytes());
        }
        assert_eq!(recording.graphs().len(), CAMERAS, "round {round}");
    }
    let graphs = recording.graphs();
    assert!(graphs.iter().all(|graph| graph.priority == -1));
    assert_apart(&graphs);
    let model =
        Model::shared(&driver, &student.graph(), &student.weights, None, &student.manifest.weights.sha256).unwrap();
    let weights = recording.held().into_iter().filter(|h| h.1 == model.weight_bytes()).count();
    assert_eq!(weights, 1, "the weights are there once");
    assert_eq!(bytes(), steps[CAMERAS], "nothing is allocated after each camera's first image");

    // A change of encoding is one graph more, of that camera alone, and may be made beforehand.
    pipeline.prepare(2, Encoding::Bgr8, (68, 48));
    let image = ImageView::new("bgr8", 68, 48, 3 * 68, &pixels).unwrap();
    pipeline.process_from(2, &image, 9).unwrap();
    assert_eq!(recording.graphs().len(), CAMERAS + 1);
}

#[test]
fn variants_are_measured_once_per_device_and_intact_file() {
    let folder = tempfile::tempdir().unwrap();
    let network = Network::new(&Architecture::default_student().graph(64, 64)).unwrap();
    let choose = |name: &str, driver: u32| {
        let device = DeviceInfo { name: name.into(), driver, ..Recording::of_architecture(90).device().clone() };
        let clock = Arc::new(Recording::new(device).with_clock());
        let driver: Arc<dyn Driver> = clock.clone();
        let variants = autotune::choose(&driver, &network, Some(folder.path())).unwrap();
        (variants, clock.timed() > 0)
    };
    let (measured, asked) = choose("H100", 13_000);
    assert!(asked);
    assert_eq!(choose("H100", 13_000), (measured.clone(), false));
    assert!(choose("H200", 13_000).1 && choose("H100", 13_010).1);
    for file in std::fs::read_dir(folder.path()).unwrap() {
        std::fs::write(file.unwrap().path(), b"damaged").unwrap();
    }
    assert_eq!(choose("H100", 13_000), (measured.clone(), true));
    assert_eq!(choose("H100", 13_000), (measured, false));
}

#[test]
fn a_profile_times_every_node_in_order() {
    let student = Student::embedded();
    let clock: Arc<dyn Driver> = Arc::new(Recording::of_architecture(90).with_clock());
    let network = Network::new(&student.graph()).unwrap();
    let variants = network.guess(132);
    let model = Arc::new(Model::with_variants(&clock, network, &student.weights, variants).unwrap());
    let options = FrameOptions {
        max_detections: 100,
        decoding: Decoding::OnDevice,
        segmentation: true,
        wait: Wait::Block,
        priority: 0,
        timeout: Duration::MAX,
    };
    let mut path = FrameGraphs::new(&model, &student.manifest.architecture, options).unwrap();
    assert_eq!(path.profile(3).unwrap(), None, "there was no image yet");
    path.prepare(Encoding::Rgb8, (640, 480)).unwrap();
    let profile = path.profile(3).unwrap().unwrap();
    let nodes = path.graph().unwrap().0;
    let expected: Vec<_> = nodes.iter().enumerate().map(|(n, node)| (node.name.clone(), n as f32)).collect();
    assert_eq!(profile, expected);
    assert_eq!([&profile[0].0, &profile[1].0], ["upload", "letterbox"]);

    let driver: Arc<dyn Driver> = Arc::new(Recording::of_architecture(90));
    let mut path = frame_path(&driver, &student);
    path.prepare(Encoding::Rgb8, (640, 480)).unwrap();
    assert_eq!(path.profile(3).unwrap(), None, "what only records has no clock");
}

#[test]
fn integrated_memory_is_read_and_written_in_place() {
    let recording = Arc::new(Recording::of_architecture(87));
    let driver: Arc<dyn Driver> = recording.clone();
    let mut path = frame_path(&driver, &Student::embedded());
    path.prepare(Encoding::Rgb8, (640, 480)).unwrap();
    assert!(path.graph().unwrap().0.iter().all(|node| matches!(node.work, NodeWork::Kernel(_))));
}

#[test]
fn the_8_bit_twin_takes_no_more_launches_than_half_precision() {
    let launches = |folder: &str| {
        let student = Student::load(&peregrine_support::root().join("models").join(folder)).unwrap();
        let network = match &student.quantization {
            Some(quantization) => Network::quantized(&student.graph(), quantization).unwrap(),
            None => Network::new(&student.graph()).unwrap(),
        };
        let driver: Arc<dyn Driver> = Arc::new(Recording::of_architecture(90));
        let variants = network.guess(132);
        let model = Model::with_variants(&driver, network, &student.weights, variants).unwrap();
        let arena = DeviceMemory::new(&driver, MemoryKind::Device, model.network().layout.arena).unwrap();
        model.nodes(&arena).len()
    };
    let (halves, bytes) = (launches("peregrine-s"), launches("peregrine-s/int8"));
    assert!(bytes <= halves, "{bytes} in 8 bits, {halves} in half precision");
}
