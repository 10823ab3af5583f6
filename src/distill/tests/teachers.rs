//! Teachers of every family, as small ONNX networks in a real ONNX Runtime.

use image::RgbImage;
use peregrine_core::BoundingBox;
use peregrine_distill::teacher::{Compute, Judged, OnnxTeacher, Prediction, Runtime, TeacherDescription};
use tempfile::TempDir;

use crate::runtime::onnx_runtime;
use crate::teacher_support::constant;

/// Side of the teachers' input.
const SIDE: usize = 64;
const CLASSES: [&str; 2] = ["car", "bus"];

fn network(outputs: &[(&str, &[usize], Vec<f32>)]) -> Vec<u8> {
    constant(("x", [1, 3, SIDE, SIDE]), outputs)
}

fn teacher(runtime: &Runtime, dir: &TempDir, network: &[u8], more: &str) -> anyhow::Result<OnnxTeacher> {
    let (toml, onnx) = (dir.path().join("t.toml"), dir.path().join("t.onnx"));
    let text = format!(
        "name='t'\ninput='x'\nlayout='nchw'\ncolours='rgb'\nmean=[0.0,0.0,0.0]\nstd=[255.0,255.0,255.0]\n{more}\n\
         [classes]\ncar=[2]\nbus=[0, 1]\n"
    );
    std::fs::write(&toml, text).unwrap();
    std::fs::write(&onnx, network).unwrap();
    OnnxTeacher::load(runtime, &onnx, TeacherDescription::read(&toml)?, &CLASSES.map(str::to_owned), Compute::cpu(1))
}

/// 128 × 64 pixels: letterboxed into 64 × 64 it is halved, with 16 rows above and below.
fn image() -> RgbImage {
    RgbImage::new(128, 64)
}

fn boxes(runtime: &Runtime, network: &[u8], more: &str) -> Vec<(BoundingBox, Vec<f32>)> {
    let dir = TempDir::new().unwrap();
    let found = teacher(runtime, &dir, network, more).unwrap().detect(&image()).unwrap();
    let sigmoid = |v: f32| 1.0 / (1.0 + (-v).exp());
    found.into_iter().map(|b| (b.bbox, b.logits.into_iter().map(sigmoid).collect())).collect()
}

fn near(found: &[f32], expected: &[f32]) -> bool {
    found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4)
}

/// Candidates of 4 + 3 values, one a column; the rest of `count` are nothing.
fn planar(count: usize, candidates: &[[f32; 7]]) -> Vec<f32> {
    let mut values = vec![0.0; 7 * count];
    for (i, candidate) in candidates.iter().enumerate() {
        candidate.iter().enumerate().for_each(|(v, value)| values[v * count + i] = *value);
    }
    values
}

#[test]
fn yolo_s_columns_become_boxes_and_the_best_class_of_a_group_counts() {
    let Some(runtime) = onnx_runtime() else { return };
    // The second is the first again, less sure: one object.
    let values = planar(
        20,
        &[
            [32.0, 32.0, 16.0, 8.0, 0.1, 0.7, 0.2],
            [32.5, 32.0, 16.0, 8.0, 0.0, 0.6, 0.1],
            [10.0, 30.0, 8.0, 8.0, 0.0, 0.0, 0.9],
        ],
    );
    let found = boxes(&runtime, &network(&[("y", &[1, 7, 20], values)]), "family='yolo'\nsize=64\noutputs=['y']");
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].0, BoundingBox::new(12.0, 20.0, 28.0, 36.0));
    assert!(near(&found[0].1, &[0.9, 0.0]), "{found:?}");
    assert_eq!(found[1].0, BoundingBox::new(48.0, 24.0, 80.0, 40.0));
    assert!(near(&found[1].1, &[0.2, 0.7]), "{found:?}");
}

#[test]
fn yolo_s_rows_with_objectness_and_logits_become_boxes() {
    let Some(runtime) = onnx_runtime() else { return };
    let mut values = vec![-20.0; 20 * 8];
    values[..8].copy_from_slice(&[32.0, 32.0, 16.0, 8.0, 0.0, -20.0, -20.0, 20.0]);
    let more = "family='yolo'\nsize=64\noutputs=['y']\nobjectness=true\nscores='sigmoid'";
    let found = boxes(&runtime, &network(&[("y", &[1, 20, 8], values)]), more);
    assert_eq!(found.len(), 1);
    assert!(near(&found[0].1, &[0.5, 0.0]), "{found:?}");
}

