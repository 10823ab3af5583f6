//! Networks in training on the emulated device, beside the CPU.

use std::sync::Arc;

use peregrine_engine::cuda::Driver;
use peregrine_engine::{Activation, Conv, Graph, Interpolation, LayerId, Padding, Shape, Window};
use peregrine_reference::cuda::Emulated;
use peregrine_reference::graphs::any_graph;
use peregrine_reference::random_weights;
use proptest::prelude::*;

use super::kernels::Precision;
use crate::net::{check, Mode, NetParams, TrainNet};
use crate::train::checkpoint::TrainState;
use crate::train::config::StudentConfig;
use crate::train::device::OpenDevice;
use crate::train::optimizer::OptimizerKind;

fn emulated(precision: Precision) -> Option<Arc<dyn Driver>> {
    Emulated::of(&precision.modules(), false, false)
}

/// Every operation, odd and even sizes, windows with and without padding, a tensor that is read by
/// several layers and one that a layer reads twice.
pub(super) fn all_operations() -> Graph {
    let conv = |kernel, stride, depthwise, activation, padding| Conv { kernel, stride, depthwise, activation, padding };
    let same = |kernel, stride, activation| conv(kernel, stride, false, activation, Padding::Same);
    let even = |kernel, stride, activation| conv(kernel, stride, false, activation, Padding::Even);
    let filter = |kernel, stride, activation| conv(kernel, stride, true, activation, Padding::Same);
    let mut g = Graph::new(Shape::new(3, 13, 14));
    let a = g.conv("a", 0, 6, same(3, 1, Activation::Silu));
    let b = g.conv("b", a, 0, filter(3, 1, Activation::Hardswish));
    let c = g.conv("c", b, 0, conv(5, 2, true, Activation::Relu, Padding::Even));
    let pooled = g.max_pool("pooled", b, Window::same(3, 2));
    let both = g.concat("both", &[c, pooled]);
    let mean = g.average_pool("mean", both, Window::even(3, 1));
    let shuffled = g.shuffle("shuffled", mean, 3);
    let part = g.slice("part", shuffled, 2..10);
    let other = g.slice("other", both, 4..12);
    let sum = g.add("sum", part, other);
    let whole = g.global_average("whole", sum);
    let gate = g.conv("gate", whole, 8, same(1, 1, Activation::Sigmoid));
    let scaled = g.scale("scaled", sum, gate);
    let alone = g.activate("alone", scaled, Activation::Hardswish);
    let up = g.upsample2x("up", alone, Interpolation::Bilinear);
    let leaky = g.conv("leaky", up, 40, even(6, 2, Activation::LeakyRelu));
    let hard = g.conv("hard", leaky, 4, even(1, 1, Activation::Hardsigmoid));
    let near = g.upsample2x("near", hard, Interpolation::Nearest);
    let twice = g.add("twice", near, near);
    let six = g.conv("six", twice, 0, filter(1, 1, Activation::Relu6));
    let out = g.conv("out", six, 5, same(4, 2, Activation::Identity));
    g.outputs.extend([out, leaky]);
    g
}

/// Both have the same tensors, gradients, statistics and, evaluated, the same tensors again, up to
/// `tolerance` of the largest value. `inner`: further layers that get a gradient from outside.
fn assert_same(mut ours: TrainNet, mut theirs: TrainNet, inner: &[LayerId], tolerance: f32) -> Result<(), String> {
    let input = check::values(ours.input().len(), 6);
    let mut layers: Vec<LayerId> = ours.graph.outputs.iter().chain(inner).copied().collect();
    layers.dedup();
    let seeds: Vec<Vec<f32>> = layers.iter().map(|&l| check::values(ours.value(l).len(), l as u64)).collect();
    // Twice, since gradients add up and statistics follow.
    for _ in 0..2 {
        for net in [&mut ours, &mut theirs] {
            net.input().copy_from_slice(&input);
            net.forward(Mode::Train).unwrap();
            net.backward(layers.iter().zip(&seeds).map(|(&l, seed)| (l, &seed[..]))).unwrap();
        }
    }
    for &layer in &layers {
        close(theirs.value(layer), ours.value(layer), tolerance, &ours.graph.layers[layer].name)?;
    }
    let (cuda, params) = theirs.cuda().expect("is on CUDA");
    cuda.take_gradients(params).unwrap();
    cuda.take(params).unwrap();
    let mut params = ours.params.clone();
    for (ours, theirs) in params.trainable().into_iter().zip(theirs.params.trainable()) {
        close(&theirs.param.gradient, &ours.param.gradient, tolerance, &ours.name)?;
    }
    for ((name, ours), theirs) in params.state().into_iter().zip(theirs.params.state().into_values()) {
        close(theirs, ours, tolerance, &name)?;
    }
    for net in [&mut ours, &mut theirs] {
        net.forward(Mode::Evaluate).unwrap();
    }
    layers.iter().try_for_each(|&l| close(theirs.value(l), ours.value(l), tolerance, "evaluated"))
}

