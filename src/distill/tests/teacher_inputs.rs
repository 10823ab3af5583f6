//! Teachers as people export them: other inputs, other boxes, and descriptions that do not fit them.

use half::f16;
use image::{Rgb, RgbImage};
use peregrine_core::BoundingBox;
use peregrine_distill::export::messages::{Model, Value};
use peregrine_distill::teacher::{Compute, Judged, OnnxTeacher, Runtime, TeacherDescription};
use prost::Message;
use tempfile::TempDir;

use crate::runtime::onnx_runtime;
use crate::teacher_support::constant;

const FLOAT16: i32 = 10;
const UINT8: i32 = 2;

fn teacher(runtime: &Runtime, network: &[u8], more: &str) -> anyhow::Result<OnnxTeacher> {
    let dir = TempDir::new().unwrap();
    let (toml, onnx) = (dir.path().join("t.toml"), dir.path().join("t.onnx"));
    let text = format!(
        "name='t'\ninput='x'\nlayout='nchw'\ncolours='rgb'\nmean=[0.0,0.0,0.0]\n{more}\n[classes]\ncar=[1]\nbus=[0]\n"
    );
    std::fs::write(&toml, text).unwrap();
    std::fs::write(&onnx, network).unwrap();
    OnnxTeacher::load(
        runtime,
        &onnx,
        TeacherDescription::read(&toml)?,
        &["car".to_owned(), "bus".to_owned()],
        Compute::cpu(1),
    )
}

const SQUARE: &str = "size=64\nstd=[1.0,1.0,1.0]\noutputs=['y']";

fn square(dims: &[usize], values: Vec<f32>) -> Vec<u8> {
    constant(("x", [1, 3, 64, 64]), &[("y", dims, values)])
}

/// 128 × 64 pixels: letterboxed into 64 × 64 it is halved, with 16 rows above and below.
fn image() -> RgbImage {
    RgbImage::from_pixel(128, 64, Rgb([10, 20, 30]))
}

/// Class, score and box of what the teacher is judged by.
fn judged(teacher: &mut OnnxTeacher) -> Vec<(usize, f32, BoundingBox)> {
    let Judged::Boxes(found) = teacher.judge(&image(), 0.001).unwrap() else { panic!("a detector") };
    found.iter().map(|d| (d.class, d.score, d.bbox)).collect()
}

/// `count` candidates in rows; those that are not given are small boxes without a score.
fn rows(count: usize, given: &[[f32; 6]]) -> Vec<f32> {
    let nothing = [60.0, 40.0, 2.0, 2.0, 0.0, 0.0];
    (0..count).flat_map(|i| given.get(i).copied().unwrap_or(nothing)).collect()
}

/// The network with inputs of another type, and outputs in half precision if they are to be.
fn retyped(network: &[u8], input: i32, half_outputs: bool) -> Vec<u8> {
    let mut model = Model::decode(network).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let set = |values: &mut Vec<Value>, to: i32| {
        for tensor in values.iter_mut().filter_map(|v| v.r#type.as_mut()?.tensor_type.as_mut()) {
            tensor.elem_type = to;
        }
    };
    set(&mut graph.input, input);
    if half_outputs {
        set(&mut graph.output, FLOAT16);
        for tensor in &mut graph.initializer {
            let bytes = tensor.raw_data.take().unwrap();
            let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            tensor.raw_data = Some(values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect());
            tensor.data_type = FLOAT16;
        }
    }
    model.encode_to_vec()
}

