//! `distill select` as a program, on the repository's frames.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const MODEL: &str = "models/peregrine-s";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A folder of four frames, of which one is there twice, and of a file that is none.
fn frames() -> TempDir {
    let dir = TempDir::new().unwrap();
    for name in ["highway-00", "highway-24", "street-20", "yard-82"] {
        fs::copy(root().join(format!("models/frames/{name}.jpg")), dir.path().join(format!("{name}.jpg"))).unwrap();
    }
    fs::copy(root().join("models/frames/street-20.jpg"), dir.path().join("twin.jpg")).unwrap();
    fs::write(dir.path().join("notes.txt"), "seen from the bridge").unwrap();
    dir
}

fn select(frames: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    command.current_dir(root()).arg("select").arg(frames).arg("--out").arg(out).args(more).output().unwrap()
}

fn selected(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("selected.json")).unwrap()).unwrap()
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_selection_is_a_list_a_folder_labels_and_a_page_without_near_copies() {
    let (frames, out) = (frames(), TempDir::new().unwrap());
    let by = ["--model", MODEL, "--teacher", MODEL, "--budget", "5"];
    let log = succeeds(&select(frames.path(), out.path(), &by));
    assert!(log.contains("notes.txt"), "{log}");
    let first = selected(out.path());
    let list = first["selected"].as_array().unwrap();
    // The twin is left out, though the budget would allow for it.
    assert_eq!((list.len(), first["near_copies"].as_array().unwrap().len()), (4, 1));
    assert_eq!(fs::read_to_string(out.path().join("selected.txt")).unwrap().lines().count(), 4);
    assert_eq!(fs::read_dir(out.path().join("images")).unwrap().count(), 4);
    assert!(list.iter().all(|frame| frame["reason"].as_str().is_some_and(|reason| !reason.is_empty())));
    let page = fs::read_to_string(out.path().join("selection.html")).unwrap();
    assert!(page.contains("highway-24.jpg") && page.contains("data:image/jpeg;base64,"));
    let coco: Value = serde_json::from_slice(&fs::read(out.path().join("annotations.json")).unwrap()).unwrap();
    assert_eq!(coco["categories"].as_array().unwrap().len(), 5);
    let labels = coco["annotations"].as_array().unwrap();
    assert!(!labels.is_empty());
    for label in labels {
        let image = &coco["images"][label["image_id"].as_u64().unwrap() as usize - 1];
        assert!(out.path().join("images").join(image["file_name"].as_str().unwrap()).is_file());
        let b: Vec<f64> = label["bbox"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert!(b[0] >= 0.0 && b[0] + b[2] <= image["width"].as_f64().unwrap() + 1e-3, "{label}");
    }

    // A run that was killed in the middle of a line goes on, to the same selection.
    let analysis = out.path().join("analysis.jsonl");
    let whole = fs::read(&analysis).unwrap();
    fs::write(&analysis, &whole[..whole.len() - 40]).unwrap();
    succeeds(&select(frames.path(), out.path(), &by));
    assert_eq!(selected(out.path()), first);
    let lines = |bytes: &[u8]| bytes.iter().filter(|&&b| b == b'\n').count();
    assert_eq!(lines(&fs::read(&analysis).unwrap()), lines(&whole));

    // Another budget takes the most valuable of them, and leaves none of the others behind.
    succeeds(&select(frames.path(), out.path(), &["--model", MODEL, "--teacher", MODEL, "--budget", "2"]));
    assert_eq!(selected(out.path())["selected"].as_array().unwrap()[..], list[..2]);
    assert_eq!(fs::read_dir(out.path().join("images")).unwrap().count(), 2);
}

#[test]
fn the_rule_decides_the_selection_and_coverage_needs_no_teacher() {
    let frames = frames();
    let taken = |more: &[&str]| {
        let out = TempDir::new().unwrap();
        succeeds(&select(frames.path(), out.path(), &[&["--model", MODEL, "--budget", "2"], more].concat()));
        selected(out.path())["selected"].clone()
    };
    let (alone, disagreed) = (taken(&[]), taken(&["--strategy", "disagreement", "--teacher", MODEL]));
    assert!(alone[0]["student_disagreement"].is_null() && alone[0]["nearer"] == 5, "{alone}");
    assert!(disagreed[0]["student_disagreement"].is_number() && disagreed[0]["nearer"].is_null(), "{disagreed}");
    assert_eq!(taken(&["--teacher", MODEL])[0]["file"], alone[0]["file"]);
}

#[test]
fn a_random_draw_needs_no_networks_and_repeats_by_its_seed() {
    let frames = frames();
    let draw = |seed: &str| {
        let out = TempDir::new().unwrap();
        succeeds(&select(frames.path(), out.path(), &["--strategy", "random", "--budget", "3", "--seed", seed]));
        selected(out.path())["selected"].as_array().unwrap().iter().map(|f| f["file"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(draw("7"), draw("7"));
    assert!((0..9).any(|seed| draw(&seed.to_string()) != draw("7")));
}

#[test]
fn what_does_not_fit_a_selection_is_refused_in_a_sentence() {
    let (frames, out, empty) = (frames(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let refused = |from: &Path, more: &[&str]| {
        let output = select(from, out.path(), more);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let error = refused(frames.path(), &["--budget", "2", "--model", MODEL, "--strategy", "disagreement"]);
    assert!(error.contains("--teacher"), "{error}");
    let error = refused(frames.path(), &["--budget", "2"]);
    assert!(error.contains("--model"), "{error}");
    let random = ["--strategy", "random", "--budget"];
    let error = refused(frames.path(), &[&random[..], &["0"]].concat());
    assert!(error.contains("--budget 0"), "{error}");
    let error = refused(empty.path(), &[&random[..], &["1"]].concat());
    assert!(error.contains("no image"), "{error}");
    fs::write(frames.path().join("bad.jpg"), "not a picture").unwrap();
    let by = ["--budget", "2", "--model", MODEL, "--teacher", MODEL];
    let error = refused(frames.path(), &by);
    assert!(error.contains("bad.jpg") && error.contains("--skip-bad"), "{error}");
    let log = succeeds(&select(frames.path(), out.path(), &[&by[..], &["--skip-bad"]].concat()));
    assert!(log.contains("bad.jpg"), "{log}");
}
