//! `distill soften` with a real ONNX network through a real ONNX Runtime.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use image::{Rgb, RgbImage};
use peregrine_core::files::sha256;
use peregrine_distill::soften::SoftTargets;
use peregrine_student::Student;

const TEACHER: &str = "name = 'tiny'\nfamily = 'centernet'\ninput = 'x'\nsize = 64\nlayout = 'nhwc'\ncolours = 'rgb'\n\
    mean = [0.0, 0.0, 0.0]\nstd = [255.0, 255.0, 255.0]\noutputs = ['heat', 'sides']\nstrides = [4]\ncenter = 0.5\nfit = 'stretch'\n\
    [classes]\ncar = [0]\nbus = [2]\n";

/// Index of a class of the default student.
const CAR: usize = 2;
const BUS: usize = 3;

fn soften(folder: &Path, description: &str) -> Output {
    soften_with(folder, description, &[])
}

fn soften_with(folder: &Path, description: &str, flags: &[&str]) -> Output {
    fs::write(folder.join("tiny.toml"), description).unwrap();
    let network = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/tiny_teacher.onnx");
    Command::new(env!("CARGO_BIN_EXE_distill"))
        .arg("soften")
        .arg(folder.join("data"))
        .arg("--out")
        .arg(folder.join("soft"))
        .arg("--teacher")
        .arg(format!("{}={}", folder.join("tiny.toml").display(), network.display()))
        .args(flags)
        .output()
        .unwrap()
}

/// Two pictures of 128 × 64 pixels with a spot each, and no labels.
fn pictures(folder: &Path) {
    let images = folder.join("data/images");
    fs::create_dir_all(&images).unwrap();
    for (name, colour, left) in [("a.png", [255, 0, 0], 40), ("b.png", [0, 0, 255], 80)] {
        let spot = |x: u32, y: u32| (left..left + 8).contains(&x) && (20..24).contains(&y);
        RgbImage::from_fn(128, 64, |x, y| Rgb(if spot(x, y) { colour } else { [0; 3] }))
            .save(images.join(name))
            .unwrap();
    }
    let config = "name = 'spots'\nclasses = ['car']\n[detection]\ncar = 'car'\n";
    fs::write(folder.join("data/dataset.toml"), config).unwrap();
}

fn has_onnx_runtime() -> bool {
    let found = std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| Path::new(&path).is_file());
    if !found {
        peregrine_support::skip("onnxruntime", "ORT_DYLIB_PATH names no ONNX Runtime; `make test` sets it");
    }
    found
}

#[test]
fn soft_targets_are_in_source_pixels_and_student_classes() {
    if !has_onnx_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let output = soften(folder.path(), TEACHER);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let soft = SoftTargets::open(&folder.path().join("soft")).unwrap();
    for (file, class, center) in [("a.png", CAR, 44.0), ("b.png", BUS, 84.0)] {
        let found = &soft.of("spots/data", file).expect("the image has soft targets").boxes;
        assert_eq!(found[0].best().0, class);
        let (x, y) = found[0].bbox.center();
        assert!((x - center).abs() < 1.0 && (y - 22.0).abs() < 1.0, "{:?}", found[0].bbox);
        assert!((found[0].bbox.width() - 24.0).abs() < 1e-3 && (found[0].bbox.height() - 12.0).abs() < 1e-3);
    }
    assert!(soft.of("spots/data", "c.png").is_none());
}

#[test]
fn an_image_shown_mirrored_too_gives_the_same_objects_in_their_places() {
    if !has_onnx_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let output = soften_with(folder.path(), TEACHER, &["--flip"]);
    assert!(output.status.success(), "{}", said(&output));
    let soft = SoftTargets::open(&folder.path().join("soft")).unwrap();
    for (file, class, center) in [("a.png", CAR, 44.0), ("b.png", BUS, 84.0)] {
        let found = &soft.of("spots/data", file).expect("the image has soft targets").boxes;
        let (x, y) = found[0].bbox.center();
        assert!(found[0].best().0 == class && (x - center).abs() < 1.0 && (y - 22.0).abs() < 1.0, "{found:?}");
        // Seen in both views, it is one object, and as sure as in one.
        assert_eq!(found.iter().filter(|object| object.score() > 0.3).count(), 1, "{found:?}");
    }
    let output = soften(folder.path(), TEACHER);
    assert!(!output.status.success() && said(&output).contains("--flip"), "{}", said(&output));
}