#[test]
fn every_class_of_a_box_from_a_low_score_is_judged() {
    let Some(runtime) = onnx_runtime() else { return };
    let values = rows(60, &[[32.0, 32.0, 16.0, 8.0, 0.3, 0.01], [32.0, 32.0, 16.0, 8.0, 0.0, 0.4]]);
    let mut teacher = teacher(&runtime, &square(&[1, 60, 6], values), &format!("family='yolo'\n{SQUARE}")).unwrap();
    let bbox = BoundingBox::new(48.0, 24.0, 80.0, 40.0);
    assert_eq!(judged(&mut teacher), [(0, 0.4, bbox), (1, 0.3, bbox)]);
    // Soft targets are one for each best class, with the logits of both.
    let soft = teacher.detect(&image()).unwrap();
    assert_eq!(soft.iter().map(|t| t.best().0).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn detections_that_the_network_selects_are_corners_score_and_class() {
    let Some(runtime) = onnx_runtime() else { return };
    let mut values = vec![0.0; 20 * 6];
    values[..12].copy_from_slice(&[24.0, 28.0, 40.0, 36.0, 0.9, 1.0, 10.0, 20.0, 20.0, 30.0, 0.5, 7.0]);
    let mut teacher =
        teacher(&runtime, &square(&[1, 20, 6], values), &format!("family='end_to_end'\n{SQUARE}")).unwrap();
    assert_eq!(judged(&mut teacher), [(0, 0.9, BoundingBox::new(48.0, 24.0, 80.0, 40.0))]);
}

#[test]
fn boxes_may_be_corners_in_fractions_of_the_input() {
    let Some(runtime) = onnx_runtime() else { return };
    let small = [0.9, 0.6, 0.92, 0.62, 0.0, 0.0];
    let mut values = small.repeat(60);
    values[..6].copy_from_slice(&[0.375, 0.4375, 0.625, 0.5625, 0.0, 0.5]);
    let more = format!("family='yolo'\nbox_format='xyxy'\nbox_unit='fractions'\n{SQUARE}");
    let mut teacher = teacher(&runtime, &square(&[1, 60, 6], values), &more).unwrap();
    assert_eq!(judged(&mut teacher), [(0, 0.5, BoundingBox::new(48.0, 24.0, 80.0, 40.0))]);
}

#[test]
fn a_rectangular_input_and_a_fixed_batch_are_fed_as_the_network_has_them() {
    let Some(runtime) = onnx_runtime() else { return };
    // The image fills 64 × 32; the second of the batch would say otherwise.
    let first = rows(60, &[[32.0, 16.0, 16.0, 8.0, 0.0, 0.5]]);
    let values = [first, rows(60, &[[8.0, 8.0, 4.0, 4.0, 0.9, 0.0]])].concat();
    let network = constant(("x", [2, 3, 32, 64]), &[("y", &[2, 60, 6], values)]);
    let more = "family='yolo'\nstd=[1.0,1.0,1.0]\noutputs=['y']\nsize=[64, 32]";
    let mut found = teacher(&runtime, &network, more).unwrap();
    assert_eq!(judged(&mut found), [(0, 0.5, BoundingBox::new(48.0, 24.0, 80.0, 40.0))]);
    let error = teacher(&runtime, &network, &more.replace("[64, 32]", "64")).err().unwrap();
    assert!(format!("{error:#}").contains("size = [64, 32]"), "{error:#}");
}

#[test]
fn inputs_and_outputs_may_be_of_half_precision_and_inputs_of_bytes() {
    let Some(runtime) = onnx_runtime() else { return };
    let network = square(&[1, 60, 6], rows(60, &[[32.0, 32.0, 16.0, 8.0, 0.0, 0.5]]));
    let more = format!("family='yolo'\n{SQUARE}");
    for retyped in [retyped(&network, FLOAT16, true), retyped(&network, UINT8, false)] {
        let mut teacher = teacher(&runtime, &retyped, &more).unwrap();
        assert_eq!(judged(&mut teacher), [(0, 0.5, BoundingBox::new(48.0, 24.0, 80.0, 40.0))]);
    }
    let scaled = more.replace("[1.0,1.0,1.0]", "[255.0,255.0,255.0]");
    let error = format!("{:#}", teacher(&runtime, &retyped(&network, UINT8, false), &scaled).err().unwrap());
    assert!(error.contains("uint8") && error.contains("std = [1.0, 1.0, 1.0]"), "{error}");
}

#[test]
fn a_description_that_cannot_fit_the_values_is_refused_with_the_key_that_mends_it() {
    let Some(runtime) = onnx_runtime() else { return };
    let one = |row: [f32; 6], rest: [f32; 6]| [&row[..], &rest.repeat(59)].concat();
    let nothing = [60.0, 40.0, 2.0, 2.0, 0.0, 0.0];
    let cases: [(&str, Vec<f32>, &str); 9] = [
        ("family='yolo'", one([24.0, 28.0, 40.0, 36.0, 0.35, 1.0], [0.0; 6]), "family = \"end_to_end\""),
        ("family='yolo'", one([32.0, 32.0, 9.0, 9.0, 4.0, -3.0], nothing), "scores = \"sigmoid\""),
        ("family='yolo'\nscores='sigmoid'", one([32.0, 32.0, 9.0, 9.0, 0.9, 0.1], nothing), "scores = \"probability\""),
        (
            "family='yolo'",
            one([0.5, 0.5, 0.1, 0.1, 0.9, 0.1], [0.9, 0.9, 0.1, 0.1, 0.0, 0.0]),
            "box_unit = \"fractions\"",
        ),
        ("family='yolo'\nbox_unit='fractions'", rows(60, &[[32.0, 32.0, 9.0, 9.0, 0.9, 0.1]]), "box_unit = \"pixels\""),
        (
            "family='yolo'",
            one([24.0, 28.0, 40.0, 36.0, 0.9, 0.1], [50.0, 30.0, 52.0, 33.0, 0.01, 0.0]),
            "box_format = \"xyxy\"",
        ),
        ("family='yolo'\nbox_format='xyxy'", rows(60, &[[32.0, 32.0, 9.0, 9.0, 0.9, 0.1]]), "box_format = \"cxcywh\""),
        ("family='end_to_end'", one([24.0, 28.0, 40.0, 36.0, 0.9, 0.3], [0.0; 6]), "class number"),
        ("family='yolo'", one([32.0, 32.0, 9.0, 9.0, f32::NAN, 0.1], nothing), "NaN"),
    ];
    for (family, values, remedy) in cases {
        let network = square(&[1, 60, 6], values);
        let mut teacher = teacher(&runtime, &network, &format!("{family}\n{SQUARE}")).unwrap();
        let error = format!("{:#}", teacher.judge(&image(), 0.001).unwrap_err());
        assert!(error.contains(remedy) && error.contains("\"y\"") && error.contains("t.onnx"), "{family}: {error}");
        assert!(teacher.predict(&image()).is_err(), "{family}");
    }
}