#[test]
fn detr_s_last_logit_means_no_object_and_its_boxes_are_fractions() {
    let Some(runtime) = onnx_runtime() else { return };
    // Probabilities 0.1, 0.1, 0.6 and 0.2 of nothing; then a query that is nothing.
    let p = [0.1f32, 0.1, 0.6, 0.2].map(f32::ln);
    let logits = [&p[..], &[0.0, 0.0, 0.0, 9.0]].concat();
    let outputs =
        [("l", &[1usize, 2, 4][..], logits), ("b", &[1, 2, 4], vec![0.5, 0.5, 0.25, 0.125, 0.5, 0.5, 0.1, 0.1])];
    let found = boxes(&runtime, &network(&outputs), "family='detr'\nsize=64\noutputs=['l', 'b']");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, BoundingBox::new(48.0, 24.0, 80.0, 40.0));
    assert!(near(&found[0].1, &[0.6, 0.1]), "{found:?}");
}

#[test]
fn a_stretched_image_s_boxes_are_stretched_back() {
    let Some(runtime) = onnx_runtime() else { return };
    let values = planar(20, &[[32.0, 32.0, 16.0, 8.0, 0.1, 0.7, 0.2]]);
    let more = "family='yolo'\nsize=64\nfit='stretch'\noutputs=['y']";
    let found = boxes(&runtime, &network(&[("y", &[1, 7, 20], values)]), more);
    assert_eq!(found[0].0, BoundingBox::new(48.0, 28.0, 80.0, 36.0));
}

#[test]
fn class_logits_of_a_group_add_up_as_probabilities() {
    let Some(runtime) = onnx_runtime() else { return };
    let dir = TempDir::new().unwrap();
    let network = network(&[("c", &[1, 3], vec![1.0, 2.0, 3.0])]);
    let mut teacher = teacher(&runtime, &dir, &network, "family='class_logits'\nsize=64\noutputs=['c']").unwrap();
    let Prediction::Image(logits) = teacher.predict(&image()).unwrap() else { panic!("a classifier judges images") };
    assert!(near(&logits, &[3.0, (1.0f32.exp() + 2.0f32.exp()).ln()]), "{logits:?}");
    let error = teacher.detect(&image()).unwrap_err().to_string();
    assert!(error.contains("is not a detector"), "{error}");
}

#[test]
fn probabilities_of_a_classifier_become_logits_of_the_same_softmax() {
    let Some(runtime) = onnx_runtime() else { return };
    let dir = TempDir::new().unwrap();
    let network = network(&[("c", &[1, 3], vec![0.2, 0.3, 0.5])]);
    let more = "family='class_logits'\nsize=64\noutputs=['c']\nscores='probability'";
    let mut teacher = teacher(&runtime, &dir, &network, more).unwrap();
    let expected = [0.5f32.ln(), 0.5f32.ln()];
    let Prediction::Image(logits) = teacher.predict(&image()).unwrap() else { panic!("a classifier judges images") };
    assert!(near(&logits, &expected), "{logits:?}");
    let Judged::Image(logits) = teacher.judge(&image(), 0.0).unwrap() else { panic!("it is judged by them too") };
    assert!(near(&logits, &expected), "{logits:?}");
}

#[test]
fn pixel_logits_cover_the_image_without_the_padding() {
    let Some(runtime) = onnx_runtime() else { return };
    let dir = TempDir::new().unwrap();
    // 16 × 16 cells; class 2 in the columns from 8 on, and class 0 in the padding's rows.
    let mut values = vec![0.0; 3 * 256];
    for cell in 0..256 {
        let class = if !(4..12).contains(&(cell / 16)) {
            0
        } else if cell % 16 >= 8 {
            2
        } else {
            1
        };
        values[class * 256 + cell] = 5.0;
    }
    let network = network(&[("p", &[1, 3, 16, 16], values)]);
    let mut teacher = teacher(&runtime, &dir, &network, "family='pixel_logits'\nsize=64\noutputs=['p']").unwrap();
    let Prediction::Pixels(mask) = teacher.predict(&image()).unwrap() else { panic!("a segmenter judges pixels") };
    let (decided, confidence) = mask.decided();
    assert_eq!((decided.width, decided.height), (16, 8));
    assert!(decided.classes.chunks(16).all(|row| row[..8] == [1; 8] && row[8..] == [0; 8]));
    assert!(confidence.iter().all(|&c| c > 0.9));
}