/// `distill evaluate` of the soft targets in `soft`, and what it says.
fn judge(folder: &Path) -> (Output, serde_json::Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    let flags = ["evaluate", "data", "--soft-targets", "soft", "--json", "judged.json"];
    let output = command.current_dir(folder).args(flags).output().unwrap();
    let judged = fs::read(folder.join("judged.json")).unwrap_or_default();
    (output, serde_json::from_slice(&judged).unwrap_or_default())
}

#[test]
fn soft_targets_are_judged_by_labels_and_refused_where_they_are_of_other_images() {
    if !has_onnx_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let labels = folder.path().join("data/labels");
    fs::create_dir_all(&labels).unwrap();
    // The boxes that the network gives: 24 by 12 pixels about a spot's centre.
    fs::write(labels.join("a.txt"), "0 0.34375 0.34375 0.1875 0.1875").unwrap();
    fs::write(labels.join("b.txt"), "1 0.65625 0.34375 0.1875 0.1875").unwrap();
    let config = "name = 'spots'\nclasses = ['car', 'bus']\n[detection]\ncar = 'car'\nbus = 'bus'\n";
    fs::write(folder.path().join("data/dataset.toml"), config).unwrap();
    assert!(soften(folder.path(), TEACHER).status.success());
    let (output, judged) = judge(folder.path());
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((&judged["AP50"], &judged["model"]), (&1.0.into(), &"tiny".into()), "{judged}");
    assert!(judged["mIoU"].is_null(), "{judged}");

    RgbImage::new(32, 16).save(folder.path().join("data/images/a.png")).unwrap();
    let refused = said(&judge(folder.path()).0);
    assert!(refused.contains("a.png") && refused.contains("soften again"), "{refused}");
    fs::rename(folder.path().join("data/images/a.png"), folder.path().join("data/images/c.png")).unwrap();
    fs::rename(labels.join("a.txt"), labels.join("c.txt")).unwrap();
    let refused = said(&judge(folder.path()).0);
    assert!(refused.contains("c.png") && refused.contains("distill soften"), "{refused}");
}

#[test]
fn without_a_gpu_teachers_are_refused_on_cuda_and_run_on_the_cpu_where_that_is_left_open() {
    if Path::new("/dev/nvidiactl").exists() || !has_onnx_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    for refused in [
        soften_with(folder.path(), TEACHER, &["--device", "cuda"]),
        soften_by_package(folder.path(), &["data", "--device", "cuda"]),
    ] {
        let said = said(&refused);
        assert!(!refused.status.success() && said.contains("--device cpu"), "{said}");
        assert!(said.contains("on --device cuda") && !said.contains("panicked"), "{said}");
    }
    let output = soften_with(folder.path(), TEACHER, &["--device", "auto"]);
    assert!(output.status.success() && said(&output).contains("on the CPU: "), "{}", said(&output));
    // What the CPU has made is the CPU's, however it was chosen.
    let output = soften(folder.path(), TEACHER);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn existing_soft_targets_are_not_made_again() {
    if !has_onnx_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    assert!(soften(folder.path(), TEACHER).status.success());
    let shard = folder.path().join("soft/spots-data-0000.safetensors");
    let written = fs::metadata(&shard).unwrap().modified().unwrap();
    assert!(soften(folder.path(), TEACHER).status.success());
    assert_eq!(fs::metadata(&shard).unwrap().modified().unwrap(), written);
}

#[test]
fn a_teacher_that_does_not_fit_its_description_names_the_tensor() {
    if !has_onnx_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    for (from, to, named) in [
        ("'heat'", "'hat'", "\"hat\""),
        ("input = 'x'", "input = 'y'", "\"y\""),
        ("strides = [4]", "strides = [8]", "\"heat\""),
        ("bus = [2]", "bus = [7]", "\"heat\""),
    ] {
        let output = soften(folder.path(), &TEACHER.replace(from, to));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(named), "{to}: {said}");
    }
}

