//! What ROS does not understand of its arguments, and what was probably meant.

use super::RosArguments;
use crate::parameters;
use crate::spelling::nearest;

/// The flags of ROS. `rcl/arguments.h` has them.
pub const FLAGS: [&str; 16] = [
    "-p",
    "--param",
    "--params-file",
    "-r",
    "--remap",
    "-e",
    "--enclave",
    "--log-level",
    "--log-config-file",
    "--log-file-name",
    "--enable-rosout-logs",
    "--disable-rosout-logs",
    "--enable-stdout-logs",
    "--disable-stdout-logs",
    "--enable-external-lib-logs",
    "--disable-external-lib-logs",
];

/// What older releases of ROS 2 wrote, and what it is now.
const OLD: [(&str, &str); 2] = [("__params:=", "--params-file "), ("__log_level:=", "--log-level ")];

/// Checks the arguments after `--ros-args` of a program whose own arguments are `own`.
///
/// # Errors
/// A sentence that names what is not understood, and the right spelling where there is one.
pub fn check(arguments: impl IntoIterator<Item = String>, own: &[&str]) -> Result<(), String> {
    let line = std::iter::once("program".to_owned()).chain(arguments);
    let rules = "a parameter is given as -p NAME:=VALUE, a remapping as -r FROM:=TO, a file as --params-file FILE";
    let parsed = RosArguments::parse(line).map_err(|why| {
        let why = why.trim_end_matches('.');
        format!("ROS does not understand its arguments: {why}; {rules}")
    })?;
    let unknown = parsed.unknown();
    if unknown.is_empty() {
        return Ok(());
    }
    let (mut remedies, mut words) = (Vec::new(), unknown.iter().copied().peekable());
    while let Some(word) = words.next() {
        let Some(remedy) = remedy(word, words.peek().copied(), own) else { continue };
        // The word that follows is part of it.
        if words.peek().is_some_and(|next| remedy.ends_with(&format!(" {next}"))) {
            words.next();
        }
        remedies.push(remedy);
    }
    let remedy = if remedies.is_empty() { rules.to_owned() } else { format!("write {}", remedies.join(" ")) };
    Err(format!("ROS does not understand these of its arguments: {}; {remedy}", unknown.join(" ")))
}

/// What was probably meant by an unknown `word`, which the unknown word `next` follows.
fn remedy(word: &str, next: Option<&str>, own: &[&str]) -> Option<String> {
    if own.contains(&word) {
        return Some(format!("{word} before --ros-args"));
    }
    if let Some((old, new)) = OLD.iter().find(|(old, _)| word.starts_with(old)) {
        return Some(word.replace(old, new));
    }
    if word.starts_with("__") {
        return word.contains(":=").then(|| format!("-r {word}"));
    }
    if !word.starts_with('-') {
        let (name, value) = word.split_once(":=").or_else(|| word.split_once('='))?;
        return Some(rule(name, value));
    }
    if let Some((flag, value)) = word.split_once('=').filter(|(flag, _)| !flag.ends_with(':')) {
        return Some(format!("{} {value}", nearest(flag, FLAGS)?));
    }
    for short in ["-p", "-r"] {
        if let Some(glued) = word.strip_prefix(short).filter(|rest| rest.contains(":=")) {
            return Some(format!("{short} {glued}"));
        }
    }
    let flag = nearest(word, FLAGS)?;
    let takes_value = !flag.ends_with("-logs");
    let value = next.filter(|value| takes_value && !value.starts_with('-'));
    Some(value.map_or(flag.to_owned(), |value| format!("{flag} {value}")))
}

/// A parameter or a remapping of `name`.
pub fn rule(name: &str, value: &str) -> String {
    let own = name.rsplit_once(':').map_or(name, |(_, own)| own);
    let known = parameters::declaration(own).is_ok() || parameters::qos_overrides::is_override(own);
    let near = nearest(own, parameters::DECLARATIONS.iter().map(|d| d.name));
    match near {
        _ if known => format!("-p {name}:={value}"),
        Some(near) => format!("-p {near}:={value}"),
        None => format!("-r {name}:={value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        check(line.split_whitespace().map(String::from), &["--version"]).unwrap_err()
    }

    #[test]
    fn what_is_not_understood_is_named_with_the_right_spelling() {
        for (line, expected) in [
            ("--param-file x.yaml", "write --params-file x.yaml"),
            ("--params-files x.yaml", "write --params-file x.yaml"),
            ("--params-file=x.yaml", "write --params-file x.yaml"),
            ("--params_file x.yaml", "write --params-file x.yaml"),
            ("--loglevel debug", "write --log-level debug"),
            ("--parm deadline_ms:=80", "write --param deadline_ms:=80"),
            ("deadline_ms:=80", "write -p deadline_ms:=80"),
            ("deadline_ms=80", "write -p deadline_ms:=80"),
            ("-pdeadline_ms:=80", "write -p deadline_ms:=80"),
            ("deadlin_ms:=80", "write -p deadline_ms:=80"),
            ("image:=/camera/image_raw", "write -r image:=/camera/image_raw"),
            ("__node:=eye", "write -r __node:=eye"),
            ("__params:=x.yaml", "write --params-file x.yaml"),
            ("-p threads:=1 --version", "write --version before --ros-args"),
        ] {
            let sentence = refusal(&format!("--ros-args {line}"));
            assert!(sentence.ends_with(expected), "{line}: {sentence}");
        }
        let sentence = refusal("--ros-args nonsense");
        assert!(sentence.contains(": nonsense; a parameter is given as -p NAME:=VALUE"), "{sentence}");
    }

    #[test]
    fn a_rule_that_does_not_parse_is_refused_with_the_form_of_rules() {
        for (line, named) in [
            ("-p deadline_ms=80", "deadline_ms=80"),
            ("-r image=/camera", "image=/camera"),
            ("-p", "-p"),
            ("--params-file", "--params-file"),
            ("--log-level chatty", "chatty"),
        ] {
            let sentence = refusal(&format!("--ros-args {line}"));
            assert!(sentence.contains(named) && sentence.contains("-p NAME:=VALUE"), "{sentence}");
        }
    }

    #[test]
    fn arguments_that_ros_understands_are_accepted() {
        for line in [
            "",
            "anything:=else",
            "--ros-args -p a:=1 -r b:=c -r __ns:=/car -r front:__node:=eye --log-level warn --disable-rosout-logs",
            "--ros-args -r a:=b -- c:=d",
            "--ros-args --ros-args -p a:=1",
        ] {
            assert_eq!(check(line.split_whitespace().map(String::from), &[]), Ok(()), "{line}");
        }
    }
}
