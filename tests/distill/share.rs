//! `distill share` as a user meets it: a smaller file that holds what the engines compute with.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use peregrine_student::Student;

fn share(out: &Path, bits: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    let output = command.args(["share", "--bits", bits, "--out"]).arg(out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_file_shrinks_and_no_layer_of_many_weights_has_more_values_than_its_codes_tell_apart() {
    let folder = tempfile::tempdir().unwrap();
    let said = share(folder.path(), "5");
    assert!(said.contains("weights file, KiB"), "{said}");
    let (embedded, small) = (Student::embedded(), Student::load(folder.path()).unwrap());
    assert!(3 * small.weights_file().len() < 2 * embedded.weights_file().len(), "{said}");
    let mut large = 0;
    for (layer, _, shape) in embedded.graph().convs() {
        let name = &layer.name;
        let weight = &small.weights.of(name).weight;
        if shape[1] == 1 {
            assert!(*weight == embedded.weights.of(name).weight, "{name} is depthwise");
        } else if weight.len() > 1000 {
            let values: BTreeSet<u32> = weight.iter().map(|v| v.to_bits()).collect();
            assert!(values.len() <= 32, "{name} has {} values", values.len());
            large += 1;
        }
    }
    assert!(large > 20);
}

#[test]
fn an_image_to_judge_by_that_breaks_off_stops_it_or_is_left_out() {
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
    let mut student = Student::embedded();
    (student.manifest.architecture.input.width, student.manifest.architecture.input.height) = (64, 32);
    student.save(&folder.path().join("model")).unwrap();
    let share = |extra: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
        command.current_dir(folder.path()).args(["share", "--model", "model", "--bits", "1"]);
        command.args(["--out", "small", "--judge", "data"]).args(extra);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, said) = share(&[]);
    assert!(!done && said.contains("broken.jpg") && said.contains("--skip-bad"), "{said}");
    let (done, said) = share(&["--skip-bad"]);
    assert!(done && said.contains("data: skipped files: 1"), "{said}");
}

#[test]
fn a_damaged_package_costs_one_sentence_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    share(folder.path(), "4");
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
