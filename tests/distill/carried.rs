//! A training that `bench/gpu.sh` packs and runs elsewhere, here rehearsed on the CPU; and `--minutes`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::distill;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// In `here`, a configuration of many small steps; it names a data set beside that folder, and through a link a package.
fn project(folder: &Path) -> PathBuf {
    let (here, data) = (folder.join("here"), folder.join("data"));
    fs::create_dir_all(&here).unwrap();
    for part in ["images", "labels"] {
        fs::create_dir_all(data.join(part)).unwrap();
    }
    let frames = peregrine_support::root().join("models/frames");
    for name in ["highway-00", "street-20", "yard-82"] {
        fs::copy(frames.join(format!("{name}.jpg")), data.join(format!("images/{name}.jpg"))).unwrap();
        fs::write(data.join(format!("labels/{name}.txt")), "0 0.5 0.5 0.4 0.4").unwrap();
    }
    fs::write(here.join("own.toml"), "name = 'tiny'\nclasses = ['car']\n").unwrap();
    std::os::unix::fs::symlink(peregrine_support::lite(), here.join("start")).unwrap();
    let text = "steps = 1000000\nbatch = 2\ninput = [64, 64]\ninit = 'start'\n[[data]]\nfolder = '../data'\nconfig = \
                'own.toml'\nshare = 1.0\n";
    fs::write(here.join("train.toml"), text).unwrap();
    here
}

