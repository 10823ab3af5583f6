//! The set-up: what it installs is pinned, NVRTC fits the driver, and what was built needs none of
//! its variables.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_python_package_is_pinned_by_version_and_digest() {
    let mut packages = 0;
    for folder in ["launch/setup", "packaging", "bench/peers"] {
        for file in fs::read_dir(project(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            if !file.file_name().unwrap().to_string_lossy().starts_with("requirements") {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap().replace("\\\n", "");
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                assert!(line.contains("==") && line.contains("--hash=sha256:"), "{}: {line}", file.display());
                packages += 1;
            }
        }
    }
    assert!(packages > 150, "{packages}");
}

/// The CUDA whose NVRTC the set-up chooses beside a driver library that answers
/// `cuDriverGetVersion` with `version`, or with an error where there is none, and beside an
/// `nvidia-smi` that prints `smi`.
fn nvrtc_for(version: Option<i32>, smi: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("driver.c"), folder.path().join("nvidia-smi"));
    let answer = version.map_or("return 999;".to_owned(), |version| format!("*v = {version}; return 0;"));
    fs::write(&source, format!("int cuDriverGetVersion(int *v) {{ {answer} }}")).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-w", "-o"]).arg(folder.path().join("libcuda.so.1")).arg(&source);
    assert!(compiler.status().unwrap().success());
    fs::write(&program, format!("#!/bin/sh\necho '{smi}'\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();

    let first = |variable: &str| {
        let rest = std::env::var_os(variable).unwrap_or_default();
        std::env::join_paths([folder.path().to_owned()].into_iter().chain(std::env::split_paths(&rest))).unwrap()
    };
    let mut script = Command::new(project("launch/setup/nvrtc.sh"));
    script.arg("--which").env("LD_LIBRARY_PATH", first("LD_LIBRARY_PATH")).env("PATH", first("PATH"));
    let output = script.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_nvrtc_that_is_installed_fits_the_driver() {
    for (version, nvrtc) in [(12_020, "12"), (12_060, "12"), (12_090, "12"), (13_000, "13"), (14_010, "13")] {
        assert_eq!(nvrtc_for(Some(version), ""), nvrtc, "a driver for CUDA {version}");
    }
    // Too old for the GPU's engine: as without a driver, that of the tests.
    assert_eq!(nvrtc_for(Some(11_080), ""), "13");
    let table = "| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4 |";
    assert_eq!(nvrtc_for(None, table), "12");
    assert_eq!(nvrtc_for(None, "NVIDIA-SMI has failed"), "13");
}

/// Leaves `command` only the variables that were set for it, and a folder as home.
fn in_an_empty_environment(command: &mut Command, home: &Path) {
    let set: Vec<(OsString, OsString)> =
        command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    command.env_clear().envs(set).env("HOME", home);
}

#[test]
fn every_program_starts_in_an_empty_environment() {
    let home = tempfile::tempdir().unwrap();
    let distill = option_env!("CARGO_BIN_EXE_distill").map(|program| (program, "--help"));
    let bench = option_env!("CARGO_BIN_EXE_latency_bench").map(|program| (program, "--doctor"));
    for (program, argument) in [Some((NODE, "--help")), distill, bench].into_iter().flatten() {
        let mut command = Command::new(program);
        in_an_empty_environment(command.arg(argument), home.path());
        let output = command.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.lines().count() > 3, "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_node_publishes_in_an_empty_environment() {
    if ros_is_absent() {
        return;
    }
    let (domain, home) = (Domain::new(), tempfile::tempdir().unwrap());
    let mut command = domain.command(NODE);
    in_an_empty_environment(&mut command, home.path());
    let node = Node(command.spawn().expect("the node can be started"));
    let answers = domain.ask_peer("send_frames.py", &["raw", "1"]);
    assert_eq!(answers.as_array().map(Vec::len), Some(1));
    assert_eq!(node.end("-INT").0, Some(0));
}
