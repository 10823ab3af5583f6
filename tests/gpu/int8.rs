//! Quantized networks on the emulated device: what is integer there is what the CPU's integer
//! engine computes, bit by bit.

use std::path::PathBuf;
use std::sync::Arc;

use half::f16;
use peregrine_core::{Detection, ImageView};
use peregrine_distill::quantize::quantize;
use peregrine_engine::cpu::int8::reference::IntegerReference;
use peregrine_engine::cpu::int8::Int8Engine;
use peregrine_engine::cuda::kernels::Element;
use peregrine_engine::cuda::network::Network;
use peregrine_engine::cuda::{CudaEngine, Driver, Model, Wait};
use peregrine_engine::{Graph, Quantization, Weights};
use peregrine_pipeline::{Pipeline, PipelineOptions};
use peregrine_reference::cuda::Emulated;
use peregrine_reference::graphs::{any_graph, student_graph};
use peregrine_reference::{outputs, random_input, random_quantization, random_weights, relative_error};
use peregrine_student::architecture::Architecture;
use peregrine_student::Student;
use proptest::prelude::*;

/// Runs `graph` with the variants that `choose` picks, by its number, among those of each step.
fn run(
    driver: &Arc<dyn Driver>,
    graph: &Graph,
    (weights, quantization): (&Weights, &Quantization),
    input: &[f32],
    choose: usize,
) -> Vec<Vec<f32>> {
    let network = Network::quantized(graph, quantization).unwrap();
    let pick = |s: usize| {
        let variants = network.variants(s);
        variants[(choose + 7 * s) % variants.len()]
    };
    let variants = (0..network.layout.plan.steps.len()).map(pick).collect();
    let model = Arc::new(Model::with_variants(driver, network, weights, variants).unwrap());
    outputs(graph, &mut CudaEngine::new(&model, Wait::Block).unwrap(), input)
}

fn last(graph: &Graph) -> usize {
    graph.layers.len() - 1
}

/// As what leaves the device's network does.
fn in_half_precision(mut outputs: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    outputs.iter_mut().flatten().for_each(|v| *v = f16::from_f32(*v).to_f32());
    outputs
}

#[test]
fn any_quantized_network_matches_the_integer_reference() {
    for scalar in [false, true] {
        let Some(driver) = Emulated::driver(scalar, false) else { return };
        let cases =
            ProptestConfig { cases: 30, max_shrink_iters: 100, max_global_rejects: 30, ..ProptestConfig::default() };
        proptest!(cases, |(graph in prop_oneof![student_graph(), any_graph()], seed: u64, choose in 0usize..100)| {
            // An input that leaves the network again is made in half precision first, and rounded
            // twice.
            let graph = Graph { outputs: graph.outputs.iter().map(|&id| if id == 0 { last(&graph) } else { id }).collect(), ..graph };
            prop_assume!(last(&graph) != 0);
            let (weights, quantization) = (random_weights(&graph, seed), random_quantization(&graph, seed, 0.0));
            let input = random_input(&graph, seed);
            let reference = &mut IntegerReference::new(&graph, &weights, &quantization).unwrap();
            let found = run(&driver, &graph, (&weights, &quantization), &input, choose);
            prop_assert!(in_half_precision(outputs(&graph, reference, &input)) == found);
        });
    }
}

#[test]
fn the_students_integers_are_the_cpu_engines() {
    let graph = Architecture::default_student().graph(96, 64);
    let (weights, quantization) = (random_weights(&graph, 1), random_quantization(&graph, 2, 0.0));
    let input = random_input(&graph, 3);
    let engine = &mut Int8Engine::new(&graph, &weights, &quantization, 1).unwrap();
    let expected = in_half_precision(outputs(&graph, engine, &input));
    for (scalar, integrated) in [(false, false), (true, true)] {
        let Some(driver) = Emulated::driver(scalar, integrated) else { return };
        assert!(expected == run(&driver, &graph, (&weights, &quantization), &input, 3));
    }
}

