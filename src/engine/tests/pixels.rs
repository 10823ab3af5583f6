//! An input given pixel by pixel is the same input: to the bit, whatever the engine, and whatever
//! was given before.

use peregrine_engine::cpu::int8::{Int8Engine, IntegerIsa};
use peregrine_engine::cpu::{CpuEngine, Isa};
use peregrine_engine::{Engine, Graph, Shape};
use peregrine_reference::{outputs, random_input, random_quantization, random_weights};
use peregrine_student::architecture::Architecture;

fn outputs_by_pixels(graph: &Graph, engine: &mut dyn Engine, input: &[f32]) -> Vec<Vec<f32>> {
    let Shape { height, width, .. } = graph.input_shape();
    let pixel = |y: usize, x: usize| {
        let value = |c: usize| input[(c * height + y) * width + x];
        [value(0), value(1), value(2), 0.0]
    };
    let pixels = engine.pixels().expect("an image that one dense convolution reads");
    for y in 0..height {
        // In two pieces, the second one first.
        for columns in [width / 3..width, 0..width / 3] {
            let row: Vec<_> = columns.clone().map(|x| pixel(y, x)).collect();
            pixels.store(y, columns.start, &row);
        }
    }
    engine.run().unwrap();
    (0..graph.outputs.len()).map(|i| engine.output(i).to_vec()).collect()
}

fn check(graph: &Graph, engine: &mut dyn Engine, what: &str) {
    let (first, second) = (random_input(graph, 3), random_input(graph, 4));
    let expected = [&first, &second].map(|input| outputs(graph, engine, input));
    assert_eq!(expected[0], outputs_by_pixels(graph, engine, &first), "{what}, after planes");
    assert_eq!(expected[1], outputs_by_pixels(graph, engine, &second), "{what}, after pixels");
    assert_eq!(expected[0], outputs(graph, engine, &first), "{what}, planes after pixels");
}

#[test]
fn floats_take_pixels_as_they_take_planes() {
    // The second is large enough for chains.
    for ((width, height), isas) in [((64, 96), Isa::available()), ((320, 256), vec![Isa::best()])] {
        let graph = Architecture::default_student().graph(width, height);
        let weights = random_weights(&graph, 1);
        for isa in isas {
            for threads in [1, 3] {
                let mut engine = CpuEngine::with_isa(&graph, &weights, threads, isa).unwrap();
                check(&graph, &mut engine, &format!("{isa:?}, {threads} threads"));
            }
        }
    }
}

#[test]
fn integers_take_pixels_as_they_take_planes() {
    let graph = Architecture::default_student().graph(64, 96);
    let (weights, quantization) = (random_weights(&graph, 1), random_quantization(&graph, 2, 0.0));
    for isa in IntegerIsa::available() {
        for threads in [1, 3] {
            let mut engine = Int8Engine::with_isa(&graph, &weights, &quantization, threads, isa).unwrap();
            check(&graph, &mut engine, &format!("{isa:?}, {threads} threads"));
        }
    }
}

#[test]
fn an_input_that_other_steps_read_is_taken_as_planes_alone() {
    let mut graph = Graph::new(Shape::new(3, 32, 32));
    let sum = graph.add("sum", 0, 0);
    graph.outputs.push(sum);
    let mut engine = CpuEngine::new(&graph, &random_weights(&graph, 1), 1).unwrap();
    assert!(engine.pixels().is_none());
}

#[test]
#[should_panic(expected = "outside of the input")]
fn pixels_beyond_the_input_are_refused() {
    let graph = Architecture::default_student().graph(64, 64);
    let mut engine = CpuEngine::new(&graph, &random_weights(&graph, 1), 1).unwrap();
    engine.pixels().unwrap().store(63, 60, &[[0.0; 4]; 5]);
}
