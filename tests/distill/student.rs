//! `distill student` and `distill evaluate` as a user runs them, on three sample frames.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

fn distill(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    command.args(arguments);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A data set of three frames with a box each, and a configuration for four small steps on it.
fn project(folder: &Path, extra: &str) -> PathBuf {
    let (images, labels) = (folder.join("data/images"), folder.join("data/labels"));
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(&labels).unwrap();
    let frames = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/frames");
    for name in ["highway-00", "street-20", "yard-82"] {
        fs::copy(frames.join(format!("{name}.jpg")), images.join(format!("{name}.jpg"))).unwrap();
        fs::write(labels.join(format!("{name}.txt")), "0 0.5 0.5 0.4 0.4").unwrap();
    }
    fs::write(folder.join("data/dataset.toml"), "name = 'tiny'\nclasses = ['car']\n[detection]\ncar = 'car'\n")
        .unwrap();
    let config = folder.join("train.toml");
    let data = folder.join("data");
    let text = format!(
        "steps = 4\nbatch = 2\ncheckpoint_every = 1\nwarmup = 1\n{extra}\n[[data]]\nfolder = '{}'\nshare = 1.0\n",
        data.display()
    );
    fs::write(&config, text).unwrap();
    config
}

const MEAN_TEACHER: &str = "[teacher]\naverage = true\n[[method]]\nkind = 'kd'\non = 'class'\nweight = 0.5\n";

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_run_killed_at_any_moment_resumes_to_the_same_student() {
    let folder = tempfile::tempdir().unwrap();
    // With the largest state that a checkpoint holds: the teacher is the student's own average.
    let config = project(folder.path(), MEAN_TEACHER);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let output = distill(&["student", text(&config), "--run", text(&whole)]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));

    let mut child = distill(&["student", text(&config), "--run", text(&killed)]).spawn().unwrap();
    let begun = Instant::now();
    while !killed.join("checkpoint.safetensors").exists() && begun.elapsed() < Duration::from_secs(300) {
        sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let output = distill(&["student", text(&config), "--run", text(&killed)]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));

    let weights = |run: &Path| fs::read(run.join("student/weights.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&killed), "the weights differ");

    let out = folder.path().join("out.json");
    let model = whole.join("student");
    let data = folder.path().join("data");
    let output = distill(&["evaluate", text(&data), "--model", text(&model), "--json", text(&out), "--record"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let figures: serde_json::Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert_eq!(figures["images"], 3);
    assert!(figures["AP50"].is_number());
    let manifest = fs::read_to_string(model.join("manifest.json")).unwrap();
    assert!(manifest.contains("tiny/data"), "the figures are recorded: {manifest}");
}

/// A run of two steps: its configuration, its folder and its checkpoint.
fn two_steps(folder: &Path) -> (PathBuf, PathBuf, Vec<u8>) {
    let config = project(folder, "");
    let longer = fs::read_to_string(&config).unwrap();
    fs::write(&config, longer.replace("steps = 4", "steps = 2")).unwrap();
    let run = folder.join("run");
    let output = distill(&["student", text(&config), "--run", text(&run)]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let checkpoint = fs::read(run.join("checkpoint.safetensors")).unwrap();
    fs::write(&config, longer).unwrap();
    (config, run, checkpoint)
}

#[test]
fn a_deterministic_run_has_equal_weights_whatever_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let config = project(folder.path(), "deterministic = true\ninput = [96, 64]");
    let weights = |threads: &str, cache: &str| {
        let run = folder.path().join(format!("{threads}-{cache}"));
        let with = ["--threads", threads, "--loader-threads", threads, "--image-cache", cache];
        let output = distill(&["student", text(&config), "--run", text(&run)]).args(with).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        fs::read(run.join("student/weights.safetensors")).unwrap()
    };
    let expected = weights("1", "0");
    assert!(weights("1", "64") == expected && weights("3", "64") == expected, "the weights differ");
}

#[test]
fn a_process_that_cannot_join_the_others_does_not_train_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = project(folder.path(), "");
    let run = folder.path().join("run");
    let mut command = distill(&["student", text(&config), "--run", text(&run)]);
    // As srun starts them without --mpi; a program with MPI and one without refuse it.
    let output = command.env("SLURM_STEP_NUM_TASKS", "2").env_remove("PMIX_RANK").output().unwrap();
    let said = said(&output);
    assert!(!output.status.success() && said.contains("2 ranks were started") && said.contains("mpi"), "{said}");
    assert!(!run.exists());
}

#[test]
fn a_run_killed_before_its_package_writes_it_when_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let (config, run, _) = two_steps(folder.path());
    let shorter = fs::read_to_string(&config).unwrap().replace("steps = 4", "steps = 2");
    fs::write(&config, shorter).unwrap();
    let (weights, manifest) = (run.join("student/weights.safetensors"), run.join("student/manifest.json"));
    let before = fs::read(&weights).unwrap();
    fs::remove_dir_all(run.join("student")).unwrap();
    let train = || {
        let output = distill(&["student", text(&config), "--run", text(&run)]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    train();
    assert!(fs::read(&weights).unwrap() == before, "the weights differ");
    // A metric recorded since is kept when the finished run is started again.
    let recorded =
        fs::read_to_string(&manifest).unwrap().replace("\"accuracy\": {}", "\"accuracy\": {\"a\": {\"AP50\": 0.5}}");
    fs::write(&manifest, &recorded).unwrap();
    train();
    assert!(recorded.contains("AP50") && fs::read_to_string(&manifest).unwrap() == recorded);
}

#[test]
fn a_loss_that_is_not_finite_keeps_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (config, run, checkpoint) = two_steps(folder.path());
    let diverging = fs::read_to_string(&config).unwrap() + "[loss]\nbox_weight = 1e39\n";
    fs::write(&config, diverging).unwrap();
    let output = distill(&["student", text(&config), "--run", text(&run), "--reconfigure"]).output().unwrap();
    let said = said(&output);
    assert!(!output.status.success() && said.contains("the loss of step 2 is not finite"), "{said}");
    assert!(said.contains(".jpg") && said.contains("checkpoint.safetensors"), "{said}");
    assert!(fs::read(run.join("checkpoint.safetensors")).unwrap() == checkpoint);
}

/// A limit on the size of files stands in for a full disk: writing fails in the same place.
#[test]
#[cfg(unix)]
fn a_full_disk_is_one_error_and_keeps_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (config, run, checkpoint) = two_steps(folder.path());
    let distill = env!("CARGO_BIN_EXE_distill");
    let output = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$@\"", "bash", distill, "student", text(&config)])
        .args(["--run", text(&run), "--reconfigure"])
        .output()
        .unwrap();
    let said = said(&output);
    assert!(!output.status.success() && said.contains("checkpoint.safetensors: File too large"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(fs::read(run.join("checkpoint.safetensors")).unwrap() == checkpoint);
    let left: Vec<_> = fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}

#[test]
fn a_mistake_in_the_configuration_is_one_sentence_by_field() {
    let folder = tempfile::tempdir().unwrap();
    for (line, named) in [
        ("learning_rate = 7.0", "learning_rate"),
        ("frozen_stages = 2", "frozen_stages"),
        ("colour = 1", "colour"),
        ("init = '/nowhere.safetensors'", "/nowhere.safetensors"),
        ("soft_targets = '/nowhere'", "/nowhere"),
        ("[teacher]\naverage = true\npackage = '/nowhere'", "one of the two"),
        ("[teacher]\naverage = true\n[[method]]\nkind = 'cross'", "needs a [teacher] with a package"),
        ("[teacher]\naverage = true", "[teacher] needs a [[method]]"),
    ] {
        let config = project(folder.path(), line);
        let run = folder.path().join("run");
        let output = distill(&["student", text(&config), "--run", text(&run)]).output().unwrap();
        assert!(!output.status.success());
        assert!(said(&output).contains(named), "{line}: {}", said(&output));
    }
}

#[test]
fn a_teacher_without_onnx_runtime_is_told_where_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path(), "");
    let data = folder.path().join("data");
    let out = folder.path().join("soft");
    let teacher = "models/teachers/nanodet_416.toml=nanodet_416.onnx";
    let output = distill(&["soften", text(&data), "--out", text(&out), "--teacher", teacher])
        .args(["--onnxruntime", "/nowhere/libonnxruntime.so"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(said(&output).contains("pip install onnxruntime"), "{}", said(&output));
}
