//! The integer engine matches the integer reference bit by bit, whatever the network, the
//! instruction set and the number of threads.

use peregrine_engine::cpu::int8::reference::IntegerReference;
use peregrine_engine::cpu::int8::{Int8Engine, IntegerIsa};
use peregrine_engine::{Activation, Conv, Graph, Padding, Quantization, Shape, Weights};
use peregrine_reference::graphs::{any_graph, student_graph};
use peregrine_reference::random::cases;
use peregrine_reference::{outputs, random_input, random_quantization, random_weights, relative_error};
use peregrine_student::architecture::Architecture;
use proptest::prelude::*;

use crate::agreement::plain_pair;

fn expected(graph: &Graph, weights: &Weights, quantization: &Quantization, input: &[f32]) -> Vec<Vec<f32>> {
    outputs(graph, &mut IntegerReference::new(graph, weights, quantization).unwrap(), input)
}

/// A 3×3 convolution named `plain` on a square map, and a head.
fn plain_and_head(from: usize, to: usize, side: usize) -> Graph {
    let mut graph = Graph::new(Shape::new(from, side, side));
    let conv = Conv { kernel: 3, stride: 1, depthwise: false, activation: Activation::Relu, padding: Padding::Same };
    let plain = graph.conv("plain", 0, to, conv);
    let head = graph.conv("head", plain, 8, Conv { kernel: 1, ..conv });
    graph.outputs.push(head);
    graph
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

/// The largest weights whose sums Winograd's transforms give back, and larger ones, on inputs that make them large.
#[test]
fn sums_as_large_as_they_get_are_exact() {
    let graph = plain_and_head(128, 16, 16);
    let weights = random_weights(&graph, 1);
    for (largest, by_winograd) in [(114, true), (127, false)] {
        let mut quantization = random_quantization(&graph, 2, 0.0);
        let scale = |layer: &str| quantization.tensors[layer].scale;
        // Of 1,152 products of the largest byte and weight, 200 in the result.
        let to_200 = 200.0 / (1152.0 * 255.0 * 127.0) * scale("plain") / scale(&graph.layers[0].name);
        let conv = quantization.convs.get_mut("plain").unwrap();
        let filters = conv.weight.chunks_exact_mut(9 * 128).enumerate();
        filters.for_each(|(o, filter)| filter.fill(if o % 2 == 0 { largest } else { -largest }));
        conv.scale.fill(to_200);
        let input: Vec<f32> = random_input(&graph, 3).iter().map(|v| 1e6 + v).collect();
        let expected = expected(&graph, &weights, &quantization, &input);
        for isa in IntegerIsa::available() {
            let mut engine = Int8Engine::with_isa(&graph, &weights, &quantization, 1, isa).unwrap();
            assert_eq!(expected, outputs(&graph, &mut engine, &input), "{isa:?}");
            if isa == IntegerIsa::Portable {
                assert_eq!(engine.explain(0).text().contains("Winograd"), by_winograd, "{largest}");
            }
        }
    }
}

#[test]
fn eight_bits_are_taken_for_faster_where_they_were_measured_to_be() {
    let separable = Architecture::default_student().graph(96, 64);
    let dense = plain_and_head(32, 32, 24);
    use IntegerIsa::{Avx2, Avx512Vnni, AvxVnni, NeonDot, Portable};
    for (isa, of_separable, of_dense) in [
        (Portable, false, false),
        (Avx2, false, true),
        (AvxVnni, true, true),
        (Avx512Vnni, true, true),
        (NeonDot, false, false),
    ] {
        let found = [&separable, &dense].map(|graph| isa.is_faster_than_f32(graph));
        assert_eq!(found, [of_separable, of_dense], "{isa:?}");
    }
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
    #![proptest_config(ProptestConfig { cases: cases(30), max_shrink_iters: 50, ..ProptestConfig::default() })]

    /// Those large enough for Winograd, whose sums are exact as well; `extreme` makes them as large as they get.
    #[test]
    fn plain_3x3_convolutions_of_any_size_match_bit_by_bit(
        graph in plain_pair(), extreme: bool, threads in 1usize..4, seed: u64,
    ) {
        let (weights, mut quantization) = (random_weights(&graph, seed), random_quantization(&graph, seed, 0.0));
        if extreme {
            let ends = |w: &mut i8| *w = if *w < 0 { -127 } else { 127 };
            quantization.convs.values_mut().for_each(|conv| conv.weight.iter_mut().for_each(ends));
        }
        let input = random_input(&graph, seed);
        let expected = expected(&graph, &weights, &quantization, &input);
        for isa in IntegerIsa::available() {
            let mut engine = Int8Engine::with_isa(&graph, &weights, &quantization, threads, isa).unwrap();
            prop_assert!(expected == outputs(&graph, &mut engine, &input), "{isa:?}, {threads} threads");
        }
    }
}

#[test]
fn the_instruction_sets_without_dot_products_multiply_less_by_winograd() {
    let graph = plain_and_head(64, 64, 24);
    let (weights, quantization) = (random_weights(&graph, 1), random_quantization(&graph, 2, 0.0));
    for isa in IntegerIsa::available() {
        let mut engine = Int8Engine::with_isa(&graph, &weights, &quantization, 1, isa).unwrap();
        let winograd = engine.explain(0).text().contains("Winograd");
        assert_eq!(winograd, matches!(isa, IntegerIsa::Portable | IntegerIsa::Avx2), "{isa:?}");
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
