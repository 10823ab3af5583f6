//! Tests of the methods: values against PyTorch (tests/reference/distillation.py), gradients
//! against finite differences.

use std::collections::BTreeMap;

use peregrine_core::BoundingBox;
use peregrine_student::Student;
use serde_json::Value;

use super::super::inputs::{DistillInputs, Tensors};
use super::{outputs, MethodConfig};
use crate::loss::check;
use crate::ranks::Ranks;
use crate::tensor::Tensor;

const PARTS: [&str; 5] = ["class", "sides", "segmentation", "fine", "coarse"];

pub(crate) fn reference() -> Value {
    serde_json::from_str(include_str!("../../../../tests/reference/distillation.json")).unwrap()
}

fn tensor(value: &Value) -> Tensor {
    let mut shape = Vec::new();
    let mut inner = value;
    while let Some(list) = inner.as_array() {
        shape.push(list.len());
        inner = &list[0];
    }
    fn flatten(value: &Value, into: &mut Vec<f32>) {
        match value.as_array() {
            Some(list) => list.iter().for_each(|v| flatten(v, into)),
            None => into.push(value.as_f64().unwrap() as f32),
        }
    }
    let mut values = Vec::new();
    flatten(value, &mut values);
    Tensor::from_vec(values, &shape).unwrap()
}

fn tensors(value: &Value) -> Tensors {
    let layer = |name: &str| (name.to_owned(), tensor(&value[name]));
    Tensors {
        class: tensor(&value["class"]),
        box_distribution: tensor(&value["sides"]),
        segmentation: tensor(&value["segmentation"]),
        scene: Vec::new(),
        layers: BTreeMap::from([layer("fine"), layer("coarse")]),
    }
}

pub(crate) fn inputs(data: &Value) -> DistillInputs {
    let positive = |p: &Value| (p[0].as_u64().unwrap() as u32, p[1].as_u64().unwrap() as usize);
    let bbox = |b: &Value| {
        let at = |i: usize| b[i].as_f64().unwrap() as f32;
        BoundingBox::new(at(0), at(1), at(2), at(3))
    };
    let list = |v: &Value| v.as_array().unwrap().clone();
    DistillInputs {
        student: tensors(&data["student"]),
        teacher: tensors(&data["teacher"]),
        positives: list(&data["positives"]).iter().map(positive).collect(),
        room: 0,
        boxes: list(&data["boxes"]).iter().map(|image| list(image).iter().map(bbox).collect()).collect(),
        mask: list(&data["mask"]).iter().map(|v| v.as_u64().unwrap() as u8).collect(),
        mask_valid: vec![true; list(&data["mask"]).len()],
        scene_groups: Vec::new(),
        scene_labels: Vec::new(),
        scene_valid: Vec::new(),
        layer_valid: BTreeMap::new(),
        input: (data["input"][0].as_u64().unwrap() as usize, data["input"][1].as_u64().unwrap() as usize),
        progress: 0.5,
        ranks: Ranks::alone(),
    }
}

/// The methods of the reference, with their values there.
pub(crate) fn cases(data: &Value) -> Vec<(MethodConfig, f64)> {
    let case = |c: &Value| (serde_json::from_value(c[0].clone()).unwrap(), c[1].as_f64().unwrap());
    data["cases"].as_array().unwrap().iter().map(case).collect()
}

#[test]
fn every_method_has_the_value_of_the_pytorch_reference() {
    let data = reference();
    for (config, expected) in cases(&data) {
        config.check().unwrap();
        let method = config.method.build(Some(&Student::embedded())).unwrap();
        let value = f64::from(method.loss(&inputs(&data)).unwrap().value().unwrap());
        assert!((value - expected).abs() < 2e-5 * (1.0 + expected), "{config:?}: {value}, not {expected}");
    }
}

