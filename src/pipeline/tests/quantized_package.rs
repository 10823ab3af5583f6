//! A quantized student on disk: what it holds, that it runs like any other, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use peregrine_core::ImageView;
use peregrine_engine::cpu::int8::{Int8Engine, IntegerIsa};
use peregrine_pipeline::{Pipeline, PipelineOptions};
use peregrine_reference::{outputs, random_input, random_quantization};
use peregrine_student::manifest::QuantizationSection;
use peregrine_student::twin::TWIN_FOLDER;
use peregrine_student::{Precision, Student};

/// The embedded student with a random quantization that leaves some layers f32.
fn quantized() -> Student {
    let mut student = Student::load(&peregrine_support::lite()).unwrap();
    let graph = student.graph();
    let quantization = random_quantization(&graph, 5, 0.1);
    let float_layers = graph.convs().map(|(l, ..)| l.name.clone()).filter(|l| !quantization.convs.contains_key(l));
    student.manifest.quantization = Some(QuantizationSection {
        command: "a test".into(),
        of: None,
        activations: "min-max".into(),
        weights: "max".into(),
        data: [("frames".to_string(), 12)].into(),
        float_layers: float_layers.collect(),
        tensors: quantization.tensors.clone(),
    });
    student.quantization = Some(quantization);
    student
}

fn saved() -> (tempfile::TempDir, Student) {
    let folder = tempfile::tempdir().unwrap();
    let mut student = quantized();
    student.save(folder.path()).unwrap();
    (folder, student)
}

/// Saves `student` as it is, with a good hash.
fn error_of(student: &mut Student) -> String {
    let folder = tempfile::tempdir().unwrap();
    student.save(folder.path()).unwrap();
    error(folder.path())
}

fn error(folder: &Path) -> String {
    Student::load(folder).unwrap_err().to_string()
}

fn edit_manifest(folder: &Path, from: &str, to: &str) {
    let path = folder.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} is not in the manifest");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn a_quantized_package_survives_the_disk_in_half_the_size() {
    let (folder, student) = saved();
    let loaded = Student::load(folder.path()).unwrap();
    assert_eq!(loaded.quantization, student.quantization);
    assert_eq!(loaded.manifest, student.manifest);
    let size = fs::metadata(folder.path().join("weights.safetensors")).unwrap().len();
    assert!(size < 1_300_000, "{size} bytes");
}

#[test]
fn the_pipeline_runs_it_as_the_integer_engine_does() {
    let (folder, _) = saved();
    let student = Student::load(folder.path()).unwrap();
    let graph = student.graph();
    let input = random_input(&graph, 1);
    let quantization = student.quantization.as_ref().unwrap();
    let mut engine = Int8Engine::new(&graph, &student.weights, quantization, 1).unwrap();
    let expected = outputs(&graph, &mut engine, &input);
    assert_eq!(expected, outputs(&graph, student.cpu_engine(&graph, 2, true).unwrap().as_mut(), &input));

    let mut pipeline = Pipeline::new(&student, PipelineOptions::default()).unwrap();
    let pixels = vec![100; 3 * 64 * 48];
    let image = ImageView::new("rgb8", 64, 48, 3 * 64, &pixels).unwrap();
    assert!(pipeline.process(&image).is_ok());
    let small = PipelineOptions { input_size: Some((96, 64)), segmentation: false, ..Default::default() };
    assert!(Pipeline::new(&student, small).unwrap().process(&image).is_ok());
}

#[test]
fn a_student_that_is_not_quantized_keeps_the_first_format() {
    let folder = tempfile::tempdir().unwrap();
    Student::load(&peregrine_support::lite()).unwrap().save(folder.path()).unwrap();
    let manifest = fs::read_to_string(folder.path().join("manifest.json")).unwrap();
    assert!(manifest.contains("\"format_version\": 1") && !manifest.contains("quantization"));
}

#[test]
fn version_and_quantization_must_belong_together() {
    let (folder, _) = saved();
    edit_manifest(folder.path(), "\"format_version\": 2", "\"format_version\": 1");
    assert!(
        error(folder.path()).contains("format_version is 1, but it has a quantization"),
        "{}",
        error(folder.path())
    );
}

#[test]
fn a_layer_that_is_listed_wrongly_is_named() {
    let mut student = quantized();
    let section = student.manifest.quantization.as_mut().unwrap();
    let listed = section.float_layers.remove(0);
    let message = error_of(&mut student);
    assert!(message.contains(&format!("{listed}.weight is F16; I8 is expected")), "{message}");

    let section = student.manifest.quantization.as_mut().unwrap();
    section.float_layers.extend([listed, "neck.99".into()]);
    let message = error_of(&mut student);
    assert!(message.contains("neck.99") && message.contains("weights.safetensors"), "{message}");
}

