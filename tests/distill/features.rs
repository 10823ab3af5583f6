//! Features: `distill soften` keeps a teacher's inner tensors of whole images, and `distill
//! student` learns from them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use half::f16;
use peregrine_core::ImageView;
use peregrine_distill::soften::SoftTargets;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::Engine;
use peregrine_student::Student;
use peregrine_vision::preprocess::{Letterbox, Normalisation};

const LAYERS: [&str; 2] = ["neck.8.add", "neck.32"];
/// The teacher's and the student's input.
const INPUT: (usize, usize) = (96, 64);

fn distill(folder: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    command.current_dir(folder).args(arguments.split(' ')).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn embedded() -> Student {
    let mut student = Student::load(&peregrine_support::lite()).unwrap();
    (student.manifest.architecture.input.width, student.manifest.architecture.input.height) = INPUT;
    student
}

/// Two frames without labels as `data`, the embedded student at a small size as `model`, and its
/// soft targets for them as `soft`. The frames are letterboxed, or have the size of the input if
/// `fitted`.
fn softened(folder: &Path, fitted: bool) {
    let frames = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/frames");
    fs::create_dir_all(folder.join("data/images")).unwrap();
    fs::write(folder.join("data/dataset.toml"), "name = 'tiny'\n").unwrap();
    for frame in ["highway-00.jpg", "street-20.jpg"] {
        let mut image = image::open(frames.join(frame)).unwrap().to_rgb8();
        if fitted {
            image =
                image::imageops::resize(&image, INPUT.0 as u32, INPUT.1 as u32, image::imageops::FilterType::Triangle);
        }
        image.save(folder.join("data/images").join(frame)).unwrap();
    }
    embedded().save(&folder.join("model")).unwrap();
    let arguments = format!("soften data --teacher model --out soft --feature {} --feature {}", LAYERS[0], LAYERS[1]);
    let output = distill(folder, &arguments);
    assert!(output.status.success(), "{}", said(&output));
}

/// A training on the soft targets, without augmentation unless `tables` say otherwise.
fn train(folder: &Path, run: &str, keys: &str, tables: &str) -> Output {
    let usual = "batch = 4\nwarmup = 1\ncheckpoint_every = 100\ninput = [96, 64]\nsoft_targets = 'soft'\n";
    let data = "[[data]]\nfolder = 'data'\nshare = 1.0\n";
    let augment = "[augment]\nscale = [1.0, 1.0]\naspect = 1.0\ncolour = 0.0\nflip = 0.0\n";
    fs::write(folder.join("train.toml"), format!("{usual}{keys}\n{data}{augment}{tables}")).unwrap();
    distill(folder, &format!("student train.toml --run {run}"))
}

/// The methods' losses in each line of the log.
fn losses(folder: &Path, run: &str) -> Vec<Vec<f64>> {
    let log = fs::read_to_string(folder.join(run).join("log.jsonl")).unwrap();
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["methods"].clone();
    log.lines().map(|l| serde_json::from_value(line(l)).unwrap()).collect()
}

#[test]
fn features_are_the_layer_s_values_in_16_bits() {
    let folder = tempfile::tempdir().unwrap();
    softened(folder.path(), false);
    let soft = SoftTargets::open(&folder.path().join("soft")).unwrap();
    let student = embedded();
    let mut graph = student.graph();
    let first = graph.outputs.len();
    for layer in LAYERS {
        graph.outputs.push(graph.layers.iter().position(|l| l.name == layer).unwrap());
    }
    let mut engine = CpuEngine::new(&graph, &student.weights, 1).unwrap();
    for frame in ["highway-00.jpg", "street-20.jpg"] {
        let image = image::open(folder.path().join("data/images").join(frame)).unwrap().to_rgb8();
        let (width, height) = image.dimensions();
        let view = ImageView::new("rgb8", width, height, 3 * width, image.as_raw()).unwrap();
        let input = &student.manifest.architecture.input;
        let letterbox = Letterbox::new(view.size(), INPUT);
        letterbox.apply(&view, &Normalisation { mean: input.mean, std: input.std }, engine.input());
        engine.run().unwrap();
        for (i, layer) in LAYERS.iter().enumerate() {
            let map = soft.of("tiny/data", frame).unwrap().features[*layer].read().unwrap();
            let shape = graph.layers[graph.outputs[first + i]].shape;
            // The rows that the letterboxed image lies on.
            let (top, rows) = (letterbox.pad().1 as f32 / INPUT.1 as f32 * shape.height as f32, map.height);
            assert_eq!((map.width, soft.features[*layer], rows <= shape.height), (shape.width, shape.channels, true));
            assert_eq!(map.image[1], top.fract(), "where the image begins on the first of them");
            for (c, plane) in map.values.chunks(map.width * rows).enumerate() {
                let from = (c * shape.height + top as usize) * shape.width;
                let expected = &engine.output(first + i)[from..][..plane.len()];
                assert!(plane.iter().zip(expected).all(|(a, b)| *a == f16::from_f32(*b)), "{layer} of {frame}");
            }
        }
    }
}

#[test]
fn a_student_equal_to_its_teacher_has_features_without_loss() {
    let folder = tempfile::tempdir().unwrap();
    softened(folder.path(), true);
    // The learning rate is so small that the student does not change.
    let keys = "steps = 1\ninit = 'model'\nlearning_rate = 1e-12";
    let hint = format!("[[method]]\nkind = 'hint'\nlayers = {LAYERS:?}\n");
    let loss = |run: &str, keys: &str, tables: &str| {
        let output = train(folder.path(), run, keys, tables);
        assert!(output.status.success(), "{}", said(&output));
        losses(folder.path(), run)[0][0]
    };
    let own = loss("own", keys, &hint);
    let another = loss("another", &keys.replace("init = 'model'\n", ""), &hint);
    assert!(own < 1e-4 * another, "{own} and {another}");
}

#[test]
fn a_training_on_features_brings_the_student_nearer_to_them() {
    let folder = tempfile::tempdir().unwrap();
    softened(folder.path(), true);
    let keys = "steps = 40\nlearning_rate = 2e-3";
    let output =
        train(folder.path(), "run", keys, "[[method]]\nkind = 'hint'\nlayers = ['neck.8.add']\nweight = 5.0\n");
    assert!(output.status.success(), "{}", said(&output));
    let losses = losses(folder.path(), "run");
    assert!(losses.last().unwrap()[0] < 0.8 * losses[0][0], "{losses:?}");
}

#[test]
fn every_method_on_layers_learns_from_features_in_mosaics() {
    let folder = tempfile::tempdir().unwrap();
    softened(folder.path(), false);
    let methods = ["hint", "attention", "rkd", "pkd", "fgd", "cwd"];
    let tables = methods.map(|kind| format!("[[method]]\nkind = '{kind}'\nlayers = {LAYERS:?}\n")).concat();
    let output = train(folder.path(), "run", "steps = 2", &format!("mosaic = 0.5\n{tables}"));
    assert!(output.status.success(), "{}", said(&output));
    let losses = losses(folder.path(), "run");
    assert!(losses[0].iter().all(|loss| loss.is_finite() && *loss > 0.0), "{losses:?}");
}

#[test]
fn features_that_are_missing_or_impossible_are_named() {
    let folder = tempfile::tempdir().unwrap();
    softened(folder.path(), false);
    let refused = |output: &Output, named: &[&str]| {
        let said = said(output);
        assert!(!output.status.success() && named.iter().all(|part| said.contains(part)), "{said}");
    };
    let output = train(folder.path(), "run", "steps = 1", "[[method]]\nkind = 'pkd'\n");
    refused(&output, &["pkd", "neck.16.add", "--feature"]);
    let soften = |arguments: &str| distill(folder.path(), &format!("soften data {arguments}"));
    refused(&soften("--teacher model --out new --feature neck.9"), &["neck.9", "neck.8.add"]);
    refused(&soften("--teacher model --out soft"), &["other features"]);
    refused(&soften("--teacher model --teacher model --out new --feature neck.32"), &["neck.32", "twice"]);
}