#[test]
fn every_method_s_gradient_agrees_with_finite_differences() {
    let data = reference();
    for (config, _) in cases(&data) {
        let method = config.method.build(Some(&Student::embedded())).unwrap();
        let mut used = 0;
        for part in PARTS {
            // Shown when the test fails.
            eprintln!("{part} of {config:?}");
            let at = tensor(&data["student"][part]);
            let shape = at.dims().to_vec();
            let values = at.values().unwrap();
            let loss = |x: &Tensor| {
                let mut inputs = inputs(&data);
                let x = x.reshape(&shape)?;
                match part {
                    "class" => inputs.student.class = x,
                    "sides" => inputs.student.box_distribution = x,
                    "segmentation" => inputs.student.segmentation = x,
                    name => drop(inputs.student.layers.insert(name.to_owned(), x)),
                }
                method.loss(&inputs)
            };
            let x = candle_core::Var::from_slice(&values, (1, values.len()), &candle_core::Device::Cpu).unwrap();
            if loss(&Tensor::from(&x)).unwrap().on_host().unwrap().backward().unwrap().get(&x).is_some() {
                // FGD's attention terms are absolute differences, some of which are close to zero
                // here.
                check::gradient_by(2e-3, &values, (1, values.len()), loss);
                used += 1;
            }
        }
        assert!(used > 0, "{config:?} differentiates nothing");
    }
}

#[test]
fn the_loss_of_a_student_equal_to_its_teacher_is_zero() {
    let data = reference();
    for (config, _) in cases(&data) {
        let method = config.method.build(Some(&Student::embedded())).unwrap();
        let mut inputs = inputs(&data);
        inputs.student = tensors(&data["teacher"]);
        let value = method.loss(&inputs).unwrap().value().unwrap();
        assert!(value.abs() < 1e-5, "{config:?}: {value}");
    }
}

/// For the methods that learn from the masks of soft targets.
#[test]
fn cells_that_are_not_valid_do_not_count() {
    let data = reference();
    for (config, _) in cases(&data).into_iter().filter(|(config, _)| config.method.learns_from_masks()) {
        let method = config.method.build(None).unwrap();
        let value = |inputs: &DistillInputs| method.loss(inputs).unwrap().value().unwrap();
        let (images, classes, cells) = inputs(&data).student.segmentation.dims3().unwrap();
        // No cell of the second image is valid, and the first four of the others.
        let mut partly = inputs(&data);
        partly.mask_valid = (0..images * cells).map(|i| i / cells != 1 && i % cells < 4).collect();
        let mut cut = inputs(&data);
        for maps in [&mut cut.student.segmentation, &mut cut.teacher.segmentation] {
            *maps = maps.index_select(&[0, 2], 0).unwrap().narrow(2, 0, 4).unwrap();
            assert_eq!(maps.dims(), [2, classes, 4]);
        }
        let there = |i: &usize| i / cells != 1 && i % cells < 4;
        cut.mask = (0..images * cells).filter(there).map(|i| cut.mask[i]).collect();
        cut.mask_valid = vec![true; cut.mask.len()];
        let (found, expected) = (value(&partly), value(&cut));
        assert!((found - expected).abs() < 1e-5 * (1.0 + expected), "{config:?}: {found}, not {expected}");

        partly.mask_valid.fill(false);
        assert_eq!(value(&partly), 0.0, "{config:?}");
    }
}

/// Each cell of the segmentation head as an image of a scene: the values of the PyTorch reference
/// hold for that head too.
#[test]
fn scenes_are_compared_as_the_reference_compares_categories() {
    let data = reference();
    let on_cells = |(config, _): &(MethodConfig, f64)| {
        let text = serde_json::to_value(config).unwrap();
        let plain = text["labelled"] != true && text["balanced"] != true;
        ["kd", "dkd", "dist"].contains(&config.method.name()) && text["on"] == "segmentation" && plain
    };
    let found: Vec<_> = cases(&data).into_iter().filter(on_cells).collect();
    assert!(!found.is_empty());
    for (config, expected) in found {
        let mut text = serde_json::to_value(&config).unwrap();
        text["on"] = "scene".into();
        let config: MethodConfig = serde_json::from_value(text.clone()).unwrap();
        assert!(config.method.learns_from_scenes() && !config.method.learns_from_masks());
        let mut inputs = inputs(&data);
        inputs.student.scene = vec![outputs::cells(&inputs.student.segmentation).unwrap()];
        inputs.teacher.scene = vec![outputs::cells(&inputs.teacher.segmentation).unwrap()];
        inputs.scene_groups = vec!["light".into()];
        inputs.scene_labels = vec![inputs.mask.clone()];
        inputs.scene_valid = vec![inputs.mask_valid.clone()];
        let method = config.method.build(None).unwrap();
        let value = |inputs: &DistillInputs| f64::from(method.loss(inputs).unwrap().value().unwrap());
        let one = value(&inputs);
        assert!((one - expected).abs() < 2e-5 * (1.0 + expected), "{config:?}: {one}, not {expected}");
        // Groups add up, and images without a teacher do not count.
        for part in [&mut inputs.student.scene, &mut inputs.teacher.scene] {
            part.push(part[0].clone());
        }
        inputs.scene_groups.push("weather".into());
        inputs.scene_labels.push(inputs.mask.clone());
        inputs.scene_valid.push(inputs.mask_valid.clone());
        assert!((value(&inputs) - 2.0 * one).abs() < 1e-4 * (1.0 + one), "{config:?}");
        // One that is named counts alone.
        text["on"] = "scene.weather".into();
        let named: MethodConfig = serde_json::from_value(text).unwrap();
        let named = named.method.build(None).unwrap().loss(&inputs).unwrap().value().unwrap();
        assert!((f64::from(named) - one).abs() < 1e-4 * (1.0 + one), "{config:?}");
        inputs.scene_valid.iter_mut().for_each(|group| group.fill(false));
        assert_eq!(value(&inputs), 0.0);
    }
}