#[test]
fn scales_that_cannot_be_used_are_refused_by_layer() {
    let mut student = quantized();
    let section = student.manifest.quantization.as_mut().unwrap();
    section.tensors.get_mut("neck.16.add").unwrap().scale = 0.0;
    let message = error_of(&mut student);
    assert!(message.contains("neck.16.add") && message.contains("positive"), "{message}");

    let mut student = quantized();
    student.manifest.quantization.as_mut().unwrap().tensors.remove("input");
    let message = error_of(&mut student);
    assert!(message.contains("input") && message.contains("no tensor scale"), "{message}");

    let mut student = quantized();
    let (layer, conv) = student.quantization.as_mut().unwrap().convs.iter_mut().next().unwrap();
    let layer = layer.clone();
    conv.scale[0] = f32::NAN;
    let message = error_of(&mut student);
    assert!(message.contains(&layer), "{message}");
}

fn take(folder: &Path, precision: Precision, on_cpu: bool) -> Result<bool, String> {
    let taken = Student::in_precision(Some(folder), None, precision, on_cpu);
    taken.map(|student| student.quantization.is_some()).map_err(|e| e.to_string())
}

/// A folder with the embedded student, and its twin.
fn with_twin() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut student = Student::load(&peregrine_support::lite()).unwrap();
    student.save(folder.path()).unwrap();
    let mut twin = quantized();
    twin.manifest.quantization.as_mut().unwrap().of = Some(student.manifest.weights.sha256);
    let twin_folder = folder.path().join(TWIN_FOLDER);
    twin.save(&twin_folder).unwrap();
    (folder, twin_folder)
}

#[test]
fn the_twin_is_taken_on_request_and_where_it_is_faster() {
    let (folder, _) = with_twin();
    let fast = IntegerIsa::best().is_faster_than_f32(&quantized().graph());
    assert_eq!(take(folder.path(), Precision::Auto, true), Ok(fast));
    assert_eq!(take(folder.path(), Precision::Auto, false), Ok(false), "a GPU");
    assert_eq!(take(folder.path(), Precision::F32, true), Ok(false));
    assert_eq!(take(folder.path(), Precision::Int8, false), Ok(true));
}

#[test]
fn a_missing_twin_is_named_with_the_remedy_only_if_it_was_asked_for() {
    let (folder, twin) = with_twin();
    std::fs::remove_dir_all(twin).unwrap();
    assert_eq!(take(folder.path(), Precision::Auto, true), Ok(false));
    let error = take(folder.path(), Precision::Int8, true).unwrap_err();
    assert!(error.contains("distill quantize") && error.contains(folder.path().to_str().unwrap()), "{error}");
}

#[test]
fn the_embedded_student_has_a_twin() {
    for (precision, on_cpu, expected) in [
        (Precision::F32, true, Precision::F32),
        (Precision::Int8, false, Precision::Int8),
        (Precision::Auto, false, Precision::F32),
    ] {
        let taken = Student::in_precision(None, None, precision, on_cpu).unwrap();
        assert_eq!(taken.precision(), expected, "{precision} {on_cpu}");
    }
}

#[test]
fn a_twin_of_other_weights_is_refused_everywhere() {
    let (folder, _) = with_twin();
    let mut trained = Student::load(&peregrine_support::lite()).unwrap();
    trained.weights.0.get_mut("backbone.stem").unwrap().bias[0] += 1.0;
    trained.save(folder.path()).unwrap();
    for on_cpu in [true, false] {
        let error = take(folder.path(), Precision::Auto, on_cpu).unwrap_err();
        assert!(error.contains("int8") && error.contains("not made from the weights beside it"), "{error}");
    }
    assert_eq!(take(folder.path(), Precision::F32, true), Ok(false));
}

#[test]
fn a_package_in_8_bits_is_its_own_twin() {
    let (_folder, twin) = with_twin();
    assert_eq!(take(&twin, Precision::Auto, true), Ok(true));
    assert_eq!(take(&twin, Precision::Int8, true), Ok(true));
    assert!(take(&twin, Precision::F32, true).unwrap_err().contains("8 bits"));
}

#[test]
fn the_names_are_read_as_they_are_shown() {
    for precision in [Precision::Auto, Precision::F32, Precision::Int8] {
        assert_eq!(precision.to_string().parse(), Ok(precision));
    }
    assert!("half".parse::<Precision>().unwrap_err().contains("auto, f32 or int8"));
}
