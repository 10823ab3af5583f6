//! `distill cluster` as a program: a smaller file with the values that the engines compute with.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use peregrine_student::Student;

fn cluster(out: &Path, bits: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    let output = command
        .args(["cluster", "--bits", bits, "--out"])
        .arg(out)
        .arg("--model")
        .arg(peregrine_support::lite())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_file_shrinks_and_each_large_layer_has_at_most_2_to_the_bits_values() {
    let folder = tempfile::tempdir().unwrap();
    let said = cluster(folder.path(), "5");
    assert!(said.contains("weights file, KiB"), "{said}");
    let (given, small) = (Student::load(&peregrine_support::lite()).unwrap(), Student::load(folder.path()).unwrap());
    assert!(3 * small.weights_file().len() < 2 * given.weights_file().len(), "{said}");
    let mut large = 0;
    for (layer, _, shape) in given.graph().convs() {
        let name = &layer.name;
        let weight = &small.weights.of(name).weight;
        if shape[1] == 1 {
            assert!(*weight == given.weights.of(name).weight, "{name} is depthwise");
        } else if weight.len() > 1000 {
            let values: BTreeSet<u32> = weight.iter().map(|v| v.to_bits()).collect();
            assert!(values.len() <= 32, "{name} has {} values", values.len());
            large += 1;
        }
    }
    assert!(large > 20);
}

#[test]
fn a_truncated_image_stops_the_command_or_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("images")).unwrap();
    fs::create_dir_all(data.join("labels")).unwrap();
    fs::write(data.join("dataset.toml"), "name = 'tiny'\nclasses = ['car']\n").unwrap();
    let frame = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/frames/street-20.jpg");
    let bytes = fs::read(frame).unwrap();
    for (name, bytes) in [("whole", &bytes[..]), ("broken", &bytes[..bytes.len() / 2])] {
        fs::write(data.join(format!("images/{name}.jpg")), bytes).unwrap();
        fs::write(data.join(format!("labels/{name}.txt")), "0 0.5 0.5 0.4 0.4").unwrap();
    }
    let mut student = Student::load(&peregrine_support::lite()).unwrap();
    (student.manifest.architecture.input.width, student.manifest.architecture.input.height) = (64, 32);
    student.save(&folder.path().join("model")).unwrap();
    let cluster = |extra: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
        command.current_dir(folder.path()).args(["cluster", "--model", "model", "--bits", "1"]);
        command.args(["--out", "small", "--judge", "data"]).args(extra);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, said) = cluster(&[]);
    assert!(!done && said.contains("broken.jpg") && said.contains("--skip-bad"), "{said}");
    let (done, said) = cluster(&["--skip-bad"]);
    assert!(done && said.contains("data: skipped files: 1"), "{said}");
}

#[test]
fn a_damaged_package_is_refused_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    cluster(folder.path(), "4");
    let path = folder.path().join("manifest.json");
    let manifest = fs::read_to_string(&path).unwrap();
    for (from, to, named) in [
        ("\"shared_bits\": 4", "\"shared_bits\": 9", "shared_bits is 9"),
        ("\"shared_bits\": 4", "\"shared_bits\": 5", "codes of 5 bits"),
        ("\"shared_bits\": 4", "\"shared_bits\": null", "lacks its weights.shared_bits"),
        ("\"format_version\": 3", "\"format_version\": 1", "has weights.shared_bits"),
    ] {
        assert!(manifest.contains(from), "{from} is not in {manifest}");
        fs::write(&path, manifest.replacen(from, to, 1)).unwrap();
        let error = Student::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains(named) && error.contains(folder.path().to_str().unwrap()), "{to}: {error}");
    }
}

#[test]
fn the_old_name_share_is_accepted_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    let output = command.args(["share", "--bits", "4", "--out"]).arg(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("distill share is now distill cluster"), "{said}");
    assert_eq!(Student::load(folder.path()).unwrap().manifest.weights.cluster_bits, Some(4));
}