fn close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) -> Result<(), String> {
    assert_eq!(found.len(), expected.len(), "{what}");
    let most = expected.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
    let near = |a: f32, b: f32| (a - b).abs() <= tolerance * most;
    match found.iter().zip(expected).enumerate().find(|(_, (a, b))| !near(**a, **b)) {
        None => Ok(()),
        Some((i, (a, b))) => Err(format!("{what}, value {i}: {a} instead of {b}, of at most {most}")),
    }
}

fn train_net(graph: &Graph, params: &NetParams, batch: usize) -> TrainNet {
    TrainNet::new(graph.clone(), params.clone(), batch)
}

#[test]
fn every_operation_trains_on_the_device_as_on_the_cpu() {
    let Some(driver) = emulated(Precision::Single) else { return };
    let graph = all_operations();
    let inner = graph.layers.iter().position(|layer| layer.name == "sum").unwrap();
    // With and without batch-norm, and with layers that are frozen at the bottom and in the middle.
    for (frozen, without_norm) in [("", ""), ("a", "b"), ("c", "a"), ("leaky", "c"), ("", "all")] {
        let mut params = NetParams::random(&graph, 5);
        for conv in &mut params.convs {
            conv.frozen |= conv.name == frozen;
            if conv.name == without_norm || without_norm == "all" {
                conv.norm = None;
            }
            if conv.name == "out" {
                conv.weight.value = check::values(conv.weight.value.len(), 3);
            }
        }
        let net = || train_net(&graph, &params, 3);
        let theirs = net().on_cuda(&driver, &[inner], Precision::Single).unwrap();
        assert_same(net(), theirs, &[inner], 2e-3).unwrap_or_else(|e| panic!("frozen {frozen:?}: {e}"));
    }
}

#[test]
fn the_student_trains_on_the_device_as_on_the_cpu() {
    let Some(driver) = emulated(Precision::Single) else { return };
    let student = peregrine_student::Student::load(&peregrine_support::lite()).unwrap();
    let graph = student.manifest.architecture.graph(64, 64);
    let inner = graph.layers.iter().position(|l| l.name == "neck.8.add").unwrap();
    let mut params = NetParams::random(&graph, 5);
    params.adopt(&student.weights);
    let net = || train_net(&graph, &params, 2);
    assert_same(net(), net().on_cuda(&driver, &[inner], Precision::Single).unwrap(), &[inner], 1e-4).unwrap();
}

