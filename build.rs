//! Lets the programs find ROS's libraries, NVRTC and ONNX Runtime by themselves: what was built
//! starts in any shell.

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ORT_DYLIB_PATH");
    if let Ok(library) = env::var("ORT_DYLIB_PATH") {
        // For src/bin/distill.rs.
        println!("cargo::rustc-env=PEREGRINE_ONNXRUNTIME={library}");
    }
    let folders = library_folders();
    for folder in &folders {
        for argument in ["-rpath", &folder.to_string_lossy()] {
            println!("cargo::rustc-link-arg-bins=-Xlinker");
            println!("cargo::rustc-link-arg-bins={argument}");
        }
    }
    if !folders.is_empty() {
        // As DT_RPATH, which, unlike DT_RUNPATH, also counts for the libraries that ROS's own open
        // by name.
        println!("cargo::rustc-link-arg-bins=-Wl,--disable-new-dtags");
    }
}

/// Where the environment (launch/setup/env.sh, or a sourced ROS) has libraries, if this build needs
/// them.
fn library_folders() -> Vec<PathBuf> {
    let mut folders = vec![];
    if wanted("ROS") {
        for prefix in paths("AMENT_PREFIX_PATH") {
            let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
            folders.extend([prefix.join("lib"), prefix.join(format!("lib/{architecture}-linux-gnu"))]);
            // Of packages that ROS builds itself, such as /opt/ros/jazzy/opt/gz_math_vendor/lib.
            let packages = fs::read_dir(prefix.join("opt")).into_iter().flatten().flatten();
            let mut vendored: Vec<_> = packages.map(|package| package.path().join("lib")).collect();
            vendored.sort();
            folders.extend(vendored);
        }
    }
    if wanted("CUDA") {
        folders.extend(paths("PEREGRINE_NVRTC"));
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

fn wanted(feature: &str) -> bool {
    env::var_os(format!("CARGO_FEATURE_{feature}")).is_some()
}

/// The folders in an environment variable, whose change builds anew.
fn paths(variable: &str) -> Vec<PathBuf> {
    println!("cargo::rerun-if-env-changed={variable}");
    env::var_os(variable).map(|value| env::split_paths(&value).collect()).unwrap_or_default()
}
