//! What describes the node agrees with the node: parameter file, launch files, README.
#![cfg(feature = "ros")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use peregrine::ros::parameters::{declaration, markdown, shown, DECLARATIONS};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_parameter_file_has_every_parameter_with_its_default() {
    let text = fs::read_to_string(project("launch/perception.yaml")).unwrap();
    let values: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.split_once(": "))
        .filter(|(name, _)| !name.trim_start().starts_with('#'))
        .collect();
    for d in DECLARATIONS {
        // Texts need no quotes in YAML, but for empty ones.
        let default = shown(&d.default());
        let plain = if default == "''" { default.clone() } else { default.trim_matches('\'').to_owned() };
        assert_eq!(values.get(d.name).copied(), Some(plain.as_str()), "{}", d.name);
    }
    assert_eq!(values.len(), DECLARATIONS.len(), "{:?}", values.keys());
}

#[test]
fn launch_files_are_sound_and_name_parameters_that_exist() {
    let files = ["perception.launch.py", "perception.launch.xml", "camera_demo.launch.py"];
    let python = std::env::var("PEREGRINE_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(python)
        .arg(project("tests/peer/check_launch_files.py"))
        .args(files.map(|file| project("launch").join(file)))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let named: BTreeMap<String, Vec<String>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(named.len(), files.len());
    for name in named.values().flatten() {
        assert!(declaration(name).is_ok(), "{name} is no parameter");
    }
    assert_eq!(named["perception.launch.py"], named["perception.launch.xml"]);
}

#[test]
fn the_readme_shows_the_parameters_as_they_are() {
    let Ok(readme) = fs::read_to_string(project("README.md")) else {
        eprintln!("skipped: there is no README.md");
        return;
    };
    let (begin, end) = ("<!-- parameters: perception_node --describe markdown -->\n", "<!-- end of parameters -->");
    let section =
        readme.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map(|(section, _)| section.trim());
    assert_eq!(
        section,
        Some(markdown().trim()),
        "README.md must hold, between {begin:?} and {end:?}, what `perception_node --describe markdown` prints"
    );
}