#[test]
fn the_index_says_which_classes_the_teachers_know() {
    if !has_onnx_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    assert!(soften(folder.path(), TEACHER).status.success());
    let known = SoftTargets::open(&folder.path().join("soft")).unwrap().known;
    assert_eq!(known, (0..known.len()).map(|class| class == CAR || class == BUS).collect::<Vec<_>>());
}

#[test]
fn soft_targets_of_another_description_are_not_continued() {
    if !has_onnx_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    assert!(soften(folder.path(), TEACHER).status.success());
    let output = soften(folder.path(), &TEACHER.replace("colours = 'rgb'", "colours = 'bgr'"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("description") && said.contains("--out"), "{said}");
}

/// `distill soften` with a small package as the teacher, which needs no ONNX Runtime.
fn soften_by_package(folder: &Path, arguments: &[&str]) -> Output {
    let mut student = Student::embedded();
    (student.manifest.architecture.input.width, student.manifest.architecture.input.height) = (64, 32);
    student.save(&folder.join("model")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    command
        .current_dir(folder)
        .arg("soften")
        .args(if arguments.contains(&"--teacher") { &[][..] } else { &["--teacher", "model"] })
        .args(if arguments.contains(&"--out") { &[][..] } else { &["--out", "soft"] })
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_truncated_image_is_skipped_and_softened_once_repaired() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let path = folder.path().join("data/images/b.png");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let output = soften_by_package(folder.path(), &["data"]);
    assert!(!output.status.success() && said(&output).contains("b.png"), "{}", said(&output));
    let shard = folder.path().join("soft/spots-data-0000.safetensors");
    let has = |file: &str| SoftTargets::open(&folder.path().join("soft")).unwrap().of("spots/data", file).is_some();
    let skip = || {
        let output = soften_by_package(folder.path(), &["data", "--skip-bad"]);
        assert!(output.status.success(), "{}", said(&output));
        (said(&output), fs::metadata(&shard).unwrap().modified().unwrap())
    };
    let (first, written) = skip();
    assert!(first.contains("skipped files") && first.contains("b.png") && has("a.png") && !has("b.png"), "{first}");
    let (again, kept) = skip();
    assert!(again.contains("b.png") && kept == written, "{again}");
    fs::write(&path, &whole).unwrap();
    skip();
    assert!(has("a.png") && has("b.png"));
}

#[test]
fn a_replaced_image_is_softened_anew_and_refused_until_then() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    assert!(soften_by_package(folder.path(), &["data"]).status.success());
    let image = folder.path().join("data/images/a.png");
    let check = || {
        let soft = SoftTargets::open(&folder.path().join("soft")).unwrap();
        let hash = sha256(&fs::read(&image).unwrap());
        soft.check("spots/data", "a.png", &image, &hash).map_err(|e| e.to_string())
    };
    assert_eq!(check(), Ok(()));
    RgbImage::new(32, 16).save(&image).unwrap();
    let refused = check().unwrap_err();
    assert!(refused.contains("a.png") && refused.contains("soften again"), "{refused}");
    assert!(soften_by_package(folder.path(), &["data"]).status.success());
    assert_eq!(check(), Ok(()));
}

#[test]
fn folders_of_the_same_name_do_not_overwrite_each_other() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    fs::create_dir_all(folder.path().join("other")).unwrap();
    fs::rename(folder.path().join("data"), folder.path().join("other/data")).unwrap();
    pictures(folder.path());
    fs::rename(folder.path().join("data/images/b.png"), folder.path().join("data/images/c.png")).unwrap();
    let output = soften_by_package(folder.path(), &["data", "other/data"]);
    assert!(!output.status.success() && said(&output).contains("named spots/data"), "{}", said(&output));
    assert!(soften_by_package(folder.path(), &["data"]).status.success());
    let output = soften_by_package(folder.path(), &["other/data"]);
    assert!(!output.status.success() && said(&output).contains("another name in dataset.toml"), "{}", said(&output));
}