#[test]
fn features_that_a_description_names_are_shown_of_the_cells_that_the_image_covers() {
    let Some(runtime) = onnx_runtime() else { return };
    let dir = TempDir::new().unwrap();
    // 16 × 16 cells: the first channel's value is the row, the second's minus the column.
    let values = (0..512).map(|i| if i < 256 { (i / 16) as f32 } else { -((i % 16) as f32) }).collect();
    let network = network(&[("c", &[1, 3], vec![0.0; 3]), ("inner", &[1, 2, 16, 16], values)]);
    let of =
        |tensor: &str| format!("family='class_logits'\nsize=64\noutputs=['c']\nfeatures={{ 'neck.8.add'='{tensor}' }}");
    let (_, features) = teacher(&runtime, &dir, &network, &of("inner")).unwrap().infer(&image()).unwrap();
    let feature = &features["neck.8.add"];
    assert_eq!((feature.width, feature.height, feature.image), (16, 8, [0.0, 0.0, 16.0, 8.0]));
    for (i, value) in feature.values.iter().enumerate() {
        let expected = if i < 128 { (4 + i / 16) as f32 } else { -((i % 16) as f32) };
        assert_eq!(*value, expected, "{i}");
    }
    let error = teacher(&runtime, &dir, &network, &of("outer")).err().unwrap().to_string();
    assert!(error.contains("\"outer\"") && error.contains("neck.8.add"), "{error}");
    let error = format!("{:#}", teacher(&runtime, &dir, &network, &of("c")).unwrap().infer(&image()).unwrap_err());
    assert!(error.contains("\"c\" is [1, 3]"), "{error}");
}

#[test]
fn outputs_that_do_not_fit_the_description_are_named_with_their_shape() {
    let Some(runtime) = onnx_runtime() else { return };
    let cases: [(&str, &[usize], &str); 5] = [
        ("family='yolo'", &[1, 6, 20], "[1, 6, 20]"),
        ("family='yolo'", &[20, 7], "[20, 7]"),
        ("family='class_logits'", &[1, 2], "[1, 2]"),
        ("family='pixel_logits'", &[1, 2, 4, 4], "[1, 2, 4, 4]"),
        ("family='gfl'\nstrides=[8]", &[1, 7, 3], "[1, 7, 3]"),
    ];
    for (family, dims, shape) in cases {
        let dir = TempDir::new().unwrap();
        let values = vec![0.0; dims.iter().product()];
        let network = network(&[("y", dims, values.clone()), ("z", dims, values)]);
        let names = if family.contains("gfl") { "['y', 'z']" } else { "['y']" };
        let more = format!("size=64\noutputs={names}\n{family}");
        let error = format!("{:#}", teacher(&runtime, &dir, &network, &more).unwrap().predict(&image()).unwrap_err());
        assert!(error.contains(shape) && error.contains("\"y\"") && error.contains("t.onnx"), "{error}");
    }
}

#[test]
fn an_input_of_another_size_and_a_missing_output_are_refused_at_once() {
    let Some(runtime) = onnx_runtime() else { return };
    let dir = TempDir::new().unwrap();
    let network = network(&[("y", &[1, 7, 20], vec![0.0; 140])]);
    for (more, what) in [
        ("family='yolo'\nsize=96\noutputs=['y']", "[1, 3, 64, 64]"),
        ("family='yolo'\nsize=64\noutputs=['q']", "\"q\""),
    ] {
        let error = format!("{:#}", teacher(&runtime, &dir, &network, more).err().unwrap());
        assert!(error.contains(what), "{error}");
    }
}
