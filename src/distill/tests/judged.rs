//! Teachers judged as they are, against pycocotools (tests/reference/teacher_ap.py).

use peregrine_core::BoundingBox;
use peregrine_distill::metrics::average_precision::{average_precision, Evaluated};
use peregrine_distill::teacher::candidates::{detections, OutputTensor};
use peregrine_distill::teacher::description::Fit;
use peregrine_distill::teacher::detect::candidates;
use peregrine_distill::teacher::placement::Placement;
use peregrine_distill::teacher::TeacherDescription;
use serde::Deserialize;

/// Detections above this are judged.
const LEAST: f32 = 0.001;

/// Shape and values.
type Output = (Vec<usize>, Vec<f32>);
/// Class and box in source pixels.
type Label = (usize, [f32; 4]);

#[derive(Deserialize)]
struct Case {
    family: String,
    /// Per image.
    outputs: Vec<Vec<Output>>,
    /// Per image.
    labels: Vec<Vec<Label>>,
    /// For each class AP50 and AP, from pycocotools.
    expected: Vec<[f64; 2]>,
}

fn description(family: &str) -> TeacherDescription {
    let outputs = if family == "centernet" { "['a', 'b']\nstrides=[4]" } else { "['a']" };
    toml::from_str(&format!(
        "name='t'\nfamily='{family}'\ninput='x'\nsize=64\nlayout='nchw'\ncolours='rgb'\nmean=[0.0,0.0,0.0]\n\
         std=[1.0,1.0,1.0]\noutputs={outputs}\n[classes]\ncar=[2]\nbus=[0, 1]\n"
    ))
    .unwrap()
}

#[test]
fn a_teacher_s_own_detections_have_pycocotools_ap() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/reference/teacher_ap.json")).unwrap();
    let groups = [vec![2], vec![0, 1]];
    let bbox = |b: &[f32; 4]| BoundingBox::new(b[0], b[1], b[2], b[3]);
    assert_eq!(cases.len(), 3);
    for case in &cases {
        let d = description(&case.family);
        let placement = Placement::new(Fit::Letterbox, (128, 64), d.size);
        let observed = |(outputs, labels): (&Vec<Output>, &Vec<Label>)| {
            let tensors: Vec<OutputTensor> = outputs.iter().map(|(shape, v)| (shape.clone(), &v[..])).collect();
            let found = candidates(&d, &groups, &tensors, &placement, LEAST).unwrap();
            Evaluated {
                detections: detections(&found, groups.len(), LEAST, d.nms_iou()),
                labels: labels.iter().map(|(class, b)| (*class, bbox(b))).collect(),
                ignore: vec![],
            }
        };
        let images: Vec<Evaluated> = case.outputs.iter().zip(&case.labels).map(observed).collect();
        for (class, expected) in case.expected.iter().enumerate() {
            let found = average_precision(&images, class).unwrap();
            for (found, expected) in [found.ap50, found.ap].iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{}, class {class}: {found}, not {expected}", case.family);
            }
        }
    }
}