#[test]
fn a_package_gives_boxes_and_masks_or_one_of_them() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let gives = |part: &str, out: &str| {
        let teacher = format!("model{part}");
        let output = soften_by_package(folder.path(), &["data", "--teacher", &teacher, "--out", out]);
        assert!(output.status.success(), "{}", said(&output));
        let soft = SoftTargets::open(&folder.path().join(out)).unwrap();
        (soft.known.contains(&true), soft.segmentation.is_some())
    };
    assert_eq!(gives("", "both"), (true, true));
    assert_eq!(gives(":boxes", "boxes"), (true, false));
    assert_eq!(gives(":masks", "masks"), (false, true));
    // The same package for something else is another teacher.
    let output = soften_by_package(folder.path(), &["data", "--teacher", "model:boxes", "--out", "both"]);
    assert!(!output.status.success() && said(&output).contains("--out"), "{}", said(&output));
    let output = soften_by_package(folder.path(), &["data", "--teacher", "model:mask", "--out", "wrong"]);
    assert!(!output.status.success() && said(&output).contains("FOLDER:masks"), "{}", said(&output));
}

/// Two data sets, of 300 and of 2 pictures: three shards and one.
fn two_data_sets(folder: &Path) {
    pictures(folder);
    let many = folder.join("many");
    fs::create_dir_all(many.join("images")).unwrap();
    fs::copy(folder.join("data/dataset.toml"), many.join("dataset.toml")).unwrap();
    for i in 0..300 {
        fs::copy(folder.join("data/images/a.png"), many.join(format!("images/{i:03}.png"))).unwrap();
    }
}

#[test]
fn parts_of_several_machines_are_joined_to_what_one_makes() {
    let folder = tempfile::tempdir().unwrap();
    two_data_sets(folder.path());
    assert!(soften_by_package(folder.path(), &["many", "data"]).status.success());
    let merge = |parts: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
        command.current_dir(folder.path()).arg("merge").args(parts).args(["--out", "merged"]).output().unwrap()
    };
    for part in ["0/2", "1/2"] {
        let out = format!("part-{}", &part[..1]);
        let output = soften_by_package(folder.path(), &["many", "data", "--shard", part, "--out", &out]);
        assert!(output.status.success(), "{}", said(&output));
    }
    let alone = SoftTargets::open(&folder.path().join("part-0")).err().unwrap().to_string();
    assert!(alone.contains("part 0/2") && alone.contains("distill merge"), "{alone}");
    let missing = merge(&["part-1"]);
    assert!(!missing.status.success() && said(&missing).contains("--shard 0/2"), "{}", said(&missing));
    let twice = merge(&["part-1", "part-1"]);
    assert!(said(&twice).contains("are both part 1/2"), "{}", said(&twice));
    let output = merge(&["part-1", "part-0"]);
    assert!(output.status.success(), "{}", said(&output));
    for file in
        ["index.json", "spots-many-0000.safetensors", "spots-many-0002.safetensors", "spots-data-0000.safetensors"]
    {
        let read = |out: &str| fs::read(folder.path().join(out).join(file)).unwrap();
        assert!(read("soft") == read("merged"), "{file} differs");
    }

    // A part in the folder of another, one of fewer images, and one that was not finished.
    let output = soften_by_package(folder.path(), &["many", "data", "--shard", "1/2", "--out", "part-0"]);
    assert!(said(&output).contains("contains part 0/2, not part 1/2"), "{}", said(&output));
    let index = folder.path().join("part-1/index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("\"complete\": true", "\"complete\": false")).unwrap();
    let output = merge(&["part-0", "part-1"]);
    assert!(said(&output).contains("not finished: part-1 (part 1/2)"), "{}", said(&output));
    fs::write(&index, text.replace("\"shards\": 4", "\"shards\": 5")).unwrap();
    let output = merge(&["part-0", "part-1"]);
    assert!(said(&output).contains("not parts of one run"), "{}", said(&output));
    let output = merge(&["part-0", "soft"]);
    assert!(said(&output).contains("soft: is no part"), "{}", said(&output));
}

