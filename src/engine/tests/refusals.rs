//! Networks, weights and settings that the CPU engine does not support are refused with one error
//! that says which and why.

use peregrine_engine::cpu::{CpuEngine, Isa};
use peregrine_engine::{Activation, Conv, ConvWeights, Graph, Op, Padding, Shape, Weights, Window};

const CONV: Conv =
    Conv { kernel: 3, stride: 1, depthwise: false, activation: Activation::Relu6, padding: Padding::Same };

/// Two convolutions, and weights that fit.
fn sound() -> (Graph, Weights) {
    let mut graph = Graph::new(Shape::new(3, 8, 8));
    let a = graph.conv("first", 0, 8, CONV);
    let b = graph.conv("second", a, 8, CONV);
    graph.outputs.push(b);
    let of = |from: usize| ConvWeights { weight: vec![0.1; 8 * from * 9], bias: vec![0.0; 8] };
    (graph, Weights([("first".to_string(), of(3)), ("second".to_string(), of(8))].into()))
}

fn refusal(graph: &Graph, weights: &Weights) -> String {
    CpuEngine::new(graph, weights, 1).err().expect("must be refused").to_string()
}

#[test]
fn missing_weights_are_refused_by_layer() {
    let (graph, mut weights) = sound();
    weights.0.remove("second");
    assert_eq!(refusal(&graph, &weights), "layer second is missing");
}

#[test]
fn shapes_that_do_not_follow_from_the_inputs_are_refused() {
    let (mut graph, weights) = sound();
    graph.layers[1].shape.height = 5;
    let error = refusal(&graph, &weights);
    assert!(error.contains("first") && error.contains("8x8x8") && error.contains("8x5x8"), "{error}");
}

#[test]
fn an_operand_that_comes_later_is_refused() {
    let (mut graph, weights) = sound();
    graph.layers[1].inputs = vec![2];
    let error = refusal(&graph, &weights);
    assert!(error.contains("first") && error.contains("before"), "{error}");
}

#[test]
fn an_unknown_output_is_refused() {
    let (mut graph, weights) = sound();
    graph.outputs = vec![7];
    assert!(refusal(&graph, &weights).contains("output"), "{}", refusal(&graph, &weights));
}

#[test]
fn a_stride_of_zero_is_refused() {
    let (mut graph, weights) = sound();
    graph.layers[1].op = Op::Conv(Conv { stride: 0, ..CONV });
    let error = refusal(&graph, &weights);
    assert!(error.contains("first") && error.contains("stride"), "{error}");
}

#[test]
fn factors_that_are_not_one_pixel_are_refused() {
    let (mut graph, weights) = sound();
    let mean = graph.global_average("mean", 2);
    let scaled = graph.scale("scaled", 2, mean);
    graph.layers[scaled].inputs = vec![2, 1];
    let error = refusal(&graph, &weights);
    assert!(error.contains("scaled") && error.contains("by 8x8x8") && error.contains("one pixel"), "{error}");
}

#[test]
fn a_kernel_larger_than_its_padded_input_is_refused() {
    let (mut graph, weights) = sound();
    let mean = graph.global_average("mean", 2);
    let pool = graph.max_pool("pool", mean, Window::even(3, 1));
    graph.layers[pool].op = Op::MaxPool(Window::even(4, 1));
    let error = refusal(&graph, &weights);
    assert!(error.contains("pool") && error.contains("kernel of 4") && error.contains("8x1x1"), "{error}");
}

#[test]
fn pinning_to_a_cpu_that_does_not_exist_is_refused() {
    let (graph, weights) = sound();
    let engine = CpuEngine::new(&graph, &weights, 2).unwrap();
    assert!(engine.pin(&[]).is_err());
    assert!(engine.pin(&[1_000_000]).unwrap_err().to_string().contains("1000000"));
}

#[test]
fn a_processor_without_vectors_is_told_so() {
    assert!(Isa::Portable.advice().unwrap().contains("portable"));
    assert_eq!(Isa::Avx2.advice(), None);
}

#[test]
fn a_small_network_with_maps_of_gigabytes_is_refused() {
    let mut graph = Graph::new(Shape::new(3, 4096, 4096));
    let wide = graph.conv("wide", 0, 64, CONV);
    let narrow = graph.conv("narrow", wide, 1, CONV);
    graph.outputs.push(narrow);
    let of = |from: usize, to: usize| ConvWeights { weight: vec![0.1; 9 * from * to], bias: vec![0.0; to] };
    let weights = Weights([("wide".to_string(), of(3, 64)), ("narrow".to_string(), of(64, 1))].into());
    let error = refusal(&graph, &weights);
    assert!(error.contains("MiB, and at most 1024 are given; choose a smaller input size"), "{error}");
}
