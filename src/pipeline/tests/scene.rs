//! The scene head through whole frames: on the CPU in floating point and in integers, and on the
//! emulated GPU.

use peregrine_core::allocations::allocations;
use peregrine_core::ImageView;
use peregrine_pipeline::{Pipeline, PipelineOptions};
use peregrine_reference::{random_quantization, random_weights, reference_outputs, rounded};
use peregrine_student::manifest::QuantizationSection;
use peregrine_student::{Student, StudentShape};
use peregrine_vision::decode::scene::softmax;

const WIDTH: usize = 96;
const HEIGHT: usize = 64;

/// Untrained students: of scenes alone, and of all heads.
fn students() -> Vec<Student> {
    let scene = r#""scene": {"weather": ["dry", "rain", "snow"], "light": ["day", "night"]}"#;
    ["", r#", "classes": ["cone", "forklift"], "segmentation": ["floor", "rack"]"#]
        .map(|others| {
            let shape: StudentShape =
                serde_json::from_str(&format!(r#"{{"size": "n", "input": [96, 64], {scene}{others}}}"#)).unwrap();
            let mut student = Student::embedded();
            student.manifest.architecture = shape.architecture(None).unwrap();
            student.weights = rounded(&random_weights(&student.graph(), 3));
            student
        })
        .into()
}

/// The same with a random quantization.
fn quantized(mut student: Student) -> Student {
    let graph = student.graph();
    let quantization = random_quantization(&graph, 5, 0.0);
    student.manifest.quantization = Some(QuantizationSection {
        command: "a test".into(),
        of: None,
        activations: "min-max".into(),
        weights: "max".into(),
        data: [("frames".to_string(), 12)].into(),
        float_layers: Vec::new(),
        tensors: quantization.tensors.clone(),
    });
    student.quantization = Some(quantization);
    student
}

fn pixels() -> Vec<u8> {
    (0..3 * WIDTH * HEIGHT).map(|i| (i * 7919 % 251) as u8).collect()
}

fn view(pixels: &[u8]) -> ImageView<'_> {
    ImageView::new("rgb8", WIDTH as u32, HEIGHT as u32, 3 * WIDTH as u32, pixels).unwrap()
}

/// The probabilities in outputs of a student's graph.
fn probabilities(student: &Student, outputs: &[Vec<f32>]) -> Vec<f32> {
    let of = |index: usize| {
        let mut values = outputs[index].clone();
        softmax(&mut values);
        values
    };
    student.manifest.architecture.scene_outputs().flat_map(of).collect()
}

fn assert_near(expected: &[f32], found: &[f32], tolerance: f32) {
    let near = expected.iter().zip(found).all(|(a, b)| (a - b).abs() < tolerance);
    assert!(expected.len() == 5 && expected.len() == found.len() && near, "{expected:?} {found:?}");
}

#[test]
fn probabilities_are_those_of_the_reference_whatever_the_other_heads() {
    let pixels = pixels();
    for student in students() {
        let input = &student.manifest.architecture.input;
        let at = |c: usize, i: usize| (f32::from(pixels[3 * i + c]) - input.mean[c]) / input.std[c];
        let planes: Vec<f32> = (0..3).flat_map(|c| (0..WIDTH * HEIGHT).map(move |i| at(c, i))).collect();
        let expected = probabilities(&student, &reference_outputs(&student.graph(), &student.weights, &planes));
        for segmentation in [true, false] {
            let options = PipelineOptions { segmentation, ..PipelineOptions::default() };
            let mut pipeline = Pipeline::new(&student, options).unwrap();
            assert_near(&expected, &pipeline.process(&view(&pixels)).unwrap().scene, 1e-4);
            let before = allocations();
            pipeline.process(&view(&pixels)).unwrap();
            assert_eq!(allocations() - before, 0);
        }
    }
}

#[test]
fn a_quantized_package_gives_the_integer_engines_probabilities() {
    let pixels = pixels();
    for student in students().into_iter().map(quantized) {
        let folder = tempfile::tempdir().unwrap();
        student.clone().save(folder.path()).unwrap();
        let loaded = Student::load(folder.path()).unwrap();
        assert_eq!(loaded.quantization, student.quantization);
        let graph = loaded.graph();
        let mut engine = loaded.cpu_engine(&graph, 1, false).unwrap();
        let letterbox = peregrine_vision::preprocess::Letterbox::new((WIDTH, HEIGHT), (WIDTH, HEIGHT));
        let input = &loaded.manifest.architecture.input;
        let normalisation = peregrine_vision::preprocess::Normalisation { mean: input.mean, std: input.std };
        letterbox.apply(&view(&pixels), &normalisation, engine.input());
        engine.run().unwrap();
        let outputs: Vec<Vec<f32>> = (0..graph.outputs.len()).map(|i| engine.output(i).to_vec()).collect();
        let mut pipeline = Pipeline::new(&loaded, PipelineOptions::default()).unwrap();
        let found = pipeline.process(&view(&pixels)).unwrap();
        assert_near(&probabilities(&loaded, &outputs), &found.scene, 1e-5);
    }
}

#[cfg(feature = "cuda")]
#[test]
fn the_emulated_gpu_gives_the_cpus_probabilities() {
    let pixels = pixels();
    for integrated in [false, true] {
        let Some(driver) = peregrine_reference::cuda::Emulated::driver(false, integrated) else { return };
        for student in students().into_iter().flat_map(|student| [student.clone(), quantized(student)]) {
            let options = PipelineOptions::default();
            let mut cpu = Pipeline::new(&student, options.clone()).unwrap();
            let expected = cpu.process(&view(&pixels)).unwrap().clone();
            let mut gpu = Pipeline::on_cuda(&driver, &student, &options, false).unwrap();
            let found = gpu.process(&view(&pixels)).unwrap();
            assert_near(&expected.scene, &found.scene, 0.02);
            assert_eq!((found.mask.width, found.mask.height), (expected.mask.width, expected.mask.height));
        }
    }
}
