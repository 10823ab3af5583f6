//! The camera model against OpenCV's, on points that `reference/camera_opencv.py` made once.

use nalgebra::{Vector2, Vector3};
use peregrine_geometry::{Camera, CameraInfo};
use serde_json::Value;

/// In pixels and in units of the plane at distance 1.
const TOLERANCE: f64 = 1e-6;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().expect("a list").iter().map(numbers).collect()
}

#[test]
fn pixels_and_directions_are_those_of_opencv() {
    let reference: Value = serde_json::from_str(include_str!("../../../tests/reference/camera_opencv.json")).unwrap();
    let cases = reference["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let info = CameraInfo {
            width: 1280,
            height: 720,
            distortion_model: case["model"].as_str().unwrap().into(),
            d: numbers(&case["d"]),
            k: numbers(&case["k"]).try_into().unwrap(),
            ..CameraInfo::default()
        };
        let camera = Camera::new(&info, false).unwrap();
        let all = rows(&case["points"]).into_iter().zip(rows(&case["pixels"])).zip(rows(&case["directions"]));
        for ((point, pixel), direction) in all {
            let pixel = Vector2::from_vec(pixel);
            let found = camera.project(&Vector3::from_vec(point.clone())).unwrap();
            assert!((found - pixel).amax() < TOLERANCE, "{}: {point:?}: {found} and {pixel}", case["model"]);
            let bearing = camera.bearing(pixel).unwrap();
            let off = (bearing.xy() / bearing.z - Vector2::from_vec(direction.clone())).amax();
            assert!(off < TOLERANCE, "{}: {pixel}: {bearing} and {direction:?}", case["model"]);
        }
    }
}