/// The inputs as with features of soft targets: of each image's pixels the first part is valid;
/// elsewhere both tensors are zero.
pub(crate) fn partly_valid(mut inputs: DistillInputs, parts: [f64; 3]) -> DistillInputs {
    for name in ["fine", "coarse"] {
        let (images, _, height, width) = inputs.student.layers[name].dims4().unwrap();
        let cells = height * width;
        let valid = |i: usize| ((i % cells) as f64) < parts[i / cells] * cells as f64;
        let valid: Vec<bool> = (0..images * cells).map(valid).collect();
        let mask = Tensor::vector(valid.iter().map(|&s| f32::from(u8::from(s)))).unwrap();
        let mask = mask.reshape(&[images, 1, height, width]).unwrap();
        for layers in [&mut inputs.student.layers, &mut inputs.teacher.layers] {
            let masked = layers[name].broadcast_mul(&mask).unwrap();
            layers.insert(name.to_owned(), masked);
        }
        inputs.layer_valid.insert(name.to_owned(), valid);
    }
    inputs
}

#[test]
fn pixels_and_images_that_are_not_valid_do_not_count() {
    let data = reference();
    let of_layers = |(config, _): &(MethodConfig, f64)| !config.method.learns_from_features().is_empty();
    let configs: Vec<_> = cases(&data).into_iter().filter(of_layers).map(|(config, _)| config).collect();
    assert!(configs.len() >= 6, "{configs:?}");
    for config in configs {
        let method = config.method.build(None).unwrap();
        let value = |inputs: &DistillInputs| method.loss(inputs).unwrap().value().unwrap();
        assert!(value(&partly_valid(inputs(&data), [0.5, 1.0, 0.3])) > 1e-6, "{config:?}");
        for parts in [[0.5, 0.0, 0.3], [0.0; 3]] {
            let mut equal = inputs(&data);
            equal.student = tensors(&data["teacher"]);
            let value = value(&partly_valid(equal, parts));
            assert!(value.abs() < 1e-5, "{config:?}: {value} with {parts:?}");
        }
    }
}

#[test]
fn pkd_means_and_rkd_embeddings_are_over_valid_pixels() {
    let data = reference();
    let (pkd, rkd) = (r#"{"kind":"pkd","layers":["fine"]}"#, r#"{"kind":"rkd","layers":["fine"]}"#);
    for (config, change) in [(pkd, (3.0, 5.0)), (rkd, (3.0, 0.0))] {
        let config: MethodConfig = serde_json::from_str(config).unwrap();
        let mut changed = inputs(&data);
        let layer = changed.teacher.layers["fine"].affine(change.0, change.1).unwrap();
        changed.student.layers.insert("fine".into(), layer);
        let method = config.method.build(None).unwrap();
        let value = method.loss(&partly_valid(changed, [0.5, 1.0, 0.3])).unwrap().value().unwrap();
        assert!(value.abs() < 1e-5, "{config:?} does not mind scale and offset: {value}");
    }
}

#[test]
fn an_unknown_key_of_a_method_is_refused() {
    let error = toml::from_str::<MethodConfig>("kind = 'ld'\ntemprature = 2.0").unwrap_err().to_string();
    assert!(error.contains("temprature"), "{error}");
}
