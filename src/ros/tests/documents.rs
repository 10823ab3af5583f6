//! The command lines of `perception_node` in the documents.

use peregrine_ros::command_line::parse;
use peregrine_ros::parameters::declaration;
use peregrine_ros::scene::TOPICS;
use peregrine_support::documents::documents;
use r2r::ParameterValue;

/// What stands for a value on the command line: ROS reads it as YAML.
fn value(text: &str) -> ParameterValue {
    let number = || text.parse().map(ParameterValue::Integer).or_else(|_| text.parse().map(ParameterValue::Double));
    match text {
        "true" | "false" => ParameterValue::Bool(text == "true"),
        _ => number().unwrap_or_else(|_| ParameterValue::String(text.trim_matches('\'').to_owned())),
    }
}

fn exists(topic: &str) -> bool {
    let main = ["image", "image/compressed", "detections", "timing", "road_mask", "segmentation"];
    main.contains(&topic) || TOPICS.iter().any(|(name, _)| *name == topic)
}

#[test]
fn every_command_line_of_the_node_in_the_documents_is_understood() {
    let mut found = 0;
    for document in documents() {
        for line in document.lines_of("perception_node") {
            let place = format!("{}: {line:?}", document.path);
            parse(line[1..].iter().cloned()).map(drop).unwrap_or_else(|e| panic!("{place}: {e}"));
            for pair in line.windows(2) {
                match (pair[0].as_str(), pair[1].split_once(":=")) {
                    ("-p", Some((name, given))) if !name.starts_with("qos_overrides.") => {
                        let checked = declaration(name).and_then(|d| d.check(name, value(given)));
                        checked.map(drop).unwrap_or_else(|e| panic!("{place}: {e}"));
                    }
                    ("-r", Some((topic, _))) => assert!(exists(topic), "{place}: there is no topic {topic}"),
                    _ => {}
                }
            }
            found += 1;
        }
    }
    assert!(found >= 8, "{found}");
}