#[test]
fn in_half_precision_gradients_are_those_of_the_cpu_to_its_rounding() {
    let Some(driver) = emulated(Precision::Half) else { return };
    let student = peregrine_student::Student::load(&peregrine_support::lite()).unwrap();
    let of_student = student.manifest.architecture.graph(64, 64);
    // The more layers roundings go through, the more of them fall on the other side of a kink.
    for (graph, tolerance) in [(small().0, 0.01), (all_operations(), 0.05), (of_student, 0.15)] {
        let mut params = NetParams::random(&graph, 5);
        params.adopt(&student.weights);
        let [mut ours, theirs] = [0, 1].map(|_| train_net(&graph, &params, 2));
        let mut theirs = theirs.on_cuda(&driver, &[], Precision::Half).unwrap();
        let input = check::values(ours.input().len(), 6);
        let out = graph.outputs[0];
        let seed = check::values(ours.value(out).len(), 7);
        for net in [&mut ours, &mut theirs] {
            net.input().copy_from_slice(&input);
            net.forward(Mode::Train).unwrap();
            net.backward([(out, &seed[..])]).unwrap();
        }
        let (cuda, params) = theirs.cuda().expect("is on CUDA");
        cuda.take_gradients(params).unwrap();
        let distance = |a: &[f32], b: &[f32]| {
            let square = |v: f32| f64::from(v).powi(2);
            let apart = a.iter().zip(b).map(|(a, b)| square(a - b)).sum::<f64>();
            (apart / b.iter().map(|&v| square(v)).sum::<f64>().max(1e-12)).sqrt()
        };
        let of_values = distance(theirs.value(out), ours.value(out));
        assert!(of_values < tolerance, "the output is {of_values} away");
        let all = |net: &mut TrainNet| -> Vec<f32> {
            net.params.trainable().into_iter().flat_map(|t| t.param.gradient.clone()).collect()
        };
        let of_gradients = distance(&all(&mut theirs), &all(&mut ours));
        assert!(of_gradients < tolerance, "gradients are {of_gradients} away, with {} layers", graph.layers.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: peregrine_reference::random::cases(24), max_shrink_iters: 20, ..ProptestConfig::default()
    })]

    #[test]
    fn any_network_trains_on_the_device_as_on_the_cpu(graph in any_graph(), seed: u64) {
        let Some(driver) = emulated(Precision::Single) else { return Ok(()) };
        let mut params = NetParams::random(&graph, 0);
        params.adopt(&random_weights(&graph, seed));
        let net = || train_net(&graph, &params, 2);
        let theirs = net().on_cuda(&driver, &[], Precision::Single).unwrap();
        assert_same(net(), theirs, &[], 1e-3).map_err(TestCaseError::fail)?;
    }
}

/// A network with batch-norm, and its input and seed for a step.
pub(super) fn small() -> (Graph, NetParams) {
    let conv =
        |kernel, depthwise, activation| Conv { kernel, stride: 1, depthwise, activation, padding: Padding::Same };
    let mut g = Graph::new(Shape::new(2, 6, 5));
    let a = g.conv("a", 0, 20, conv(3, false, Activation::Relu));
    let b = g.conv("b", a, 0, conv(3, true, Activation::Relu));
    let out = g.conv("out", b, 3, conv(1, false, Activation::Identity));
    g.outputs.push(out);
    let params = NetParams::random(&g, 1);
    (g, params)
}

fn step(state: &mut TrainState, seed: u64, size: f32, clip: f32) -> f32 {
    let out = state.net.graph.outputs[0];
    let input = check::values(state.net.input().len(), seed);
    state.net.input().copy_from_slice(&input);
    state.net.zero_gradients().unwrap();
    state.net.forward(Mode::Train).unwrap();
    let seed: Vec<f32> = check::values(state.net.value(out).len(), seed + 100).iter().map(|v| v * size).collect();
    state.net.backward([(out, &seed[..])]).unwrap();
    let norm = state.update(0.02, 0.1, clip, 0.9).unwrap();
    state.step += 1;
    norm
}

