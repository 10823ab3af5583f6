//! `distill teacher`, and `distill student` in 8 bits, as a user runs them, on three sample
//! frames.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use peregrine_distill::quantize;
use peregrine_student::Student;

fn distill(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_distill")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn frame(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/frames").join(format!("{name}.jpg"))
}

/// A data set of three frames with a box each.
fn data(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    fs::create_dir_all(data.join("images")).unwrap();
    fs::create_dir_all(data.join("labels")).unwrap();
    for name in ["highway-00", "street-20", "yard-82"] {
        fs::copy(frame(name), data.join("images").join(format!("{name}.jpg"))).unwrap();
        fs::write(data.join("labels").join(format!("{name}.txt")), "0 0.5 0.5 0.4 0.4").unwrap();
    }
    fs::write(data.join("dataset.toml"), "name = 'tiny'\nclasses = ['car']\n[detection]\ncar = 'car'\n").unwrap();
    data
}

/// A configuration for two steps on it.
fn config(folder: &Path, name: &str, keys: &str, tables: &str) -> PathBuf {
    let path = folder.join(name);
    let data = folder.join("data");
    let text = format!(
        "steps = 2\nbatch = 1\nwarmup = 1\ncheckpoint_every = 2\ninput = [64, 64]\n{keys}\n[[data]]\nfolder = '{}'\n\
         share = 1.0\n{tables}",
        data.display()
    );
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_trained_resnet_teaches_offline_and_on_each_view() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let run = folder.path().join("teacher-run");
    let teacher = config(folder.path(), "teacher.toml", "backbone = 'resnet18'", "");
    let output = distill(&["teacher", text(&teacher), "--run", text(&run)]);
    assert!(output.status.success(), "{}", said(&output));
    let package = run.join("teacher");

    let soft = folder.path().join("soft");
    let output = distill(&["soften", text(&data), "--out", text(&soft), "--teacher", text(&package)]);
    assert!(output.status.success(), "{}", said(&output));

    let tables = format!(
        "[teacher]\npackage = '{}'\n[[method]]\nkind = 'kd'\nweight = 1.0\non = 'class'\ntemperature = 2.0\n",
        package.display()
    );
    let keys = format!("soft_targets = '{}'", soft.display());
    let student = config(folder.path(), "student.toml", &keys, &tables);
    let run = folder.path().join("student-run");
    let output = distill(&["student", text(&student), "--run", text(&run)]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(Student::load(&run.join("student")).unwrap().manifest.training.teachers.len() == 2);
}

#[test]
fn a_teacher_without_a_backbone_is_refused_with_the_choices() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let teacher = config(folder.path(), "teacher.toml", "", "");
    let output = distill(&["teacher", text(&teacher), "--run", text(&folder.path().join("run"))]);
    assert!(!output.status.success());
    assert!(said(&output).contains("backbone") && said(&output).contains("resnet50"), "{}", said(&output));
}

#[test]
fn a_student_trained_in_8_bits_keeps_the_package_s_scales() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let embedded = Student::embedded();
    let mut quantized = quantize::quantize(&embedded, &[frame("highway-00"), frame("yard-82")]).unwrap();
    let int8 = folder.path().join("int8");
    quantized.save(&int8).unwrap();
    let init = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/peregrine-s");
    let keys = format!("init = '{}'\nquantized_as = '{}'", init.display(), int8.display());
    let student = config(folder.path(), "student.toml", &keys, "");
    let run = folder.path().join("run");
    let output = distill(&["student", text(&student), "--run", text(&run)]);
    assert!(output.status.success(), "{}", said(&output));
    let trained = Student::load(&run.join("student")).unwrap();
    let (before, after) = (quantized.quantization.unwrap(), trained.quantization.unwrap());
    assert_eq!(before.tensors, after.tensors);
    for (name, conv) in &before.convs {
        assert_eq!(conv.scale, after.convs[name].scale, "{name}");
    }
    assert!(before.convs.iter().any(|(name, conv)| conv.weight != after.convs[name].weight), "no weight has changed");
}

#[test]
fn training_in_8_bits_needs_a_package_in_8_bits() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/peregrine-s");
    let keys = format!("quantized_as = '{}'", plain.display());
    let student = config(folder.path(), "student.toml", &keys, "");
    let output = distill(&["student", text(&student), "--run", text(&folder.path().join("run"))]);
    assert!(!output.status.success());
    assert!(said(&output).contains("quantized_as") && said(&output).contains("distill quantize"), "{}", said(&output));
}