#[test]
fn a_folder_without_dataset_toml_uses_the_given_one() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    fs::rename(folder.path().join("data/dataset.toml"), folder.path().join("given.toml")).unwrap();
    let output = soften_by_package(folder.path(), &["data", "--config", "given.toml"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(SoftTargets::open(&folder.path().join("soft")).unwrap().of("spots/data", "a.png").is_some());
}

/// The same network as a segmenter: a cell's logits are ten times its colour.
fn segmenter() -> String {
    let text = TEACHER.replace("'centernet'", "'pixel_logits'").replace("['heat', 'sides']", "['heat']");
    let text = text.replace("strides = [4]\ncenter = 0.5\n", "").replace("255.0, 255.0, 255.0", "25.5, 25.5, 25.5");
    text.replace("car = [0]\nbus = [2]\n", "sky = [0]\nbuilding = [1]\nroad = [2]\n")
}

/// A training of two steps on what was softened, with `tables` added.
fn train(folder: &Path, tables: &str) -> Output {
    let keys = "steps = 2\nbatch = 2\nwarmup = 1\ncheckpoint_every = 2\ninput = [64, 64]\nsoft_targets = 'soft'\n";
    let text = format!("{keys}[[data]]\nfolder = 'data'\nshare = 1.0\n{tables}");
    fs::write(folder.join("train.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    command.current_dir(folder).args(["student", "train.toml", "--run", "run"]).output().unwrap()
}

const BY_PIXEL: &str = "[[method]]\nkind = 'kd'\non = 'segmentation'\n[[method]]\nkind = 'cwd'\n";

#[test]
fn a_segmenters_logits_cover_the_image_and_train_the_student() {
    if !has_onnx_runtime() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    let output = soften(folder.path(), &segmenter());
    assert!(output.status.success() && said(&output).contains("maps nothing to"), "{}", said(&output));
    let soft = SoftTargets::open(&folder.path().join("soft")).unwrap();
    let classes = soft.segmentation.as_ref().unwrap();
    assert!(soft.known.iter().all(|known| !known), "a segmenter knows no detection class");
    for (file, class, (x, y)) in [("a.png", "sky", (27, 13)), ("b.png", "road", (52, 13))] {
        let mask = soft.of("spots/data", file).unwrap().mask.as_ref().unwrap().read().unwrap();
        // 128 × 64 pixels fill the width of the student's 320 × 256.
        assert_eq!((mask.width, mask.height), (80, 40));
        let logit = |class: usize| mask.values[(class * 40 + y) * 80 + x].to_f32();
        let best = (0..classes.len()).max_by(|&a, &b| logit(a).total_cmp(&logit(b))).unwrap();
        assert!(classes[best] == class && logit(best) > 2.0, "{file}: {} at {}", classes[best], logit(best));
    }

    let output = train(folder.path(), BY_PIXEL);
    assert!(output.status.success(), "{}", said(&output));
    let log = fs::read_to_string(folder.path().join("run/log.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert!(line["methods"].as_array().unwrap().iter().all(|loss| loss.as_f64().unwrap() > 0.0), "{log}");
    let teachers = Student::load(&folder.path().join("run/student")).unwrap().manifest.training.teachers;
    assert_eq!(teachers, ["tiny"]);
}

#[test]
fn methods_for_masks_are_refused_without_soft_masks() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path());
    assert!(soften_by_package(folder.path(), &["data", "--teacher", "model:boxes"]).status.success());
    let output = train(folder.path(), BY_PIXEL);
    assert!(!output.status.success() && said(&output).contains("soft_targets of a segmenter"), "{}", said(&output));
}
