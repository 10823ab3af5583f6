//! The CPU engine agrees with the reference, whatever the network, the instruction set and the
//! number of threads.

use peregrine_engine::cpu::{CpuEngine, Isa};
use peregrine_engine::{Activation, Conv, Graph, Padding, Shape};
use peregrine_reference::graphs::any_graph;
use peregrine_reference::{outputs, random_input, random_weights, reference_outputs, relative_error};
use peregrine_student::architecture::Architecture;
use proptest::prelude::*;

#[test]
fn the_default_student_agrees_at_two_input_sizes() {
    for (width, height) in [(320, 256), (96, 160)] {
        let graph = Architecture::default_student().graph(width, height);
        let (weights, input) = (random_weights(&graph, 7), random_input(&graph, 8));
        let expected = reference_outputs(&graph, &weights, &input);
        for isa in Isa::available() {
            let mut engine = CpuEngine::with_isa(&graph, &weights, 1, isa).unwrap();
            let error = relative_error(&expected, &outputs(&graph, &mut engine, &input));
            assert!(error < 1e-4, "{isa:?}: {error}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let graph = Architecture::default_student().graph(160, 128);
    let (weights, input) = (random_weights(&graph, 1), random_input(&graph, 2));
    let of = |threads| outputs(&graph, &mut CpuEngine::new(&graph, &weights, threads).unwrap(), &input);
    let alone = of(1);
    for threads in [2, 3, 5] {
        assert_eq!(alone, of(threads), "{threads} threads");
    }
}

#[test]
fn a_second_run_sees_nothing_of_the_first() {
    let graph = Architecture::default_student().graph(64, 64);
    let weights = random_weights(&graph, 3);
    let mut engine = CpuEngine::new(&graph, &weights, 2).unwrap();
    let (a, b) = (random_input(&graph, 4), random_input(&graph, 5));
    let first = outputs(&graph, &mut engine, &a);
    outputs(&graph, &mut engine, &b);
    assert_eq!(first, outputs(&graph, &mut engine, &a));
}

#[test]
fn non_finite_or_misshapen_weights_are_refused_by_layer() {
    let graph = Architecture::default_student().graph(64, 64);
    let mut weights = random_weights(&graph, 3);
    weights.0.get_mut("neck.16").unwrap().bias[3] = f32::NAN;
    let error = CpuEngine::new(&graph, &weights, 1).err().unwrap().to_string();
    assert!(error.contains("neck.16") && error.contains("not finite"), "{error}");
    weights.0.get_mut("neck.16").unwrap().bias.pop();
    let error = CpuEngine::new(&graph, &weights, 1).err().unwrap().to_string();
    assert!(error.contains("neck.16") && error.contains("expected"), "{error}");
}

prop_compose! {
    /// Two 3×3 convolutions of stride 1, large enough for Winograd, the second with a residual.
    pub fn plain_pair()(
        (from, to) in (16usize..50, 16usize..50),
        (height, width) in (9usize..34, 13usize..40),
        activation in prop_oneof![
            Just(Activation::Identity), Just(Activation::Silu), Just(Activation::LeakyRelu), Just(Activation::Hardswish),
        ],
    ) -> Graph {
        let mut graph = Graph::new(Shape::new(from, height, width));
        let conv = Conv { kernel: 3, stride: 1, depthwise: false, activation, padding: Padding::Same };
        let first = graph.conv("first", 0, to, conv);
        let second = graph.conv("second", first, to, conv);
        let sum = graph.add("sum", first, second);
        graph.outputs.push(sum);
        graph
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn plain_3x3_convolutions_of_any_size_agree(graph in plain_pair(), threads in 1usize..4, seed: u64) {
        let (weights, input) = (random_weights(&graph, seed), random_input(&graph, seed));
        let expected = reference_outputs(&graph, &weights, &input);
        for isa in Isa::available() {
            let mut engine = CpuEngine::with_isa(&graph, &weights, threads, isa).unwrap();
            let error = relative_error(&expected, &outputs(&graph, &mut engine, &input));
            prop_assert!(error < 1e-4, "{isa:?}, {threads} threads: {error}");
            prop_assert!(engine.explain(0).text().contains("Winograd"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_network_on_any_instruction_set(graph in any_graph(), threads in 1usize..4, seed: u64) {
        let (weights, input) = (random_weights(&graph, seed), random_input(&graph, seed));
        let expected = reference_outputs(&graph, &weights, &input);
        for isa in Isa::available() {
            let mut engine = CpuEngine::with_isa(&graph, &weights, threads, isa).unwrap();
            let error = relative_error(&expected, &outputs(&graph, &mut engine, &input));
            prop_assert!(error < 1e-4, "{isa:?}, {threads} threads: {error}\n{}", engine.explain(0).text());
        }
    }
}
