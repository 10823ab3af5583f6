//! Gathers the definitions of the messages that the black box writes, from the packages that r2r
//! generates their types from: a recording carries the definitions that it was written by.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What the black box writes; see `black_box/messages.rs`.
const TYPES: [&str; 5] = [
    "sensor_msgs/CompressedImage",
    "vision_msgs/Detection2DArray",
    "peregrine_msgs/FrameTiming",
    "diagnostic_msgs/DiagnosticArray",
    "rcl_interfaces/ParameterEvent",
];

/// Where a package's messages may be, as r2r looks for them.
const PREFIXES: [&str; 2] = ["AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    PREFIXES.iter().for_each(|variable| println!("cargo::rerun-if-env-changed={variable}"));
    let prefixes: Vec<PathBuf> = PREFIXES.iter().filter_map(env::var_os).flat_map(|v| paths(&v)).collect();
    let mut source =
        format!("/// Name and definition of each type.\npub const SCHEMAS: [(&str, &str); {}] = [\n", TYPES.len());
    for name in TYPES {
        let (package, message) = name.split_once('/').expect("a package and a type");
        writeln!(source, "    ({:?}, {:?}),", format!("{package}/msg/{message}"), schema(&prefixes, name))
            .expect("text");
    }
    source += "];\n";
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("schemas.rs");
    fs::write(&out, source).unwrap_or_else(|error| panic!("{}: {error}", out.display()));
}

fn paths(variable: &std::ffi::OsStr) -> Vec<PathBuf> {
    env::split_paths(variable).collect()
}

/// A type's definition, followed by those of the types in it: `ros2msg` of the MCAP specification
/// (mcap.dev/spec/registry).
fn schema(prefixes: &[PathBuf], name: &str) -> String {
    let (mut seen, mut open) = (BTreeSet::from([name.to_owned()]), vec![name.to_owned()]);
    let mut text = String::new();
    while let Some(name) = open.pop() {
        let definition = definition(prefixes, &name);
        if !text.is_empty() {
            write!(text, "{}\nMSG: {name}\n", "=".repeat(80)).expect("text");
        }
        text += definition.trim_end();
        text.push('\n');
        let package = name.split('/').next().unwrap_or_default();
        let new = definition.lines().filter_map(|line| field_type(package, line)).filter(|t| seen.insert(t.clone()));
        open.extend(new.collect::<Vec<_>>());
    }
    text
}

/// The message type of the field on a line of a definition; `None` for a primitive or no field.
fn field_type(package: &str, line: &str) -> Option<String> {
    let line = line.split('#').next().unwrap_or_default();
    let name = line.split_whitespace().next()?.split(['[', '<', '=']).next()?;
    if name.contains('/') {
        return Some(name.to_owned());
    }
    name.starts_with(|c: char| c.is_ascii_uppercase()).then(|| format!("{package}/{name}"))
}

fn definition(prefixes: &[PathBuf], name: &str) -> String {
    let (package, message) = name.split_once('/').expect("a package and a type");
    let file = Path::new("share").join(package).join("msg").join(format!("{message}.msg"));
    let found = prefixes.iter().map(|prefix| prefix.join(&file)).find_map(|path| fs::read_to_string(path).ok());
    found.unwrap_or_else(|| {
        panic!("{} is in no folder of AMENT_PREFIX_PATH; source ROS 2, or launch/setup/env.sh", file.display())
    })
}