#[test]
fn half_precision_layers_differ_by_about_one_rounding() {
    let Some(driver) = Emulated::driver(false, false) else { return };
    let graph = Architecture::default_student().graph(64, 64);
    for (seed, float) in [(2, 0.4), (3, 0.2), (4, 0.8)] {
        let (weights, quantization) = (random_weights(&graph, 1), random_quantization(&graph, seed, float));
        let input = random_input(&graph, 3);
        let reference = &mut IntegerReference::new(&graph, &weights, &quantization).unwrap();
        let found = run(&driver, &graph, (&weights, &quantization), &input, 1);
        let expected = outputs(&graph, reference, &input);
        // A half may round to the next byte, here and there.
        let (most, mean) = (relative_error(&expected, &found), mean_error(&expected, &found));
        assert!(most < 0.08 && mean < 0.01, "{most}, {mean} with {float} of the layers in half precision");
    }
}

/// The mean difference of any output, relative to the largest value that it should hold.
fn mean_error(expected: &[Vec<f32>], found: &[Vec<f32>]) -> f32 {
    let of = |(expected, found): (&Vec<f32>, &Vec<f32>)| {
        let largest = expected.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
        expected.iter().zip(found).map(|(a, b)| (a - b).abs()).sum::<f32>() / expected.len() as f32 / largest
    };
    expected.iter().zip(found).map(of).fold(0.0, f32::max)
}

#[test]
fn each_tensor_converts_once_to_what_its_readers_need() {
    let graph = Architecture::default_student().graph(64, 64);
    let all = Network::quantized(&graph, &random_quantization(&graph, 2, 0.0)).unwrap();
    let conversions = |network: &Network| {
        let is_conversion = |name: &str| name.ends_with(" to int8") || name.ends_with(" to f16");
        network.layout.plan.steps.iter().filter(|step| is_conversion(&step.name)).count()
    };
    assert_eq!(conversions(&all), 0, "all is integer, and what leaves does so as real values");
    assert_eq!(all.view(0).element, Element::I8);

    let mixed = Network::quantized(&graph, &random_quantization(&graph, 2, 0.4)).unwrap();
    assert!(conversions(&mixed) > 0);
    for step in &mixed.layout.plan.steps {
        let elements: Vec<_> = step.inputs.iter().map(|&t| mixed.view(t).element).collect();
        assert!(elements.windows(2).all(|pair| pair[0] == pair[1]), "{} reads {elements:?}", step.name);
    }
    assert!(mixed.layout.plan.outputs.iter().all(|&t| mixed.view(t).element == Element::F16));
}

/// The embedded student in 8 bits, calibrated on the shipped frames.
fn quantized() -> Student {
    let frames = ["models/frames/highway-00.jpg", "models/frames/highway-12.jpg"].map(PathBuf::from);
    quantize(&Student::embedded(), &frames).unwrap()
}

#[test]
fn a_frame_through_a_quantized_student_matches_the_cpu() {
    let Some(driver) = Emulated::driver(false, false) else { return };
    let student = quantized();
    let options = PipelineOptions { score_threshold: 0.1, input_size: Some((160, 128)), ..PipelineOptions::default() };
    let mut on_device = Pipeline::on_cuda(&driver, &student, &options, false).unwrap();
    let mut on_cpu = Pipeline::new(&student, options).unwrap();
    let photo = image::open("models/frames/highway-00.jpg").unwrap();
    for (width, height) in [(321, 180), (640, 360)] {
        let rgb = photo.resize_exact(width, height, image::imageops::FilterType::Triangle).to_rgb8();
        let image = ImageView::new("rgb8", width, height, 3 * width, &rgb).unwrap();
        let (found, expected) = (on_device.process(&image).unwrap(), on_cpu.process(&image).unwrap());
        assert!(!expected.detections.is_empty());
        assert_eq!(found.detections.len(), expected.detections.len());
        // The heads' results are rounded to half precision, which may change the order of scores
        // that nearly tie; all before them is the same.
        let mut rest = found.detections.clone();
        for e in &expected.detections {
            let is_it =
                |f: &Detection| f.class == e.class && (f.score - e.score).abs() < 2e-3 && f.bbox.iou(&e.bbox) > 0.99;
            let Some(i) = rest.iter().position(is_it) else { panic!("{e:?} is not among {rest:?}") };
            rest.remove(i);
        }
        assert!(found.detections.is_sorted_by(|a, b| a.score >= b.score));
        let same = expected.mask.classes.iter().zip(&found.mask.classes).filter(|(a, b)| a == b).count();
        assert!(same * 1000 >= expected.mask.classes.len() * 995, "{same} of {}", expected.mask.classes.len());
    }
}
