//! Students of scenes: from folders by class through every command that reads a package.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use peregrine_student::Student;
use tempfile::TempDir;

use super::support::distill;

/// Bright pictures by day, dark ones by night, three by day for each by night.
fn drives(folder: &Path) {
    for (split, images) in [("train", 16), ("val", 8)] {
        for i in 0..images {
            let (class, level) = if i % 4 == 0 { ("night", 10) } else { ("day", 150) };
            let path = folder.join(format!("drives/{split}/{class}/{i}.png"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let image = RgbImage::from_fn(64, 64, |x, y| {
                let texture = ((x * (3 + i) + y * 5) % 32) as u8;
                Rgb([level + texture, level + texture / 2, level + (i % 8) as u8])
            });
            image.save(path).unwrap();
        }
    }
}

fn configuration(keys: &str, student: &str, tables: &str) -> String {
    format!(
        "name = 'light'\nsteps = 40\nbatch = 8\nwarmup = 4\nlearning_rate = 3e-3\nema = 0.8\nscene_balance = true\n{keys}\n\
         [loss]\nlabel_smoothing = 0.05\n[augment]\ncolour = 0.05\n[student]\n{student}\ninput = [64, 64]\n{tables}\n\
         [[data]]\nfolder = 'drives/train'\nshare = 1.0\n"
    )
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_scene_student_goes_through_every_command() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path();
    drives(folder);
    let student = "size = 'n'\nscene = ['day', 'night']";
    fs::write(folder.join("light.toml"), configuration("", student, "")).unwrap();
    let run = |line: &str| distill(folder, line).unwrap_or_else(|said| panic!("{line}\n{said}"));
    run("student light.toml --run run --threads 2");
    let package = Student::load(&folder.join("run/student")).unwrap();
    assert!(!package.manifest.architecture.detects() && package.manifest.architecture.scene.is_some());

    let said = run("evaluate drives/val --model run/student --json out.json --record");
    let found = json(&folder.join("out.json"));
    assert!(found["scene"]["scene"]["accuracy"].as_f64().unwrap() >= 0.9, "{said}");
    assert_eq!(found["scene"]["scene"]["confusion"].as_array().unwrap().len(), 2);
    assert!(found["scene"]["scene"]["ECE"].as_f64().is_some() && said.contains("balanced"), "{said}");
    let manifest = Student::load(&folder.join("run/student")).unwrap().manifest;
    assert!(manifest.accuracy.values().any(|figures| figures.contains_key("scene_accuracy")));

    run("evaluate drives/val --model run/student --json day.json --exclude-scene night");
    assert_eq!(json(&folder.join("day.json"))["images"], 6);
    let said = distill(folder, "evaluate drives/val --model run/student --exclude-scene fog").unwrap_err();
    assert!(said.contains("--exclude-scene fog") && said.contains("there are day, night"), "{said}");

    run("prune --model run/student --data drives/train --images 16 --keep 0.8 --out pruned --judge drives/val");
    run("quantize --model run/student --data drives/train --evaluate drives/val --out int8 --max-drop 50");
    run("export --model run/student --out light.onnx");
    for package in ["pruned", "int8"] {
        let said = run(&format!("evaluate drives/val --model {package} --json {package}.json"));
        assert!(json(&folder.join(format!("{package}.json")))["scene_accuracy"].as_f64().is_some(), "{said}");
    }

    // The package teaches by soft targets of whole images, and on each view.
    fs::write(folder.join("soft.toml"), configuration("soft_targets = 'soft'", student, KD)).unwrap();
    run("soften drives/train --teacher run/student --student soft.toml --out soft");
    run("student soft.toml --run soft-run --threads 2");
    let online = format!("{}[teacher]\npackage = 'run/student'\n", KD.replace("'kd'", "'dkd'"));
    fs::write(folder.join("online.toml"), configuration("", student, &online)).unwrap();
    run("student online.toml --run online-run --threads 2");
    for name in ["soft-run", "online-run"] {
        run(&format!("evaluate drives/val --model {name}/student --json {name}.json"));
        assert!(json(&folder.join(format!("{name}.json")))["scene_accuracy"].as_f64().unwrap() >= 0.7, "{name}");
    }
}

/// The exported student as somebody's classifier.
const CLASSIFIER: &str = "name = 'light'\nfamily = 'class_logits'\ninput = 'image'\nsize = 64\nlayout = 'nchw'\n\
    colours = 'rgb'\nmean = [127.0, 127.0, 127.0]\nstd = [128.0, 128.0, 128.0]\noutputs = ['scene_scene']\n\
    [classes]\nday = [0]\nnight = [1]\n";

#[test]
fn an_imported_network_gets_scenes_and_sees_as_before() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path();
    drives(folder);
    let shipped = peregrine_support::root().join("models/peregrine-s");
    let before = Student::load(&shipped).unwrap();
    let architecture = &before.manifest.architecture;
    let student = format!(
        "classes = {:?}\nsegmentation = {:?}\nscene = ['day', 'night']",
        architecture.detection_classes(),
        architecture.segmentation_classes()
    );
    let keys = format!("init = {shipped:?}\nscene_only = true");
    fs::write(folder.join("light.toml"), configuration(&keys, &student, "")).unwrap();
    let run = |line: &str| distill(folder, line).unwrap_or_else(|said| panic!("{line}\n{said}"));
    run("student light.toml --run run --threads 2");
    let said = run("evaluate drives/val --model run/student --json out.json");
    assert!(json(&folder.join("out.json"))["scene_accuracy"].as_f64().unwrap() >= 0.9, "{said}");
    let after = Student::load(&folder.join("run/student")).unwrap();
    assert!(before.weights.0.iter().all(|(name, conv)| after.weights.0[name] == *conv));
    assert_eq!(after.weights.0.len(), before.weights.0.len() + 1);
    run("quantize --model run/student --data drives/train --evaluate drives/val --out small");
}

#[test]
fn an_onnx_classifier_is_judged_and_teaches() {
    if !std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| Path::new(&path).exists()) {
        peregrine_support::skip("onnxruntime", "ORT_DYLIB_PATH names no ONNX Runtime; `make test` sets it");
        return;
    }
    let dir = TempDir::new().unwrap();
    let folder = dir.path();
    drives(folder);
    let student = "size = 'n'\nscene = ['day', 'night']";
    fs::write(folder.join("light.toml"), configuration("", student, "")).unwrap();
    fs::write(folder.join("classifier.toml"), CLASSIFIER).unwrap();
    let run = |line: &str| distill(folder, line).unwrap_or_else(|said| panic!("{line}\n{said}"));
    run("student light.toml --run run --threads 2");
    run("export --model run/student --out light.onnx");
    let teacher = "--teacher classifier.toml=light.onnx --student light.toml";
    run("evaluate drives/val --model run/student --json package.json");
    run(&format!("evaluate drives/val {teacher} --json onnx.json"));
    let [package, onnx] = ["package.json", "onnx.json"].map(|file| json(&folder.join(file)));
    assert_eq!(onnx["scene"]["scene"]["confusion"], package["scene"]["scene"]["confusion"]);
    let ece = |found: &serde_json::Value| found["scene"]["scene"]["ECE"].as_f64().unwrap();
    assert!((ece(&onnx) - ece(&package)).abs() < 1e-3, "{onnx} {package}");

    run(&format!("soften drives/train {teacher} --out soft"));
    fs::write(folder.join("soft.toml"), configuration("soft_targets = 'soft'", student, KD)).unwrap();
    run("student soft.toml --run soft-run --threads 2");
    run("evaluate drives/val --model soft-run/student --json soft.json");
    assert!(json(&folder.join("soft.json"))["scene_accuracy"].as_f64().unwrap() >= 0.7);
}

