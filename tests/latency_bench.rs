//! `latency_bench` as a user meets it. Nothing here depends on how fast the machine is: the deadlines are either out of
//! reach or kept by a wide margin, and stalls are longer than any deadline.

use std::path::Path;
use std::process::{Command, Output};

/// A profile that any machine keeps: 8 frames at 5 Hz, each within ten seconds, half of them excused.
const GENEROUS: &str = r#"
name = "generous"
description = "for tests"
rate_hz = 5.0
deadline_ms = 10000.0
frames = 8
warmup_frames = 1
max_miss_ratio = 0.9
confidence = 0.99
max_miss_run = 20
late = "publish"
max_foreign_load_percent = 100.0
"#;

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latency_bench"));
    command.args(arguments).output().expect("the program starts")
}

/// The bench with a profile written to a temporary folder, and the smallest network.
fn bench_with(profile: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    std::fs::write(&path, profile).unwrap();
    let fixed = ["--profile", path.to_str().unwrap(), "--input-size", "32x32", "--no-segmentation"];
    bench(&[&fixed, arguments].concat())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_profile_that_cannot_be_missed_is_met() {
    let output = bench_with(GENEROUS, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("verdict   MET"));
}

#[test]
fn a_deadline_out_of_reach_is_missed() {
    let impossible = GENEROUS.replace("deadline_ms = 10000.0", "deadline_ms = 0.1");
    let output = bench_with(&impossible, &["--explain"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("verdict   MISSED") && text(&output).contains("take longer than"));
}

#[test]
fn an_injected_stall_turns_the_verdict_red_and_names_its_stage() {
    let strict = GENEROUS
        .replace("deadline_ms = 10000.0", "deadline_ms = 190.0")
        .replace("max_miss_ratio = 0.9", "max_miss_ratio = 0.5")
        .replace("max_miss_run = 20", "max_miss_run = 1");
    for stage in ["preprocess", "inference", "decode"] {
        let output = bench_with(&strict, &["--inject-stall", &format!("1900@2:{stage}")]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(&format!("of the misses go back to {stage}")), "{}", text(&output));
    }
}

#[test]
fn too_few_frames_for_the_claim_are_not_provable() {
    let output = bench_with(&GENEROUS.replace("max_miss_ratio = 0.9", "max_miss_ratio = 0.01"), &["--frames", "5"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("459 frames would show it"), "{}", text(&output));
    assert!(text(&output).contains("note: 5 frames cannot prove this profile"), "{}", text(&output));
}

#[test]
fn json_and_html_are_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let output = bench_with(GENEROUS, &["--json", &path("r.json"), "--html", &path("r.html"), "--explain", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(path("r.json")).unwrap()).unwrap();
    assert_eq!((&report["schema_version"], &report["judgement"]["verdict"]), (&1.into(), &"met".into()));
    assert_eq!(report["counts"]["arrived"], 8);
    assert_eq!(report["counts"]["in_hand"], 0);
    assert_eq!(report["worst"].as_array().unwrap().len(), 2);
    let page = std::fs::read_to_string(path("r.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn json_may_go_to_standard_output() {
    let output = bench_with(GENEROUS, &["--json", "-"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["loop"], "open");
}

#[test]
fn the_closed_loop_processes_every_frame_and_gives_no_verdict() {
    let output = bench_with(GENEROUS, &["--closed-loop"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("8 on time") && !text(&output).contains("verdict"));
}

#[test]
fn what_cannot_be_used_exits_with_3_and_is_named() {
    for (arguments, expected) in [
        (&["--profile", "car_31hz"][..], "car_30hz"),
        (&["--profile", "missing.toml"], "missing.toml"),
        (&["--frames", "0"], "frames is 0"),
        (&["--model", "no-such-folder"], "no-such-folder"),
        (&["--images", "no-such-folder"], "no-such-folder"),
        (&["--json", "no-such-folder/report.json"], "no-such-folder"),
        (&["--threads", "257"], "threads"),
        (&["--input-size", "320"], "320x256"),
        (&["--input-size", "300x200"], "multiples of 32"),
        (&["--inject-stall", "5"], "MS@FRAME"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(expected), "{arguments:?}: {}", text(&output));
    }
}

#[test]
fn help_teaches_with_examples_and_exit_codes() {
    let output = bench(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for expected in ["Examples:", "Exit codes:", "--inject-stall", "not provable"] {
        assert!(text(&output).contains(expected), "{expected}");
    }
}

#[test]
fn the_built_in_profiles_are_those_in_the_folder() {
    let output = bench(&["--list-profiles"]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/profiles");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(text(&output).contains(&name), "{name}");
    }
}
