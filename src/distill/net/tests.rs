//! Whole graphs in training.

use peregrine_engine::{Activation, Conv, ConvWeights, Graph, Interpolation, Padding, Shape, Weights, Window};
use peregrine_reference::graphs::any_graph;
use peregrine_reference::{random_input, random_weights, reference_outputs, relative_error};
use peregrine_student::Student;
use proptest::prelude::*;

use super::by_candle::{ByCandle, Passes};
use super::{check, Mode, NetParams, TrainNet};

/// Every operation, a shared tensor, a batch-norm and a shortcut, small enough for finite
/// differences.
fn small_graph() -> Graph {
    let conv =
        |kernel, stride, depthwise, activation| Conv { kernel, stride, depthwise, activation, padding: Padding::Same };
    let mut g = Graph::new(Shape::new(2, 4, 4));
    let a = g.conv("a", 0, 4, conv(3, 1, false, Activation::Identity));
    let b = g.conv("b", a, 0, conv(3, 2, true, Activation::Identity));
    let c = g.conv("c", b, 4, conv(1, 1, false, Activation::Relu6));
    let up = g.upsample2x("up", c, Interpolation::Nearest);
    let sum = g.add("sum", up, a);
    let both = g.concat("both", &[sum, a]);
    let out = g.conv("out", both, 2, conv(1, 1, false, Activation::Identity));
    g.outputs.push(out);
    g
}

#[test]
fn graph_gradients_agree_with_finite_differences() {
    finite_differences_of_a_whole_graph(|net| net);
}

#[test]
fn gradients_by_candle_agree_with_finite_differences() {
    finite_differences_of_a_whole_graph(ByCandle::new);
}

fn finite_differences_of_a_whole_graph<P: Passes>(by: fn(TrainNet) -> P) {
    let graph = small_graph();
    let out = graph.outputs[0];
    let batch = 3;
    let mut params = NetParams::random(&graph, 5);
    for trainable in params.trainable() {
        // Far from ReLU6's kinks and with output weights large enough to measure.
        if trainable.name == "out.weight" {
            trainable.param.value.copy_from_slice(&check::values(16, 9));
        }
        if trainable.name == "c.bias" {
            trainable.param.value.fill(3.0);
        }
        if trainable.name == "c.gamma" {
            trainable.param.value.fill(0.5);
        }
    }
    let input = check::values(batch * 2 * 16, 6);
    let probe = check::values(batch * graph.layers[out].shape.len(), 7);
    let run = |params: &NetParams| {
        let mut net = by(TrainNet::new(graph.clone(), params.clone(), batch));
        net.net().input().copy_from_slice(&input);
        net.forward(Mode::Train);
        net
    };
    let mut net = run(&params);
    net.backward([(out, &probe[..])]);
    let gradients: Vec<(String, Vec<f32>)> =
        net.net().params.trainable().into_iter().map(|t| (t.name, t.param.gradient.clone())).collect();
    for (i, (name, gradient)) in gradients.iter().enumerate() {
        println!("{name}");
        let at = params.trainable()[i].param.value.clone();
        check::gradient(&at, gradient, |x| {
            let mut moved = params.clone();
            moved.trainable()[i].param.value.copy_from_slice(x);
            check::dot(run(&moved).net().value(out), &probe)
        });
    }
}

#[test]
fn relu_and_pooling_gradients_agree_with_finite_differences() {
    let conv =
        |kernel, stride, depthwise, activation| Conv { kernel, stride, depthwise, activation, padding: Padding::Same };
    let mut graph = Graph::new(Shape::new(2, 6, 6));
    let a = graph.conv("a", 0, 3, conv(4, 2, false, Activation::Identity));
    let relu = graph.conv("relu", a, 0, conv(1, 1, true, Activation::Relu));
    let pooled = graph.max_pool("pooled", relu, Window::same(3, 1));
    let sum = graph.add("sum", pooled, relu);
    let out = graph.max_pool("out", sum, Window::same(1, 2));
    graph.outputs.push(out);
    let (weight, bias, input) = (check::values(96, 1), check::values(3, 2), check::values(2 * 72, 3));
    let probe = check::values(2 * graph.layers[out].shape.len(), 4);
    let run = |weight: &[f32], input: &[f32]| {
        let mut params = NetParams::random(&graph, 1);
        let weights = ConvWeights { weight: weight.to_vec(), bias: bias.clone() };
        assert_eq!(params.adopt(&Weights([("a".to_owned(), weights)].into())), 1);
        let mut net = TrainNet::new(graph.clone(), params, 2);
        net.input().copy_from_slice(input);
        net.forward(Mode::Train).unwrap();
        net
    };
    let mut net = run(&weight, &input);
    net.backward([(out, &probe[..])]).unwrap();
    let gradient = net.params.convs[0].weight.gradient.clone();
    check::gradient_by(1e-3, &weight, &gradient, |w| check::dot(run(w, &input).value(out), &probe));
}