const KD: &str = "[[method]]\nkind = 'kd'\non = 'scene'\ntemperature = 2.0\n";

#[test]
fn what_cannot_be_learnt_is_refused_in_one_sentence() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path();
    drives(folder);
    let refused = |student: &str, tables: &str, named: &str| {
        fs::write(folder.join("x.toml"), configuration("", student, tables)).unwrap();
        let said = distill(folder, "student x.toml --run x").unwrap_err();
        assert!(said.contains(named), "{named}: {said}");
    };
    let groups = "[student.scene]\nlight = ['day', 'night']\nweather = ['dry', 'rain']\n";
    let unlabelled = format!("size = 'n'\ninput = [64, 64]\n{groups}");
    let text = configuration("", "", "").replace("[student]\n\ninput = [64, 64]", &format!("[student]\n{unlabelled}"));
    fs::write(folder.join("groups.toml"), text).unwrap();
    let said = distill(folder, "student groups.toml --run g").unwrap_err();
    assert!(said.contains("no image has a label of the group weather (dry, rain)"), "{said}");
    refused("scene = ['day', 'dusk']", "", "the scene \"night\" is no class of the student's");
    refused("scene = ['day', 'night']", KD, "soft_targets of a classifier");
    let weather = format!("{}[teacher]\naverage = true\n", KD.replace("'scene'", "'scene.weather'"));
    refused("scene = ['day', 'night']", &weather, "on = \"scene.weather\": the student's groups of scenes are scene");
    refused("scene = ['day', 'night']", &KD.replace("'scene'", "'scenes'"), "or \"scene.GROUP\"");
    refused("classes = ['car']", "", "scene_balance is set, but the student has no scene head");
}
