//! The parameters that the command line gives a node, each with where it stands.
//!
//! A file of parameters may be for many nodes, under wildcards such as `/**`: what it says of
//! somebody else's parameters is no fault of this node's.

use r2r::ParameterValue;

use super::parsed::{read_file, NodeParameters};
use super::RosArguments;

/// A parameter that was given at start.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    pub name: String,
    pub value: ParameterValue,
    pub source: Source,
}

/// Where a parameter stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// On the command line, which is for this node alone.
    CommandLine,
    /// In a file, under the node's own name or a wildcard.
    File { path: String, pattern: String },
}

impl Source {
    /// Whether it may be meant for other nodes.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::File { pattern, .. } if pattern.contains('*'))
    }
}

/// The parameters that `arguments` give the node of that full name, each once, and one sentence
/// about each file that has none for it.
pub fn parameters(arguments: &RosArguments, node: &str) -> (Vec<Given>, Vec<String>) {
    // ROS has read them already: a file that it cannot read ends the program.
    let files: Vec<_> = arguments.files().into_iter().filter_map(|p| Some((read_file(&p).ok()?, p))).collect();
    let named = arguments.named();
    let mut all: Vec<Given> = Vec::new();
    // As in rclcpp, what comes later wins.
    for NodeParameters { pattern, values } in arguments.parameters() {
        if !is_for(&pattern, node) {
            continue;
        }
        for (name, value) in values {
            let source = source(&files, &named, &pattern, &name);
            all.retain(|given| given.name != name);
            all.push(Given { name, value, source });
        }
    }
    let useless = files.iter().filter(|(nodes, _)| !nodes.iter().any(|n| is_for(&n.pattern, node)));
    let warnings = useless.map(|(nodes, path)| {
        let others: Vec<_> = nodes.iter().map(|n| n.pattern.as_str()).collect();
        let others = if others.is_empty() { "no node".to_owned() } else { others.join(", ") };
        format!("{path} has no parameters for {node}: it is for {others}; /** stands for every node")
    });
    (all, warnings.collect())
}

/// The last file that has the parameter under that pattern, unless a rule gives it.
fn source(files: &[(Vec<NodeParameters>, String)], named: &[String], pattern: &str, name: &str) -> Source {
    let has = |nodes: &[NodeParameters]| {
        nodes.iter().any(|n| n.pattern == pattern && n.values.iter().any(|(known, _)| known == name))
    };
    match files.iter().rev().find(|(nodes, _)| has(nodes)) {
        Some((_, path)) if !named.iter().any(|rule| rule == name) => {
            Source::File { path: path.clone(), pattern: pattern.to_owned() }
        }
        _ => Source::CommandLine,
    }
}

/// Whether parameters under `pattern` are for the node of that full name. As in rclcpp `*` stands
/// for one part of a name and `**` for any number; a name without `/` is in whatever namespace.
fn is_for(pattern: &str, node: &str) -> bool {
    fn matches(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern, name) {
            ([], name) => name.is_empty(),
            (["**", rest @ ..], name) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
            (["*", rest @ ..], [_, name @ ..]) => matches(rest, name),
            ([part, rest @ ..], [first, name @ ..]) => part == first && matches(rest, name),
            _ => false,
        }
    }
    let parts: Vec<_> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    let name: Vec<_> = node.split('/').filter(|part| !part.is_empty()).collect();
    matches(&parts, &name) || (!pattern.contains('/') && name.last() == Some(&pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_those_of_rclcpp() {
        for (pattern, node, expected) in [
            ("/**", "/perception", true),
            ("/**", "/car/front/perception", true),
            ("**", "/car/perception", true),
            ("/*", "/perception", true),
            ("/*", "/car/perception", false),
            ("/*/perception", "/car/perception", true),
            ("/*/perception", "/perception", false),
            ("/**/perception", "/perception", true),
            ("/**/perception", "/a/b/perception", true),
            ("/car/**", "/car/perception", true),
            ("/car/**", "/bus/perception", false),
            ("/car/*/perception", "/car/front/perception", true),
            ("/perception", "/perception", true),
            ("/perception", "/car/perception", false),
            ("perception", "/car/perception", true),
            ("/camera", "/perception", false),
        ] {
            assert_eq!(is_for(pattern, node), expected, "{pattern} of {node}");
        }
    }

    fn given(files: &[&str], rules: &str, node: &str) -> (Vec<Given>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let mut line = vec!["node".to_owned(), "--ros-args".to_owned()];
        for (i, text) in files.iter().enumerate() {
            let path = folder.path().join(format!("{i}.yaml"));
            std::fs::write(&path, text).unwrap();
            line.extend(["--params-file".to_owned(), path.to_str().unwrap().to_owned()]);
        }
        line.extend(rules.split_whitespace().map(String::from));
        parameters(&RosArguments::parse(line).unwrap(), node)
    }

    #[test]
    fn each_parameter_is_known_with_its_file_and_the_name_above_it() {
        let shared = "/**:\n  ros__parameters: {threads: 1, jpeg_quality: 90, tracking: false}\n";
        let own = "/car/*:\n  ros__parameters: {nms_iou: 0.5}\n/car/perception:\n  ros__parameters: {threads: 2}\n";
        let (all, warnings) = given(&[shared, own], "-p tracking:=true", "/car/perception");
        let of = |name: &str| all.iter().find(|given| given.name == name).unwrap();
        assert_eq!((all.len(), warnings.len()), (4, 0));
        assert_eq!(of("threads").value, ParameterValue::Integer(2));
        assert!(!of("threads").source.is_shared() && of("jpeg_quality").source.is_shared());
        assert!(matches!(&of("nms_iou").source, Source::File { path, pattern }
            if path.ends_with("1.yaml") && pattern == "/car/*"));
        assert_eq!(
            (&of("tracking").value, &of("tracking").source),
            (&ParameterValue::Bool(true), &Source::CommandLine)
        );
    }

    #[test]
    fn a_file_that_is_for_other_nodes_only_is_told() {
        let (all, warnings) = given(&["/percepton:\n  ros__parameters: {threads: 1}\n"], "", "/perception");
        assert_eq!(all, []);
        assert!(warnings[0].ends_with("no parameters for /perception: it is for /percepton; /** stands for every node"));
    }
}