#[test]
fn folded_weights_compute_the_same_as_evaluation_mode() {
    let graph = small_graph();
    let mut net = TrainNet::new(graph.clone(), NetParams::random(&graph, 5), 2);
    let input = check::values(2 * 2 * 16, 6);
    for _ in 0..20 {
        net.input().copy_from_slice(&input);
        net.forward(Mode::Train).unwrap();
    }
    net.forward(Mode::Evaluate).unwrap();
    let mut folded = NetParams::random(&graph, 0);
    assert_eq!(folded.adopt(&net.params.fold()), 4);
    let mut deployed = TrainNet::new(graph.clone(), folded, 2);
    deployed.input().copy_from_slice(&input);
    deployed.forward(Mode::Evaluate).unwrap();
    let out = graph.outputs[0];
    for (a, b) in net.value(out).iter().zip(deployed.value(out)) {
        assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} {b}");
    }
}

#[test]
fn no_gradient_is_computed_below_the_first_trained_layer() {
    let graph = small_graph();
    let mut params = NetParams::random(&graph, 5);
    params.convs.iter_mut().filter(|c| c.name != "out").for_each(|c| c.frozen = true);
    let net = TrainNet::new(graph, params, 1);
    assert_eq!(net.gradients.needed.iter().filter(|&&n| n).count(), 1);
}

/// A network by our passes and by candle's has the same outputs, running statistics and gradients for one
/// batch, up to `tolerance` of the largest value.
fn assert_same_by_candle(mut ours: TrainNet, inner: &[usize], tolerance: f32) {
    let mut theirs = ByCandle::new(TrainNet::new(ours.graph.clone(), ours.params.clone(), ours.batch()));
    let input = check::values(ours.input().len(), 6);
    let close = |a: &[f32], b: &[f32], what: &str| {
        let most = b.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
        assert_eq!(a.len(), b.len(), "{what}");
        let far = a.iter().zip(b).find(|(a, b)| (*a - *b).abs() > tolerance * most);
        assert_eq!(far, None, "{what}, of at most {most}");
    };
    let layers: Vec<usize> = ours.graph.outputs.iter().chain(inner).copied().collect();
    let seeds: Vec<Vec<f32>> = layers.iter().map(|&l| check::values(ours.value(l).len(), l as u64)).collect();
    let seeds: Vec<(usize, &[f32])> = layers.iter().zip(&seeds).map(|(&l, seed)| (l, &seed[..])).collect();
    fn step(net: &mut impl Passes, input: &[f32], seeds: &[(usize, &[f32])]) {
        net.net().input().copy_from_slice(input);
        net.forward(Mode::Train);
        net.backward(seeds.iter().copied());
    }
    // Twice, since gradients add up and statistics follow.
    for _ in 0..2 {
        step(&mut ours, &input, &seeds);
        step(&mut theirs, &input, &seeds);
    }
    for &layer in &layers {
        close(theirs.net().value(layer), ours.value(layer), &ours.graph.layers[layer].name);
    }
    let gradients = ours.params.trainable().into_iter().map(|t| (t.name, t.param.gradient.clone())).collect::<Vec<_>>();
    for ((name, ours), theirs) in gradients.iter().zip(theirs.net().params.trainable()) {
        assert!(ours.iter().any(|g| *g != 0.0), "{name} has no gradient");
        close(&theirs.param.gradient, ours, name);
    }
    let mut params = ours.params.clone();
    for ((name, ours), theirs) in params.state().into_iter().zip(theirs.net().params.state().into_values()) {
        close(theirs, ours, &name);
    }
    ours.forward(Mode::Evaluate).unwrap();
    theirs.forward(Mode::Evaluate);
    layers.iter().for_each(|&l| close(theirs.net().value(l), ours.value(l), "evaluated"));
}

#[test]
fn every_operation_trains_as_by_candle() {
    let conv =
        |kernel, stride, depthwise, activation| Conv { kernel, stride, depthwise, activation, padding: Padding::Same };
    // Odd and even sizes, windows with and without padding, an input used twice, and a layer used
    // twice.
    let mut graph = Graph::new(Shape::new(3, 13, 14));
    let a = graph.conv("a", 0, 6, conv(5, 2, false, Activation::Relu6));
    let b = graph.conv("b", a, 0, conv(3, 1, true, Activation::Identity));
    let c = graph.conv("c", b, 0, conv(5, 2, true, Activation::Relu));
    let pooled = graph.max_pool("pooled", b, Window::same(3, 2));
    let both = graph.concat("both", &[c, pooled]);
    let d = graph.conv("d", both, 4, conv(1, 1, false, Activation::Identity));
    let up = graph.upsample2x("up", d, Interpolation::Nearest);
    let twice = graph.add("twice", up, up);
    let out = graph.conv("out", twice, 5, conv(4, 2, false, Activation::Identity));
    graph.outputs.extend([out, d]);
    let params = NetParams::random(&graph, 5);
    let net = |frozen: &str| {
        let mut params = params.clone();
        params.convs.iter_mut().filter(|c| c.name == frozen).for_each(|c| c.frozen = true);
        TrainNet::new(graph.clone(), params, 3)
    };
    for frozen in ["", "a", "c"] {
        // Batch-norm after batch-norm leaves gradients that are small differences of large sums.
        assert_same_by_candle(net(frozen), &[b], 1e-3);
    }
}

