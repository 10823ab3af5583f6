//! `distill evaluate` as a program, on small synthetic data sets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{GrayImage, Luma};
use serde_json::Value;
use tempfile::TempDir;

const FRAME: &str = "models/frames/highway-00.jpg";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A folder with copies of a frame under `stems`, each with `labels` as its YOLO text.
fn folder(stems: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for part in ["images", "labels"] {
        fs::create_dir(dir.path().join(part)).unwrap();
    }
    for (stem, labels) in stems {
        fs::copy(root().join(FRAME), dir.path().join(format!("images/{stem}.jpg"))).unwrap();
        fs::write(dir.path().join(format!("labels/{stem}.txt")), labels).unwrap();
    }
    dir
}

fn evaluate(folder: &Path, args: &[&str]) -> Output {
    let json = folder.join("out.json");
    Command::new(env!("CARGO_BIN_EXE_distill"))
        .args(["evaluate", "--data"])
        .arg(folder)
        .arg("--json")
        .arg(&json)
        .args(args)
        .output()
        .unwrap()
}

fn figures(folder: &Path, args: &[&str]) -> Value {
    let output = evaluate(folder, args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&fs::read(folder.join("out.json")).unwrap()).unwrap()
}

fn failure(folder: &Path, args: &[&str]) -> String {
    let output = evaluate(folder, args);
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn classes_can_be_given_by_flag_without_dataset_toml() {
    let dir = folder(&[("a", "1 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.1 0.1\n")]);
    let found = figures(dir.path(), &["--classes", "tree,car"]);
    assert_eq!(found["detection"]["car"]["objects"], 1);
    assert!(found["AP50"].is_number() && found["detection"].get("bus").is_none());
}

#[test]
fn classes_unknown_to_the_student_are_refused() {
    let dir = folder(&[("a", "0 0.5 0.5 0.2 0.2")]);
    let error = failure(dir.path(), &["--classes", "tree,shrub"]);
    assert!(error.contains("two-wheeler"), "{error}");
}

#[test]
fn duplicates_are_counted_and_with_distinct_evaluated_once() {
    let dir = folder(&[("a", "0 0.5 0.5 0.2 0.2"), ("b", "0 0.5 0.5 0.2 0.2")]);
    let found = figures(dir.path(), &["--classes", "car"]);
    assert_eq!((&found["images"], &found["copies"]), (&2.into(), &1.into()));
    let found = figures(dir.path(), &["--classes", "car", "--distinct"]);
    assert_eq!((&found["images"], &found["detection"]["car"]["objects"]), (&1.into(), &1.into()));
}

#[test]
fn masks_are_evaluated_by_class_with_their_calibration() {
    let dir = folder(&[("a", "")]);
    fs::remove_file(dir.path().join("labels/a.txt")).unwrap();
    let (width, height) = image::image_dimensions(root().join(FRAME)).unwrap();
    GrayImage::from_pixel(width, height, Luma([1])).save(dir.path().join("labels/a.png")).unwrap();
    let found = figures(dir.path(), &["--mask-classes", "sky,road"]);
    let road = found["segmentation"]["road"].as_f64().unwrap();
    assert!(road > 0.0 && road < 1.0);
    assert!(found["ECE_segmentation"].is_number() && found["AP50"].is_null());
}

#[test]
fn the_page_shows_false_negatives() {
    // A "bus" in the sky.
    let dir = folder(&[("a", "0 0.5 0.05 0.3 0.08")]);
    let pictures = dir.path().join("pictures");
    figures(dir.path(), &["--classes", "bus", "--pictures", pictures.to_str().unwrap()]);
    let page = fs::read_to_string(pictures.join("mistakes.html")).unwrap();
    assert!(page.contains("False negatives, the largest first (1 in all)"));
    assert!(page.contains("data:image/jpeg;base64,"));
}

#[test]
fn a_truncated_image_stops_the_run_or_is_counted() {
    let dir = folder(&[("a", "0 0.5 0.5 0.2 0.2"), ("b", "0 0.5 0.5 0.2 0.2")]);
    let path = dir.path().join("images/b.jpg");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..600]).unwrap();
    let error = failure(dir.path(), &["--classes", "car"]);
    assert!(error.contains("b.jpg") && error.contains("--skip-bad"), "{error}");
    let found = figures(dir.path(), &["--classes", "car", "--skip-bad"]);
    assert_eq!((&found["images"], &found["skipped"]), (&1.into(), &1.into()));
}

#[test]
fn a_folder_without_labels_is_refused() {
    let dir = folder(&[("a", "")]);
    fs::remove_file(dir.path().join("labels/a.txt")).unwrap();
    let error = failure(dir.path(), &["--classes", "car"]);
    assert!(error.contains("labels/"), "{error}");
}

#[test]
fn another_input_size_is_used_and_reported() {
    let dir = folder(&[("a", "0 0.5 0.5 0.2 0.2")]);
    assert_eq!(
        figures(dir.path(), &["--classes", "car", "--input", "160x128"])["input"],
        serde_json::json!([160, 128])
    );
}
