//! What describes the node agrees with the node: parameter file, launch files, documents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use peregrine_ros::command_line::{parse, Command as Said};
use peregrine_ros::parameters::{declaration, markdown, shown, DECLARATIONS};
use peregrine_ros::scene::TOPICS;

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
        // Only empty strings need quotes in YAML.
        let default = shown(&d.default());
        let plain = if default == "''" { default.clone() } else { default.trim_matches('\'').to_owned() };
        assert_eq!(values.get(d.name).copied(), Some(plain.as_str()), "{}", d.name);
    }
    assert_eq!(values.len(), DECLARATIONS.len(), "{:?}", values.keys());
}

/// The launch files, each in Python and in XML.
fn launch_files() -> Vec<PathBuf> {
    let files = fs::read_dir(project("launch")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.to_string_lossy().contains(".launch.")).collect()
}

#[test]
fn launch_files_name_only_what_exists() {
    let python = std::env::var("PEREGRINE_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(python)
        .arg(project("tests/peer/check_launch_files.py"))
        .args(launch_files())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    type Named = BTreeMap<String, Vec<String>>;
    let named: BTreeMap<String, Named> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(named.len(), launch_files().len());
    let topics = ["image", "detections", "timing", "road_mask", "segmentation", "__ns", "__node"];
    let programs = ["perception_node", "python3"];
    for (file, named) in &named {
        for parameter in &named["parameters"] {
            assert!(declaration(parameter).is_ok(), "{file}: {parameter} is not a parameter");
        }
        for topic in &named["topics"] {
            assert!(topics.contains(&topic.as_str()), "{file}: {topic} is not a topic of the node");
        }
        for program in &named["programs"] {
            let name = program.rsplit(['/', ' ']).next().unwrap().trim_end_matches(')');
            let is_python = program.contains("PEREGRINE_PYTHON") || program.contains("EnvironmentVariable");
            assert!(programs.contains(&name) || is_python, "{file}: {program} is not a program of the node");
        }
        for path in named.get("files").into_iter().chain(named.get("included")).flatten() {
            assert!(Path::new(path).is_file(), "{file}: there is no {path}");
        }
    }
    for (file, python) in named.iter().filter(|(file, _)| file.ends_with(".py")) {
        let xml = &named[&file.replace(".py", ".xml")];
        assert_eq!(python["parameters"], xml["parameters"], "{file} and its XML");
    }
}

/// Reads the launch files with ROS's own launch, without starting anything.
#[test]
fn launch_files_are_accepted_by_ros2_launch() {
    if Command::new("ros2").args(["launch", "--help"]).output().is_err() {
        peregrine_support::skip("ros2cli", "there is no `ros2 launch`");
        return;
    }
    for file in launch_files() {
        let output = Command::new("ros2").args(["launch", "--print-description"]).arg(&file).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", file.display());
    }
}

/// Whether the node publishes `topic`, or subscribes to it.
fn exists(topic: &str) -> bool {
    let others = ["image", "detections", "timing", "road_mask", "segmentation", "diagnostics"];
    topic.strip_prefix('/').is_some_and(|t| others.contains(&t) || TOPICS.iter().any(|(name, _)| *name == t))
}

#[test]
fn the_rviz_configuration_shows_topics_that_exist() {
    let text = fs::read_to_string(project("launch/perception.rviz")).unwrap();
    let topics: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("Value: /")).collect();
    assert!(topics.len() >= 4, "{topics:?}");
    for topic in topics {
        assert!(exists(&format!("/{topic}")), "/{topic}");
    }
}

#[test]
fn the_foxglove_layout_shows_topics_that_exist() {
    fn collect(value: &serde_json::Value, topics: &mut Vec<String>) {
        match value {
            serde_json::Value::String(text) if text.starts_with('/') => topics.push(text.clone()),
            serde_json::Value::Array(values) => values.iter().for_each(|v| collect(v, topics)),
            serde_json::Value::Object(map) => {
                topics.extend(map.keys().filter(|key| key.starts_with('/')).cloned());
                map.values().for_each(|v| collect(v, topics));
            }
            _ => {}
        }
    }
    let text = fs::read_to_string(project("launch/foxglove.json")).unwrap();
    let layout: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut topics = Vec::new();
    collect(&layout, &mut topics);
    assert!(topics.len() >= 4, "{topics:?}");
    for path in topics {
        // A plot names a field of a topic.
        let topic = path.split('.').next().unwrap_or_default();
        assert!(exists(topic), "{path}");
    }
    // Every panel of the layout is configured.
    fn panels(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::String(name) if name.contains('!') => found.push(name.clone()),
            serde_json::Value::Object(map) => map.values().for_each(|v| panels(v, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    panels(&layout["layout"], &mut found);
    assert_eq!(found.len(), layout["configById"].as_object().unwrap().len());
    assert!(found.iter().all(|name| layout["configById"].get(name).is_some()), "{found:?}");
}

#[test]
fn the_document_and_the_help_name_every_topic() {
    let Ok(Said::Print(help)) = parse(["--help".to_owned()]) else { panic!("--help prints") };
    let document = fs::read_to_string(project("docs/node.md")).unwrap();
    for (topic, kind) in TOPICS {
        let kind = kind.replace("/msg/", "/");
        assert!(help.contains(topic), "{topic} in --help");
        assert!(
            document.contains(&format!("`{topic}`")) && document.contains(&kind),
            "{topic}, {kind} in docs/node.md"
        );
    }
}

#[test]
fn the_document_has_the_parameters_that_are_printed() {
    let document = fs::read_to_string(project("docs/parameters.md")).unwrap();
    let (begin, end) = ("<!-- parameters: perception_node --describe markdown -->\n", "<!-- end of parameters -->");
    let section =
        document.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map(|(section, _)| section.trim());
    assert_eq!(
        section,
        Some(markdown().trim()),
        "docs/parameters.md must hold, between {begin:?} and {end:?}, what `perception_node --describe markdown` prints"
    );
}

#[test]
fn the_parameter_file_is_the_one_that_is_printed() {
    let Ok(Said::Print(printed)) = parse(["--describe", "yaml"].map(str::to_owned)) else { panic!("it prints") };
    let file = fs::read_to_string(project("launch/perception.yaml")).unwrap();
    assert!(file == printed, "run `perception_node --describe yaml > launch/perception.yaml`");
}

/// The names of the tests below `folder`: functions behind `#[test]`, in proptest's blocks as well.
fn tests_below(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            tests_below(&entry, names);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).unwrap();
            let named = |after: &str| Some(after.split_once("fn ")?.1.split_once('(')?.0.to_owned());
            names.extend(text.split("#[test]").skip(1).filter_map(named));
        }
    }
}

#[test]
fn each_case_of_the_field_is_held_by_tests_that_exist() {
    let mut names = BTreeSet::new();
    ["src", "tests"].iter().for_each(|folder| tests_below(&project(folder), &mut names));
    let text = fs::read_to_string(project("docs/field.md")).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #")).collect();
    assert_eq!(rows.len(), 26);
    for row in rows {
        let tests = row.rsplit('|').nth(1).unwrap();
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{row}");
        named.iter().for_each(|test| assert!(names.contains(*test), "{test} of {row}"));
    }
}