#[test]
fn the_student_trains_as_by_candle() {
    let student = Student::load(&peregrine_support::lite()).unwrap();
    let graph = student.manifest.architecture.graph(64, 64);
    let inner = graph.layers.iter().position(|l| l.name == "neck.8.add").unwrap();
    let mut params = NetParams::random(&graph, 5);
    params.adopt(&student.weights);
    assert_same_by_candle(TrainNet::new(graph, params, 2), &[inner], 1e-4);
}

/// The operations that imported networks have besides, with and without batch-norm, smooth where
/// finite differences could step over a kink.
fn imported_graph() -> (Graph, NetParams) {
    let conv =
        |kernel, stride, depthwise, activation| Conv { kernel, stride, depthwise, activation, padding: Padding::Even };
    let mut g = Graph::new(Shape::new(3, 7, 9));
    let a = g.conv("a", 0, 6, conv(3, 2, false, Activation::Silu));
    let b = g.conv("b", a, 0, conv(3, 1, true, Activation::Hardswish));
    let mean = g.average_pool("mean", b, Window::even(3, 1));
    let shuffled = g.shuffle("shuffled", mean, 2);
    let part = g.slice("part", shuffled, 1..4);
    let other = g.slice("other", b, 3..6);
    let both = g.concat("both", &[part, other]);
    let whole = g.global_average("whole", both);
    let gate = g.conv("gate", whole, 6, conv(1, 1, false, Activation::Sigmoid));
    let scaled = g.scale("scaled", both, gate);
    let alone = g.activate("alone", scaled, Activation::Silu);
    let up = g.upsample2x("up", alone, Interpolation::Bilinear);
    let leaky = g.conv("leaky", up, 4, conv(6, 2, false, Activation::LeakyRelu));
    let hard = g.conv("hard", leaky, 4, conv(2, 2, false, Activation::Hardsigmoid));
    let pooled = g.max_pool("pooled", hard, Window::even(1, 2));
    let out = g.conv("out", pooled, 2, conv(1, 1, false, Activation::Identity));
    g.outputs.push(out);
    let mut params = NetParams::random(&g, 5);
    for conv in &mut params.convs {
        if ["gate", "b", "hard"].contains(&&conv.name[..]) {
            conv.norm = None;
        }
        if conv.name == "leaky" {
            // Away from the kink.
            conv.bias.value.fill(4.0);
        }
        if conv.name == "out" {
            conv.weight.value.copy_from_slice(&check::values(8, 9));
        }
        // In the middle of the hard gate.
        if conv.name == "hard" {
            conv.weight.value.iter_mut().for_each(|w| *w *= 0.1);
        }
    }
    (g, params)
}

#[test]
fn imported_operations_gradients_agree_with_finite_differences() {
    let (graph, params) = imported_graph();
    let out = graph.outputs[0];
    let input = check::values(2 * graph.input_shape().len(), 6);
    let run = |params: &NetParams| {
        let mut net = TrainNet::new(graph.clone(), params.clone(), 2);
        net.input().copy_from_slice(&input);
        net.forward(Mode::Train).unwrap();
        net
    };
    let mut net = run(&params);
    let probe = check::values(net.value(out).len(), 7);
    net.backward([(out, &probe[..])]).unwrap();
    for (i, trainable) in net.params.trainable().into_iter().enumerate() {
        println!("{}", trainable.name);
        let mut moved = params.clone();
        let at = moved.trainable()[i].param.value.clone();
        check::gradient(&at, &trainable.param.gradient, |x| {
            moved.trainable()[i].param.value.copy_from_slice(x);
            check::dot(run(&moved).value(out), &probe)
        });
    }
}

#[test]
fn imported_operations_train_as_by_candle() {
    let (graph, params) = imported_graph();
    assert_same_by_candle(TrainNet::new(graph, params, 3), &[5], 1e-3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn any_network_evaluates_as_the_reference(graph in any_graph(), seed: u64) {
        let (weights, input) = (random_weights(&graph, seed), random_input(&graph, seed));
        let expected = reference_outputs(&graph, &weights, &input);
        let mut params = NetParams::random(&graph, 0);
        params.adopt(&weights);
        let mut net = TrainNet::new(graph.clone(), params, 1);
        net.input().copy_from_slice(&input);
        net.forward(Mode::Evaluate).unwrap();
        let found: Vec<Vec<f32>> = graph.outputs.iter().map(|&id| net.value(id).to_vec()).collect();
        let error = relative_error(&expected, &found);
        prop_assert!(error < 1e-4, "{error}");
    }
}
