//! The integer engine matches the integer reference bit by bit, whatever the network, the
//! instruction set and the number of threads.

use peregrine_engine::cpu::int8::reference::IntegerReference;
use peregrine_engine::cpu::int8::{Int8Engine, IntegerIsa};
use peregrine_engine::{Graph, Quantization, Weights};
use peregrine_reference::graphs::{any_graph, student_graph};
use peregrine_reference::random::cases;
use peregrine_reference::{outputs, random_input, random_quantization, random_weights, relative_error};
use peregrine_student::architecture::Architecture;
use proptest::prelude::*;

fn expected(graph: &Graph, weights: &Weights, quantization: &Quantization, input: &[f32]) -> Vec<Vec<f32>> {
    outputs(graph, &mut IntegerReference::new(graph, weights, quantization).unwrap(), input)
}

#[test]
fn the_student_matches_the_reference_on_each_instruction_set() {
    let graph = Architecture::default_student().graph(96, 64);
    let (weights, quantization) = (random_weights(&graph, 1), random_quantization(&graph, 2, 0.0));
    let input = random_input(&graph, 3);
    let expected = expected(&graph, &weights, &quantization, &input);
    for isa in IntegerIsa::available() {
        for threads in [1, 3] {
            let mut engine = Int8Engine::with_isa(&graph, &weights, &quantization, threads, isa).unwrap();
            for _ in 0..2 {
                assert_eq!(expected, outputs(&graph, &mut engine, &input), "{isa:?}, {threads} threads");
            }
        }
    }
}

#[test]
fn layers_that_stay_f32_change_little_more_than_a_rounding() {
    let graph = Architecture::default_student().graph(64, 64);
    let (weights, quantization) = (random_weights(&graph, 1), random_quantization(&graph, 2, 0.4));
    let input = random_input(&graph, 3);
    let expected = expected(&graph, &weights, &quantization, &input);
    for isa in IntegerIsa::available() {
        let mut engine = Int8Engine::with_isa(&graph, &weights, &quantization, 2, isa).unwrap();
        let error = relative_error(&expected, &outputs(&graph, &mut engine, &input));
        // A sum in another order may round to the next byte.
        assert!(error < 0.02, "{isa:?}: {error}");
    }
}

#[test]
fn a_network_kept_f32_is_the_f32_engine() {
    let graph = Architecture::default_student().graph(64, 64);
    let (weights, input) = (random_weights(&graph, 1), random_input(&graph, 3));
    let f32_engine = &mut peregrine_engine::cpu::CpuEngine::new(&graph, &weights, 1).unwrap();
    let mut engine = Int8Engine::new(&graph, &weights, &Quantization::default(), 2).unwrap();
    let error = relative_error(&outputs(&graph, f32_engine, &input), &outputs(&graph, &mut engine, &input));
    assert!(error < 1e-6, "{error}");
}

#[test]
fn a_missing_scale_and_a_forbidden_weight_are_refused_by_layer() {
    let graph = Architecture::default_student().graph(64, 64);
    let (weights, good) = (random_weights(&graph, 1), random_quantization(&graph, 2, 0.0));
    let error = |q: &Quantization| Int8Engine::new(&graph, &weights, q, 1).err().unwrap().to_string();

    let mut bad = good.clone();
    bad.tensors.remove("backbone.1.0.depthwise");
    assert!(error(&bad).contains("backbone.1.0.depthwise"), "{}", error(&bad));
    let mut bad = good.clone();
    bad.convs.get_mut("neck.16").unwrap().weight[3] = -128;
    assert!(error(&bad).contains("neck.16") && error(&bad).contains("-128"), "{}", error(&bad));
    let mut bad = good.clone();
    bad.convs.get_mut("neck.16").unwrap().scale.pop();
    assert!(error(&bad).contains("neck.16") && error(&bad).contains("expected"), "{}", error(&bad));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(120), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_network_on_any_instruction_set(
        graph in prop_oneof![student_graph(), any_graph()], threads in 1usize..4, seed: u64,
    ) {
        let (weights, quantization) = (random_weights(&graph, seed), random_quantization(&graph, seed, 0.0));
        let input = random_input(&graph, seed);
        let expected = expected(&graph, &weights, &quantization, &input);
        for isa in IntegerIsa::available() {
            let mut engine = Int8Engine::with_isa(&graph, &weights, &quantization, threads, isa).unwrap();
            let found = outputs(&graph, &mut engine, &input);
            prop_assert!(expected == found, "{isa:?}, {threads} threads\n{}", engine.explain(0).text());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(60), max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn any_network_kept_f32_is_the_f32_engine(graph in any_graph(), threads in 1usize..3, seed: u64) {
        let (weights, input) = (random_weights(&graph, seed), random_input(&graph, seed));
        let f32_engine = &mut peregrine_engine::cpu::CpuEngine::new(&graph, &weights, 1).unwrap();
        let expected = outputs(&graph, f32_engine, &input);
        let mut engine = Int8Engine::new(&graph, &weights, &Quantization::default(), threads).unwrap();
        let error = relative_error(&expected, &outputs(&graph, &mut engine, &input));
        prop_assert!(error < 1e-4, "{error}");
    }
}
