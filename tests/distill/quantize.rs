//! `distill quantize` end to end, on the sample frames with synthetic labels.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use peregrine_student::Student;
use tempfile::TempDir;

/// The embedded student at a small size, and two folders of sample frames with a car each.
fn workplace() -> TempDir {
    let dir = TempDir::new().unwrap();
    let mut student = Student::load(&peregrine_support::lite()).unwrap();
    (student.manifest.architecture.input.width, student.manifest.architecture.input.height) = (96, 64);
    student.save(&dir.path().join("model")).unwrap();
    let config = "name = \"frames\"\nclasses = [\"car\"]\n";
    for (split, stems) in [("train", ["highway-00", "street-20"]), ("val", ["highway-12", "street-26"])] {
        let folder = dir.path().join(split);
        fs::create_dir_all(folder.join("images")).unwrap();
        fs::create_dir_all(folder.join("labels")).unwrap();
        fs::write(folder.join("dataset.toml"), config).unwrap();
        for stem in stems {
            let frame = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("models/frames/{stem}.jpg"));
            fs::copy(frame, folder.join(format!("images/{stem}.jpg"))).unwrap();
            fs::write(folder.join(format!("labels/{stem}.txt")), "0 0.5 0.6 0.2 0.2\n").unwrap();
        }
    }
    dir
}

fn distill(dir: &TempDir, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    command.current_dir(dir.path()).args(arguments.split(' ')).output().unwrap()
}

#[test]
fn a_quantized_package_and_a_report_are_written() {
    let dir = workplace();
    let out = distill(
        &dir,
        "quantize --model model --data train --evaluate val --out int8 --max-drop 100 --keep-float backbone.stem",
    );
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));

    let student = Student::load(&dir.path().join("int8")).unwrap();
    let section = student.manifest.quantization.unwrap();
    assert_eq!(section.float_layers, ["backbone.stem"]);
    assert_eq!(section.data, [("frames/train".to_string(), 2)].into());
    assert!(student.manifest.accuracy["frames/val"].contains_key("AP50"));
    let report = fs::read(dir.path().join("int8/quantization.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert!(report["before"]["frames/val"]["AP50"].is_number() && report["after"]["frames/val"]["AP50"].is_number());
    assert!(report["latency"].as_array().unwrap().len() >= 2);
    assert_eq!(report["sensitivity"].as_array().unwrap().len(), student.quantization.unwrap().convs.len() + 1);
    let text = fs::read_to_string(dir.path().join("int8/quantization.txt")).unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), text);
    assert!(!dir.path().join("int8/progress.json").exists());

    let again = distill(&dir, "quantize --model int8 --data train --evaluate val --out twice");
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("already quantized"));
}

#[test]
fn truncated_images_are_skipped_on_request() {
    let dir = workplace();
    for path in ["train/images/street-20.jpg", "val/images/street-26.jpg"] {
        let path = dir.path().join(path);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }
    let command = "quantize --model model --data train --evaluate val --out int8 --max-drop 100";
    let out = distill(&dir, command);
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && error.contains("street-20.jpg") && error.contains("--skip-bad"), "{error}");
    let out = distill(&dir, &format!("{command} --skip-bad"));
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && error.contains("skipped files: 1") && error.contains("street-20.jpg"), "{error}");
    let section = Student::load(&dir.path().join("int8")).unwrap().manifest.quantization.unwrap();
    assert_eq!(section.data, [("frames/train".to_string(), 1)].into());
}

#[test]
fn invalid_options_are_named() {
    let dir = workplace();
    for (arguments, named) in [
        ("--data train --evaluate train", "train is given to --data and to --evaluate"),
        ("--data train --evaluate val --keep-float neck.99", "neck.99"),
        ("--data train --evaluate nowhere", "nowhere"),
        ("--data train", "give --evaluate"),
        ("--data train --evaluate val --max-drop=-1", "--max-drop"),
    ] {
        let out = distill(&dir, &format!("quantize --model model --out int8 {arguments}"));
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && error.contains(named), "{arguments}: {error}");
        assert!(!dir.path().join("int8/manifest.json").exists());
    }
}
