//! Tests of the methods: values against PyTorch (tests/reference/distillation.py), gradients against finite differences.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use peregrine_core::BoundingBox;
use peregrine_student::Student;
use serde_json::Value;

use super::super::scene::{Scene, Tensors};
use super::MethodConfig;
use crate::loss::check;

const PARTS: [&str; 5] = ["class", "sides", "segmentation", "fine", "coarse"];

fn reference() -> Value {
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
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn tensors(value: &Value) -> Tensors {
    let layer = |name: &str| (name.to_owned(), tensor(&value[name]));
    Tensors {
        class: tensor(&value["class"]),
        sides: tensor(&value["sides"]),
        segmentation: tensor(&value["segmentation"]),
        layers: BTreeMap::from([layer("fine"), layer("coarse")]),
    }
}

fn scene(data: &Value) -> Scene {
    let positive = |p: &Value| (p[0].as_u64().unwrap() as u32, p[1].as_u64().unwrap() as usize);
    let bbox = |b: &Value| {
        let at = |i: usize| b[i].as_f64().unwrap() as f32;
        BoundingBox::new(at(0), at(1), at(2), at(3))
    };
    let list = |v: &Value| v.as_array().unwrap().clone();
    Scene {
        student: tensors(&data["student"]),
        teacher: tensors(&data["teacher"]),
        positives: list(&data["positives"]).iter().map(positive).collect(),
        boxes: list(&data["boxes"]).iter().map(|image| list(image).iter().map(bbox).collect()).collect(),
        mask: list(&data["mask"]).iter().map(|v| v.as_u64().unwrap() as u8).collect(),
        teacher_sees: vec![true; list(&data["mask"]).len()],
        layer_sees: BTreeMap::new(),
        input: (data["input"][0].as_u64().unwrap() as usize, data["input"][1].as_u64().unwrap() as usize),
        progress: 0.5,
    }
}

/// The methods of the reference, with their values there.
fn cases(data: &Value) -> Vec<(MethodConfig, f64)> {
    let case = |c: &Value| (serde_json::from_value(c[0].clone()).unwrap(), c[1].as_f64().unwrap());
    data["cases"].as_array().unwrap().iter().map(case).collect()
}

#[test]
fn every_method_has_the_value_that_pytorch_computes() {
    let data = reference();
    for (config, expected) in cases(&data) {
        config.check().unwrap();
        let method = config.method.build(Some(&Student::embedded())).unwrap();
        let value = f64::from(method.loss(&scene(&data)).unwrap().to_scalar::<f32>().unwrap());
        assert!((value - expected).abs() < 2e-5 * (1.0 + expected), "{config:?}: {value}, not {expected}");
    }
}

#[test]
fn every_method_is_differentiated_rightly() {
    let data = reference();
    for (config, _) in cases(&data) {
        let method = config.method.build(Some(&Student::embedded())).unwrap();
        let mut used = 0;
        for part in PARTS {
            // Shown when the test fails.
            eprintln!("{part} of {config:?}");
            let at = tensor(&data["student"][part]);
            let shape = at.dims().to_vec();
            let values = at.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let loss = |x: &Tensor| {
                let mut scene = scene(&data);
                let x = x.reshape(shape.as_slice())?;
                match part {
                    "class" => scene.student.class = x,
                    "sides" => scene.student.sides = x,
                    "segmentation" => scene.student.segmentation = x,
                    name => drop(scene.student.layers.insert(name.to_owned(), x)),
                }
                method.loss(&scene)
            };
            let x = candle_core::Var::from_slice(&values, (1, values.len()), &Device::Cpu).unwrap();
            if loss(&x).unwrap().backward().unwrap().get(&x).is_some() {
                // FGD's attention terms are absolute differences, some of which are close to zero here.
                check::gradient_by(2e-3, &values, (1, values.len()), loss);
                used += 1;
            }
        }
        assert!(used > 0, "{config:?} differentiates nothing");
    }
}

#[test]
fn a_student_equal_to_its_teacher_has_nothing_to_learn() {
    let data = reference();
    for (config, _) in cases(&data) {
        let method = config.method.build(Some(&Student::embedded())).unwrap();
        let mut scene = scene(&data);
        scene.student = tensors(&data["teacher"]);
        let value = method.loss(&scene).unwrap().to_scalar::<f32>().unwrap();
        assert!(value.abs() < 1e-5, "{config:?}: {value}");
    }
}

/// A case of the reference whose method takes in the masks of soft targets.
#[test]
fn what_the_teacher_does_not_see_does_not_count() {
    let data = reference();
    for (config, _) in cases(&data).into_iter().filter(|(config, _)| config.method.learns_from_masks()) {
        let method = config.method.build(None).unwrap();
        let value = |scene: &Scene| method.loss(scene).unwrap().to_scalar::<f32>().unwrap();
        let (images, classes, cells) = scene(&data).student.segmentation.dims3().unwrap();
        // Of the second image nothing is seen, of the others the first four cells.
        let mut partly = scene(&data);
        partly.teacher_sees = (0..images * cells).map(|i| i / cells != 1 && i % cells < 4).collect();
        let mut cut = scene(&data);
        let rows = Tensor::new(vec![0u32, 2], &Device::Cpu).unwrap();
        for maps in [&mut cut.student.segmentation, &mut cut.teacher.segmentation] {
            *maps = maps.index_select(&rows, 0).unwrap().narrow(2, 0, 4).unwrap().contiguous().unwrap();
            assert_eq!(maps.dims(), [2, classes, 4]);
        }
        let there = |i: &usize| i / cells != 1 && i % cells < 4;
        cut.mask = (0..images * cells).filter(there).map(|i| cut.mask[i]).collect();
        cut.teacher_sees = vec![true; cut.mask.len()];
        let (found, expected) = (value(&partly), value(&cut));
        assert!((found - expected).abs() < 1e-5 * (1.0 + expected), "{config:?}: {found}, not {expected}");

        partly.teacher_sees.fill(false);
        assert_eq!(value(&partly), 0.0, "{config:?}");
    }
}

/// The scene as stored features make it: of each image's pixels the first are seen, such a part of them; elsewhere both
/// tensors are zero.
fn seen_in_part(mut scene: Scene, parts: [f64; 3]) -> Scene {
    for name in ["fine", "coarse"] {
        let (images, _, height, width) = scene.student.layers[name].dims4().unwrap();
        let cells = height * width;
        let sees = |i: usize| ((i % cells) as f64) < parts[i / cells] * cells as f64;
        let sees: Vec<bool> = (0..images * cells).map(sees).collect();
        let mask = Tensor::from_iter(sees.iter().map(|&s| f32::from(u8::from(s))), &Device::Cpu).unwrap();
        let mask = mask.reshape((images, 1, height, width)).unwrap();
        for layers in [&mut scene.student.layers, &mut scene.teacher.layers] {
            let masked = layers[name].broadcast_mul(&mask).unwrap();
            layers.insert(name.to_owned(), masked);
        }
        scene.layer_sees.insert(name.to_owned(), sees);
    }
    scene
}

#[test]
fn a_layer_s_unseen_part_and_unseen_images_teach_nothing() {
    let data = reference();
    let of_layers = |(config, _): &(MethodConfig, f64)| !config.method.learns_from_features().is_empty();
    let configs: Vec<_> = cases(&data).into_iter().filter(of_layers).map(|(config, _)| config).collect();
    assert!(configs.len() >= 6, "{configs:?}");
    for config in configs {
        let method = config.method.build(None).unwrap();
        let value = |scene: &Scene| method.loss(scene).unwrap().to_scalar::<f32>().unwrap();
        assert!(value(&seen_in_part(scene(&data), [0.5, 1.0, 0.3])) > 1e-6, "{config:?}");
        for parts in [[0.5, 0.0, 0.3], [0.0; 3]] {
            let mut equal = scene(&data);
            equal.student = tensors(&data["teacher"]);
            let value = value(&seen_in_part(equal, parts));
            assert!(value.abs() < 1e-5, "{config:?}: {value} with {parts:?}");
        }
    }
}

#[test]
fn pkd_takes_means_and_rkd_embeddings_over_what_is_seen() {
    let data = reference();
    let (pkd, rkd) = (r#"{"kind":"pkd","layers":["fine"]}"#, r#"{"kind":"rkd","layers":["fine"]}"#);
    for (config, change) in [(pkd, (3.0, 5.0)), (rkd, (3.0, 0.0))] {
        let config: MethodConfig = serde_json::from_str(config).unwrap();
        let mut changed = scene(&data);
        let layer = changed.teacher.layers["fine"].affine(change.0, change.1).unwrap();
        changed.student.layers.insert("fine".into(), layer);
        let method = config.method.build(None).unwrap();
        let value = method.loss(&seen_in_part(changed, [0.5, 1.0, 0.3])).unwrap().to_scalar::<f32>().unwrap();
        assert!(value.abs() < 1e-5, "{config:?} does not mind scale and offset: {value}");
    }
}

#[test]
fn an_unknown_key_of_a_method_is_refused() {
    let error = toml::from_str::<MethodConfig>("kind = 'ld'\ntemprature = 2.0").unwrap_err().to_string();
    assert!(error.contains("temprature"), "{error}");
}
