//! docs/guide.md, tried word for word from the images to the package: its files as they stand
//! there, and its `distill` lines in the shell. Fewer steps, a smaller input and fewer seeds are
//! all that is changed; the networks that a reader brings are stand-ins of the same form.

use std::fs;
use std::path::Path;
use std::process::Command;

use peregrine_distill::net::NetParams;
use peregrine_distill::teacher::TeacherDescription;
use peregrine_student::presets::Preset;
use peregrine_student::Student;

use crate::teacher_support::constant;

/// What is made smaller, so that a debug build is through in seconds.
const SMALLER: [(&str, &str); 7] = [
    ("input = [384, 320]\nsteps = 3000\nbatch = 8\n", "input = [64, 64]\nsteps = 2\nbatch = 2\nwarmup = 1\n"),
    ("steps = 3000\nbatch = 16\n", "input = [64, 64]\nsteps = 2\nbatch = 2\nwarmup = 1\n"),
    ("steps = 1000\n", "input = [64, 64]\nsteps = 2\nbatch = 2\nwarmup = 1\n"),
    ("seeds = [1, 2, 3]", "seeds = [1]"),
    ("--data my/train --evaluate my/val", "--data my/train --evaluate my/val --max-drop 100"),
    ("distill teacher ", "distill teacher --threads 1 "),
    ("distill student ", "distill student --threads 1 "),
];

/// The blocks of that language, in order.
fn blocks<'a>(guide: &'a str, language: &str) -> Vec<&'a str> {
    let parts = guide.split("\n```").collect::<Vec<_>>();
    parts.iter().filter_map(|part| part.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// Stand-ins for the two detectors that models/teachers describes: both see a car in the middle.
fn teachers(folder: &Path) {
    let heat = |cells: usize| {
        let mut values = vec![0.0; 80 * cells * cells];
        values[(cells / 2 * cells + cells / 2) * 80 + 2] = 0.9;
        values
    };
    let outputs = [
        ("tower_0/keypoints:0", vec![1, 128, 128, 80], heat(128)),
        ("tower_0/wh:0", vec![1, 128, 128, 4], vec![60.0; 4 * 128 * 128]),
    ];
    fs::write(folder.join("centernet_mb3_512.onnx"), constant(("tower_0/images:0", [1, 512, 512, 3]), &outputs))
        .unwrap();
    let mut outputs = Vec::new();
    for (cells, names) in [
        (52, ["Identity:0", "Identity_3:0"]),
        (26, ["Identity_1:0", "Identity_4:0"]),
        (13, ["Identity_2:0", "Identity_5:0"]),
    ] {
        outputs.push((names[0], vec![1, cells * cells, 80], heat(cells)));
        outputs.push((names[1], vec![1, cells * cells, 32], vec![0.0; 32 * cells * cells]));
    }
    fs::write(folder.join("nanodet_416.onnx"), constant(("input_1:0", [1, 3, 416, 416]), &outputs)).unwrap();
}

/// A stand-in for the ImageNet classifier: the same backbone, of random weights.
fn classifier(folder: &Path) {
    let mut student = Student::load(&peregrine_support::lite()).unwrap();
    student.manifest.architecture.backbone = Preset::Lite0.backbone();
    student.weights = NetParams::random(&student.graph(), 1).fold();
    student.save(&folder.join("lite0")).unwrap();
    shell(folder, "distill export --model lite0 --out efficientnet_lite0.onnx");
}

fn images(folder: &Path, dataset: &str) {
    let frames = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/frames");
    for (set, stems) in [
        ("train", &["highway-00", "street-20", "yard-82"][..]),
        ("val", &["highway-12", "street-26"]),
        ("unlabelled", &["highway-00"]),
    ] {
        let data = folder.join("my").join(set);
        fs::create_dir_all(data.join("images")).unwrap();
        fs::create_dir_all(data.join("labels")).unwrap();
        for stem in stems {
            fs::copy(frames.join(format!("{stem}.jpg")), data.join(format!("images/{stem}.jpg"))).unwrap();
            fs::write(data.join(format!("labels/{stem}.txt")), "2 0.5 0.5 0.4 0.4\n").unwrap();
        }
    }
    fs::write(folder.join("my/dataset.toml"), dataset).unwrap();
}

fn shell(folder: &Path, script: &str) {
    let script = format!("set -eu\ndistill() {{ {} \"$@\"; }}\n{script}", env!("CARGO_BIN_EXE_distill"));
    let output = Command::new("bash").current_dir(folder).args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_guide_leads_from_images_and_a_teacher_to_a_package() {
    if !std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| Path::new(&path).is_file()) {
        eprintln!("skipped: ORT_DYLIB_PATH names no ONNX Runtime; `make test` sets it");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut guide = fs::read_to_string(root.join("docs/guide.md")).unwrap();
    for (from, to) in SMALLER {
        assert!(guide.contains(from), "the guide has no {from:?} any more");
        guide = guide.replace(from, to);
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::os::unix::fs::symlink(root.join("models"), folder.join("models")).unwrap();
    let toml = blocks(&guide, "toml");
    let [dataset, description, more_data, methods] = toml[..] else { panic!("{} blocks of TOML", toml.len()) };
    images(folder, dataset);
    fs::write(folder.join("t.toml"), description).unwrap();
    TeacherDescription::read(&folder.join("t.toml")).unwrap();
    teachers(folder);
    classifier(folder);

    // What sets up the shell, and what builds and starts programs, is not `distill`'s.
    let others = [". launch/", "cargo ", "alias ", "target/release/"];
    for block in blocks(&guide, "sh") {
        let is_ours = |line: &&str| !others.iter().any(|other| line.starts_with(other));
        shell(folder, &block.lines().filter(is_ours).collect::<Vec<_>>().join("\n"));
    }
    let student = fs::read_to_string(folder.join("train.toml")).unwrap();
    fs::write(folder.join("more.toml"), format!("{student}\n{more_data}\n{methods}")).unwrap();
    shell(folder, "distill student more.toml --run runs/more");
    for package in
        ["runs/teacher/teacher", "runs/mine/student", "runs/more/student", "pruned", "runs/mine/student/int8", "small"]
    {
        Student::load(&folder.join(package)).unwrap();
    }
    for file in
        ["inspect.html", "inspect.json", "out.json", "mistakes/mistakes.html", "runs/ablation/ABLATION.md", "mine.onnx"]
    {
        assert!(folder.join(file).exists(), "{file}");
    }
}