/// The steps of the checkpoint in a run's folder.
fn steps(run: &Path) -> u64 {
    let bytes = fs::read(run.join("checkpoint.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    header.metadata().as_ref().unwrap()["step"].parse().unwrap()
}

#[test]
fn a_training_ends_with_its_time_and_goes_on_with_more() {
    let folder = tempfile::tempdir().unwrap();
    let here = project(folder.path());
    let mut before = 0;
    for minutes in ["0.0001", "0.02"] {
        let said = distill(&here, &format!("student train.toml --run run --device cpu --minutes {minutes}")).unwrap();
        let done = steps(&here.join("run"));
        assert!(done > before && done < 1_000_000, "{done}");
        assert!(said.contains(&format!("--minutes are over after step {done} of 1000000: start again")), "{said}");
        assert!(said.contains("images/s over") && said.contains("the student is in run/student"), "{said}");
        let manifest = fs::read_to_string(here.join("run/student/manifest.json")).unwrap();
        assert!(manifest.contains(&format!("\"steps\": {done}")), "{manifest}");
        let speed: Value = serde_json::from_slice(&fs::read(here.join("run/speed.json")).unwrap()).unwrap();
        assert_eq!((&speed["batch"], &speed["device"]), (&2.into(), &"the CPU".into()));
        let timed = speed["steps"].as_u64().unwrap() + speed["left_out"].as_u64().unwrap();
        assert_eq!(timed, done - before, "{speed}");
        before = done;
    }
    let why = distill(&here, "student train.toml --minutes 0").unwrap_err();
    assert!(why.contains("a number of minutes above 0"), "{why}");
}

/// `bench/gpu.sh`, or the copy of it in a folder.
fn script(script: &Path, folder: &Path, line: &str) -> Output {
    let mut command = Command::new("bash");
    command.arg(script).args(line.split(' ')).current_dir(folder).env("DISTILL", env!("CARGO_BIN_EXE_distill"));
    let python = peregrine_support::root().join("target/peers/bin/python");
    if python.is_file() {
        command.env("PYTHON", python);
    }
    command.env_remove("OUT").output().unwrap()
}

#[test]
fn a_packed_training_runs_from_its_pieces_alone() {
    let folder = tempfile::tempdir().unwrap();
    let here = project(folder.path());
    let source = peregrine_support::root().join("bench/gpu.sh");
    let packed = script(&source, &here, "train-pack train.toml carried");
    let text = said(&packed);
    if text.contains("build it on an older system") {
        return peregrine_support::skip("glibc", "this system's programs need a newer glibc than a package may");
    }
    assert!(packed.status.success() && text.contains(" pieces, "), "{text}");

    // Only the pieces, the manifest and the script travel.
    let there = folder.path().join("elsewhere/train");
    fs::create_dir_all(&there).unwrap();
    for entry in fs::read_dir(here.join("carried")).unwrap() {
        let path = entry.unwrap().path();
        assert!(fs::metadata(&path).unwrap().len() < 60 << 20, "{}", path.display());
        fs::copy(&path, there.join(path.file_name().unwrap())).unwrap();
    }
    fs::remove_dir_all(&here).unwrap();
    fs::remove_dir_all(folder.path().join("data")).unwrap();
    let carried = there.join("gpu.sh");
    let run = |line: &str| script(&carried, folder.path(), line);

    let piece = fs::read(there.join("piece-000")).unwrap();
    fs::write(there.join("piece-000"), &piece[1..]).unwrap();
    let damaged = said(&run("train 1 --device cpu"));
    assert!(damaged.contains("missing or damaged") && damaged.contains("piece-000; carry them again"), "{damaged}");
    fs::write(there.join("piece-000"), &piece).unwrap();

    let first = run("train 0.05 --device cpu --peer-seconds 10");
    let text = said(&first);
    assert!(first.status.success(), "{text}");
    let result = there.join("result");
    let done = steps(&result.join("run"));
    for entry in fs::read_dir(there.join("unpacked/peers")).unwrap() {
        for line in fs::read_to_string(entry.unwrap().path()).unwrap().lines() {
            let Some(name) = line.trim_start().strip_prefix("import ").or(line.trim_start().strip_prefix("from "))
            else {
                continue;
            };
            let name = format!("{}.py", name.split([' ', ',']).next().unwrap());
            let is_ours = peregrine_support::root().join("bench/peers").join(&name).exists();
            assert!(!is_ours || there.join("unpacked/peers").join(&name).exists(), "{name} is not packed");
        }
    }
    assert!(done > 0 && result.join("run/student/manifest.json").is_file(), "{text}");
    let figures: Value = serde_json::from_slice(&fs::read(result.join("figures.json")).unwrap()).unwrap();
    let rate = |of: &str| figures[of]["images_per_second"].as_f64();
    assert!(rate("ours").unwrap() > 0.0, "{figures}");
    match rate("pytorch") {
        Some(theirs) => {
            assert!((figures["ratio"].as_f64().unwrap() / rate("ours").unwrap() * theirs - 1.0).abs() < 1e-9)
        }
        None => assert!(text.contains("this Python has no torch"), "{text}"),
    }
    assert!(fs::read_to_string(result.join("train.log")).unwrap().contains("images/s over"));

    // A machine without the run goes on from its result.
    fs::rename(&result, folder.path().join("brought")).unwrap();
    fs::remove_dir_all(there.join("run")).unwrap();
    let second = run("train 0.01 --device cpu --peer-seconds 0 --from brought");
    assert!(second.status.success() && steps(&result.join("run")) > done, "{}", said(&second));

    // Without a GPU, one sentence and 3.
    let mut probe = Command::new(env!("CARGO_BIN_EXE_distill"));
    let probe =
        probe.arg("student").arg(there.join("unpacked/student.toml")).args(["--device", "cuda"]).output().unwrap();
    if probe.status.code() == Some(3) {
        let none = run("train 1");
        let text = said(&none);
        let words = text.lines().filter(|line| line.starts_with("Error: ")).count();
        assert_eq!((none.status.code(), words), (Some(3), 1), "{text}");
    }
}

#[test]
fn what_cannot_be_packed_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = project(folder.path());
    let source = peregrine_support::root().join("bench/gpu.sh");
    let text = fs::read_to_string(here.join("train.toml")).unwrap();
    for (found, replaced, expected) in [
        ("'../data'", "'../nowhere'", "../nowhere\": there is no such file or folder"),
        ("'own.toml'", "'other.toml'", "config of [[data]] = \"other.toml\": there is no such"),
        ("'../data'", &format!("'{}'", folder.path().join("data").display()), "is not below the folder"),
    ] {
        fs::write(here.join("train.toml"), text.replace(found, replaced)).unwrap();
        let output = script(&source, &here, "train-pack train.toml carried");
        assert!(!output.status.success() && said(&output).contains(expected), "{replaced}: {}", said(&output));
        assert_eq!(fs::read_dir(here.join("carried")).unwrap().count(), 0, "{replaced}");
    }
}