#[test]
fn steps_of_either_optimizer_are_those_of_the_cpu_and_survive_a_checkpoint() {
    let Some(driver) = emulated(Precision::Single) else { return };
    for kind in [OptimizerKind::AdamW, OptimizerKind::Sgd] {
        let (graph, mut params) = small();
        params.convs[1].rate = 0.5;
        let config = StudentConfig { optimizer: kind, momentum: 0.8, ..StudentConfig::default() };
        let new = || TrainState::new(train_net(&graph, &params, 2), &config);
        let mut ours = new();
        let mut theirs = new().on(OpenDevice::Cuda(Arc::clone(&driver), Precision::Single), &[]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let [of_ours, of_theirs] = ["ours", "theirs"].map(|name| folder.path().join(name));
        for i in 0..4 {
            if i == 2 {
                // Stopped, and resumed from its checkpoint.
                theirs.save(&of_theirs, "").unwrap();
                let mut resumed = new();
                resumed.load(&of_theirs, None).unwrap();
                theirs = resumed.on(OpenDevice::Cuda(Arc::clone(&driver), Precision::Single), &[]).unwrap();
            }
            // The first is clipped.
            let clip = if i == 0 { 0.5 } else { 1e6 };
            let (a, b) = (step(&mut ours, i, 1.0, clip), step(&mut theirs, i, 1.0, clip));
            assert!((a - b).abs() <= 1e-4 * a, "{kind:?}: a norm of {b} instead of {a}");
        }
        // What is not finite changes nothing but the statistics.
        ours.save(&of_ours, "").unwrap();
        theirs.save(&of_theirs, "").unwrap();
        assert!(!step(&mut theirs, 9, f32::INFINITY, 1.0).is_finite());
        let mut spoilt = new();
        theirs.save(&folder.path().join("spoilt"), "").unwrap();
        spoilt.load(&folder.path().join("spoilt"), None).unwrap();
        let (mut expected, mut found) = (new(), new());
        expected.load(&of_ours, None).unwrap();
        found.load(&of_theirs, None).unwrap();
        for (what, a, b) in [
            ("parameters", &mut found.net.params, &mut expected.net.params),
            ("average", &mut found.average, &mut expected.average),
        ] {
            for ((name, a), b) in a.state().into_iter().zip(b.state().into_values()) {
                close(a, b, 1e-4, &format!("{kind:?}, {what} {name}")).unwrap();
            }
        }
        for (name, a) in &found.optimizer.memory {
            a.iter().zip(&expected.optimizer.memory[name]).for_each(|(a, b)| close(a, b, 1e-3, name).unwrap());
        }
        assert_eq!((found.optimizer.updates, spoilt.optimizer.updates), (4, 4));
        assert_eq!(spoilt.optimizer.memory, found.optimizer.memory);
        assert_eq!(spoilt.average.fold(), found.average.fold());
        for (a, b) in spoilt.net.params.trainable().iter().zip(found.net.params.trainable()) {
            assert_eq!(a.param.value, b.param.value, "{}", a.name);
        }
    }
}

#[test]
fn steps_that_overflow_half_precision_are_left_out_until_the_factor_fits() {
    let Some(driver) = emulated(Precision::Half) else { return };
    let (graph, params) = small();
    let on = |precision| {
        let state = TrainState::new(train_net(&graph, &params, 2), &StudentConfig::default());
        match precision {
            None => state,
            Some(precision) => state.on(OpenDevice::Cuda(Arc::clone(&driver), precision), &[]).unwrap(),
        }
    };
    let (mut ours, mut theirs) = (on(None), on(Some(Precision::Half)));
    // As gradients of 1000 overflow with the first factor, of 1024.
    let left_out = (0..10).take_while(|_| step(&mut theirs, 1, 1000.0, 1.0) == 0.0).count();
    assert!((2..8).contains(&left_out), "{left_out} were left out");
    let norm = step(&mut theirs, 2, 1000.0, 1.0);
    step(&mut ours, 1, 1000.0, 1.0);
    let expected = step(&mut ours, 2, 1000.0, 1.0);
    assert!((norm - expected).abs() < 0.02 * expected, "a norm of {norm} instead of {expected}");
    assert_eq!(theirs.optimizer.updates, 2);
    // What no factor ends is told.
    let told = (0..30).map(|_| step(&mut theirs, 3, f32::INFINITY, 1.0)).find(|norm| *norm != 0.0);
    assert!(told.is_some_and(|norm| !norm.is_finite()));
}

#[test]
fn a_step_gives_the_same_bits_again() {
    let Some(driver) = emulated(Precision::Single) else { return };
    let (graph, params) = small();
    let run = || {
        let state = TrainState::new(train_net(&graph, &params, 2), &StudentConfig::default());
        let mut state = state.on(OpenDevice::Cuda(Arc::clone(&driver), Precision::Single), &[]).unwrap();
        for i in 0..3 {
            step(&mut state, i, 1.0, 1.0);
        }
        state.fetch_average().unwrap();
        state.average.fold()
    };
    assert_eq!(run(), run());
}
