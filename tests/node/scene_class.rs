//! The class of the scene, from a small package to a Python node and the diagnostics.

use std::path::Path;

use peregrine_engine::{ConvWeights, Weights};
use peregrine_student::{Student, StudentShape};

use crate::support::{ros_is_absent, Domain};

/// A student of scenes alone, of which it is always as sure: night with logit 3, and dry with 2.
fn package(folder: &Path) {
    let shape = r#"{"size": "n", "input": [64, 64], "scene": {"light": ["day", "night"], "weather": ["dry", "rain"]}}"#;
    let shape: StudentShape = serde_json::from_str(shape).unwrap();
    let mut student = Student::embedded();
    student.manifest.architecture = shape.architecture(None).unwrap();
    student.manifest.name = "scenes".into();
    let conv = |name: &str, shape: [usize; 4]| {
        let bias = match name {
            "scene.class.light" => vec![0.0, 3.0],
            "scene.class.weather" => vec![2.0, 0.0],
            _ => vec![0.1; shape[0]],
        };
        let of_scene = name.starts_with("scene.");
        let weight = |i: usize| if of_scene { 0.0 } else { (i % 7) as f32 * 0.01 - 0.03 };
        ConvWeights { weight: (0..shape.iter().product()).map(weight).collect(), bias }
    };
    let graph = student.graph();
    student.weights =
        Weights(graph.convs().map(|(layer, _, shape)| (layer.name.clone(), conv(&layer.name, shape))).collect());
    student.save(folder).unwrap();
}

#[test]
fn the_class_of_the_scene_is_published_by_group_and_told_in_diagnostics() {
    if ros_is_absent() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    package(folder.path());
    let domain = Domain::new();
    let model = format!("model:={}", folder.path().display());
    let _node = domain.start_node(&[&model, "deadline_ms:=0.0", "scene_smoothing_s:=0.5"]);
    let answer = domain.ask_peer("receive_scene_class.py", &[]);
    let sure = |logit: f64| 1.0 / (1.0 + (-logit).exp());
    let expected = [[("night", sure(3.0)), ("day", 1.0 - sure(3.0))], [("dry", sure(2.0)), ("rain", 1.0 - sure(2.0))]];
    for (message, expected) in answer["messages"].as_array().unwrap().iter().zip(expected) {
        assert_eq!(message["frame_id"], "grey");
        for (result, (class, score)) in message["results"].as_array().unwrap().iter().zip(expected) {
            assert_eq!(result[0], class, "{answer}");
            assert!((result[1].as_f64().unwrap() - score).abs() < 1e-3, "{answer}");
        }
    }
    assert_eq!(answer["diagnostics"]["scene.light"], "night (0.95)", "{answer}");
    assert_eq!(answer["diagnostics"]["scene.weather"], "dry (0.88)", "{answer}");
}
