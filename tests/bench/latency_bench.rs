//! `latency_bench` end to end. Nothing here depends on the speed of the machine: the deadlines are
//! either impossible or met by a wide margin, and stalls are longer than any deadline.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A profile that any machine meets: 8 frames at 5 Hz, deadline ten seconds, miss ratio 0.9.
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

/// Runs it with a profile in a temporary folder, and the smallest network.
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
fn a_generous_profile_is_met() {
    let output = bench_with(GENEROUS, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("verdict   MET"));
}

#[test]
fn an_impossible_deadline_is_missed() {
    let impossible = GENEROUS.replace("deadline_ms = 10000.0", "deadline_ms = 0.1");
    let output = bench_with(&impossible, &["--explain"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("verdict   MISSED") && text(&output).contains("medians exceed the deadline"));
}

#[test]
fn an_injected_stall_is_missed_and_names_its_stage() {
    let strict = GENEROUS
        .replace("deadline_ms = 10000.0", "deadline_ms = 190.0")
        .replace("max_miss_ratio = 0.9", "max_miss_ratio = 0.5")
        .replace("max_miss_run = 20", "max_miss_run = 1");
    for stage in ["preprocess", "inference", "decode"] {
        let output = bench_with(&strict, &["--inject-stall", &format!("1900@2:{stage}")]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(&format!("misses attributed to {stage}")), "{}", text(&output));
    }
}

#[test]
fn a_stuck_worker_ends_the_run_and_names_its_stage() {
    let strict = GENEROUS.replace("max_miss_run = 20", "max_miss_run = 0") + "stuck_after_ms = 11000.0\n";
    let strict = strict.replace("deadline_ms = 10000.0", "deadline_ms = 300.0").replace("11000.0", "1000.0");
    let output = bench_with(&strict, &["--inject", "stuck@3:decode", "--frames", "40"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("1 unfinished")
            && text(&output).contains("attributed to decode: the worker got stuck in it")
    );
}

#[test]
fn a_silent_camera_is_missed_and_named() {
    let strict = GENEROUS.replace("max_miss_run = 20", "max_miss_run = 1");
    let output = bench_with(&strict, &["--inject", "dropped@4"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("4 lost") && text(&output).contains("the camera sent no image"),
        "{}",
        text(&output)
    );
}

#[test]
fn an_interrupted_run_reports_what_it_has_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let (profile, json) = (folder.path().join("p.toml"), folder.path().join("r.json"));
    std::fs::write(&profile, GENEROUS).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_latency_bench"));
    command.args(["--input-size", "32x32", "--no-segmentation", "--frames", "100000", "--profile"]).arg(&profile);
    let mut child = command.arg("--json").arg(&json).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let begun = said.by_ref().map_while(Result::ok).find(|line| line.starts_with("note: measuring"));
    assert!(begun.is_some(), "it says when it begins");
    std::thread::sleep(Duration::from_millis(600));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert!(report["judgement"]["reasons"][0].as_str().unwrap().contains("interrupted after"));
    assert!(report["counts"]["due"].as_u64().unwrap() < 100_000);
}

#[test]
fn the_network_alone_and_several_cameras_are_measured() {
    let output = bench_with(GENEROUS, &["--layer", "engine"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(!text(&output).contains("preprocess") && text(&output).contains("layer     Engine"));
    let output = bench_with(GENEROUS, &["--cameras", "3", "--schedule", "jitter:20:7", "--frames", "6"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("18 in") && text(&output).contains("3 cameras"), "{}", text(&output));
}

#[test]
fn a_result_serves_as_trace_and_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let fast = GENEROUS.replace("rate_hz = 5.0", "rate_hz = 50.0");
    let first = bench_with(&fast, &["--frames", "40", "--schedule", "burst:2", "--json", &path("a.json")]);
    assert!(path("a.json").len() > 1 && first.status.code() != Some(3), "{}", text(&first));
    let trace = format!("trace:{}", path("a.json"));
    let second = bench_with(&fast, &["--schedule", &trace, "--json", &path("b.json")]);
    assert!(second.status.code() != Some(3), "{}", text(&second));
    let read =
        |name: &str| -> serde_json::Value { serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap() };
    let (a, b) = (read("a.json"), read("b.json"));
    assert_eq!(a["frames"]["scheduled_us"], b["frames"]["scheduled_us"]);
    let compared =
        bench(&["--compare", &path("a.json"), &path("b.json"), "--allow", "1000%", "--json", &path("c.json")]);
    // A busy machine may lose too many frames.
    if compared.status.code() == Some(3) {
        return assert!(text(&compared).contains("a comparison takes 20"), "{}", text(&compared));
    }
    assert!(text(&compared).contains("99 % interval"), "{}", text(&compared));
    assert_eq!(read("c.json")["ratios"].as_array().unwrap().len(), 3);
}

#[test]
fn the_highest_rate_is_found() {
    let loose =
        GENEROUS.replace("max_miss_ratio = 0.9", "max_miss_ratio = 0.6").replace("rate_hz = 5.0", "rate_hz = 50.0");
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("rate.json");
    let output = bench_with(&loose, &["--max-rate", "--frames", "6", "--json", json.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("Hz is the highest that meets the profile"), "{}", text(&output));
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert!(found["rate_hz"].as_f64().unwrap() > 0.0 && found["probes"].as_array().unwrap()[0]["verdict"].is_string());
}

#[test]
fn the_doctor_checks_the_machine_and_names_remedies() {
    let output = bench(&["--doctor"]);
    assert!(matches!(output.status.code(), Some(0 | 2)), "{}", text(&output));
    assert!(text(&output).contains("governor") && text(&output).contains("->"), "{}", text(&output));
}

#[test]
fn the_doctor_writes_json_and_checks_the_stamps_of_a_bag() {
    let bag = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/bags/mcap_raw");
    let output = bench(&["--doctor", "--json", "-", "--images", bag.to_str().unwrap()]);
    assert!(matches!(output.status.code(), Some(0 | 2)), "{}", text(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = found["checks"].as_array().unwrap();
    let camera = checks.last().unwrap();
    assert_eq!((&camera["name"], &camera["health"]), (&"camera clock".into(), &"good".into()), "{camera}");
    assert!(camera["finding"].as_str().unwrap().starts_with("5 images arrived 20.0 ms after their stamps"));
    assert_eq!(found["fit"], checks.iter().all(|check| check["health"] != "bad"));
    assert!(found["files"]["proc/meminfo"].is_string() || !cfg!(target_os = "linux"));
    let output = bench(&["--doctor", "--images", "no-such-bag.mcap"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("no-such-bag.mcap"), "{}", text(&output));
}

#[test]
fn the_plan_of_the_engine_is_explained_step_by_step() {
    let output = bench(&["--explain-plan", "--input-size", "64x64", "--threads", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("Conv__140") && text(&output).contains("GFLOP/s"), "{}", text(&output));
}

#[test]
#[cfg(feature = "cuda")]
fn the_plan_of_a_gpu_is_explained_without_one() {
    let output = bench(&["--explain-plan", "--device", "cuda", "--input-size", "64x64"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("letterbox") && text(&output).contains("Conv__140"), "{}", text(&output));
}

#[test]
fn histogram_files_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let output = bench_with(GENEROUS, &["--hgrm", &path("r.hgrm"), "--hlog", &path("r.hlog"), "--stress", "cpu"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("background load: cpu:1"));
    assert!(std::fs::read_to_string(path("r.hgrm")).unwrap().contains("Total count    =            8"));
    assert!(std::fs::read_to_string(path("r.hlog")).unwrap().contains("Tag=inference"));
}

#[test]
fn frames_auto_measures_the_fewest_that_can_prove_it() {
    let profile =
        GENEROUS.replace("rate_hz = 5.0", "rate_hz = 100.0").replace("max_miss_ratio = 0.9", "max_miss_ratio = 0.2");
    let output = bench_with(&profile, &["--frames", "auto", "--json", "-"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // 0.8²¹ < 1 % < 0.8²⁰.
    assert_eq!(report["counts"]["due"], 21);
}

#[test]
fn too_few_frames_are_not_provable() {
    let output = bench_with(&GENEROUS.replace("max_miss_ratio = 0.9", "max_miss_ratio = 0.01"), &["--frames", "5"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("it takes 459 frames"), "{}", text(&output));
    assert!(text(&output).contains("note: 5 frames cannot prove this profile"), "{}", text(&output));
}

#[test]
fn json_and_html_are_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let output = bench_with(GENEROUS, &["--json", &path("r.json"), "--html", &path("r.html"), "--explain", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(path("r.json")).unwrap()).unwrap();
    assert_eq!((&report["schema_version"], &report["judgement"]["verdict"]), (&2.into(), &"met".into()));
    assert_eq!(report["frames"]["latency_us"].as_array().unwrap().len(), 8);
    assert!(report["warmed_up"].as_u64().unwrap() >= 2, "{}", report["warmed_up"]);
    assert!(report["subject"]["device"].as_str().unwrap().starts_with("CPU"), "{}", report["subject"]);
    assert!(
        report["cost"]["cpu_ms"].as_f64().unwrap() > 0.0 && report["conditions"]["samples"][0]["resident_mib"].is_f64()
    );
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
fn invalid_options_and_files_exit_with_3_and_are_named() {
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
        (&["--inject", "5@1:wait"], "invalid stage"),
        (&["--layer", "engine", "--inject", "5@1:decode"], "layer engine has no decode"),
        (&["--schedule", "poisson"], "jitter:MS"),
        (&["--schedule", "trace:no-such-trace"], "no-such-trace"),
        (&["--frames", "some"], "auto"),
        (&["--cameras", "0"], "cameras"),
        (&["--closed-loop", "--cameras", "2"], "--cameras"),
        (&["--attach"], "--layer node"),
        (&["--device", "cuda", "--layer", "engine"], "--device cuda"),
        (&["--device", "gpu"], "auto, cpu or cuda"),
        (&["--closed-loop", "--inject", "stuck@5"], "stuck@5"),
        (&["--max-rate", "--inject", "stuck@5"], "stuck@5"),
        (&["--max-rate", "--hlog", "x.hlog"], "--hlog"),
        (&["--max-rate", "--json", "-"], "name a file"),
        (&["--stress", "gpu"], "cpu, memory or disk"),
        (&["--compare", "no-such-a.json", "no-such-b.json"], "no-such-a.json"),
        (&["--hgrm", "no-such-folder/x.hgrm"], "no-such-folder"),
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

#[test]
#[cfg(not(feature = "ros"))]
fn without_ros_layer_node_names_the_remedy() {
    let output = bench(&["--layer", "node"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("make build"), "{}", text(&output));
}

/// The whole node, over the middleware.
#[cfg(feature = "ros")]
mod node {
    use super::{bench_with, text, GENEROUS};

    /// Whether there is no ROS 2 environment; the test is skipped then.
    fn ros_is_absent() -> bool {
        let absent = std::env::var_os("AMENT_PREFIX_PATH").is_none();
        if absent {
            peregrine_support::skip("ros", "no ROS 2 environment: run `. launch/setup/env.sh` first");
        }
        absent
    }

    /// 30 frames of 20 Hz.
    fn profile() -> String {
        GENEROUS.replace("rate_hz = 5.0", "rate_hz = 20.0").replace("frames = 8", "frames = 30")
    }

    fn measure(arguments: &[&str]) -> serde_json::Value {
        let output = bench_with(&profile(), &[&["--layer", "node", "--json", "-"], arguments].concat());
        assert!(matches!(output.status.code(), Some(0 | 2)), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[test]
    fn every_frame_has_an_outcome_and_its_stages_add_up() {
        if ros_is_absent() {
            return;
        }
        let report = measure(&["--explain", "3"]);
        let count = |name: &str| report["counts"][name].as_u64().unwrap();
        assert_eq!(count("due"), 30);
        let ends = ["on_time", "late", "superseded", "dropped_late", "rejected", "in_hand", "lost"];
        assert_eq!(ends.iter().map(|name| count(name)).sum::<u64>(), 30);
        assert!(count("on_time") > 0, "{}", report["counts"]);
        let worst = &report["worst"][0];
        let stages = worst["stages_ms"].as_array().unwrap();
        let names: Vec<_> = stages.iter().map(|s| s[0].as_str().unwrap()).collect();
        assert_eq!(
            names,
            ["arrival", "transport", "wait", "preprocess", "inference", "decode", "track", "publish", "delivery"]
        );
        let sum: f64 = stages.iter().map(|s| s[1].as_f64().unwrap()).sum();
        assert!((sum - worst["latency_ms"].as_f64().unwrap()).abs() < 1e-3, "{worst}");
    }

    #[test]
    fn a_peer_alternates_with_the_node_and_detects_as_much() {
        if ros_is_absent() {
            return;
        }
        let Ok(python) = std::env::var("PEREGRINE_PYTHON") else {
            return peregrine_support::skip("python", "PEREGRINE_PYTHON names no Python");
        };
        let report = measure(&["--peer", &python, "--image-size", "640x480"]);
        let nodes = &report["side_by_side"]["nodes"];
        assert_eq!((&nodes[0][0], &nodes[1][0]), (&"node".into(), &"peer".into()));
        for node in [&nodes[0][1], &nodes[1][1]] {
            assert_eq!(node["due"], 30);
            assert!(node["on_time"].as_u64().unwrap() > 0, "{nodes}");
        }
        let detections = report["side_by_side"]["detections"].as_array().unwrap();
        let answered = |i: usize| nodes[i][1]["on_time"].as_f64().unwrap() + nodes[i][1]["late"].as_f64().unwrap();
        let per_frame: Vec<_> = (0..2).map(|i| detections[i].as_f64().unwrap() / answered(i)).collect();
        assert!((per_frame[0] - per_frame[1]).abs() <= 0.5, "{per_frame:?} detections a frame");
    }

    #[test]
    fn a_silent_camera_is_missed_and_named() {
        if ros_is_absent() {
            return;
        }
        let strict = profile().replace("max_miss_run = 20", "max_miss_run = 3");
        let output = bench_with(&strict, &["--layer", "node", "--inject", "dropped@10"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("the camera sent no image"), "{}", text(&output));
    }

    #[test]
    fn a_node_that_cannot_start_is_reported_with_its_output() {
        if ros_is_absent() {
            return;
        }
        let output = bench_with(&profile(), &["--layer", "node", "--node", "/bin/false"]);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains("/bin/false exited by itself"), "{}", text(&output));
        let output = bench_with(&profile(), &["--layer", "node", "--node", "no-such-node"]);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains("no-such-node"), "{}", text(&output));
    }
}
