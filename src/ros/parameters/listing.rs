//! The table as text: for a terminal, for the documents, and as a parameter file.

use r2r::ParameterValue;

use super::declaration::{shown, Declaration, Domain};
use super::table::DECLARATIONS;

/// Longest line of a comment in the parameter file.
const COLUMNS: usize = 100;

/// For a terminal: `--list-parameters`.
pub fn listing() -> String {
    let line = |d: &Declaration| {
        let (name, range, default) = (d.name, d.range(), shown(&d.default()));
        let set = scope(d).map_or(String::new(), |scope| format!(", {scope}"));
        format!("  {name} ({range}; default {default}{set})\n      {}\n", d.description)
    };
    DECLARATIONS.iter().map(line).collect()
}

/// The table of docs/parameters.md, one row for each parameter: `--describe markdown`.
pub fn markdown() -> String {
    let row = |d: &Declaration| {
        let (default, set) = (shown(&d.default()), scope(d).unwrap_or_default());
        format!("| `{}` | `{default}` | {} | {set} | {} |\n", d.name, d.range(), d.description)
    };
    let head = "| parameter | default | range | set | description |\n|---|---|---|---|---|\n".to_owned();
    head + &DECLARATIONS.iter().map(row).collect::<String>()
}

/// The first lines of the parameter file.
const YAML_HEAD: &str = "\
# Every parameter of perception_node with its default: the output of `perception_node --describe yaml`.
# live: can be changed while the node runs, as in ros2 param set /perception score_threshold 0.5
# fixed: keeps the value that the node was started with
# per camera: can be given for one of several cameras, as in front.mounting
/**:
  ros__parameters:";

/// The parameter file launch/perception.yaml: `--describe yaml`.
pub fn yaml() -> String {
    let entry = |d: &Declaration| {
        // The range of a boolean or a string is evident.
        let range = match d.domain {
            Domain::Flag { .. } | Domain::Text { .. } => None,
            Domain::Choice { .. } => Some(format!("values: {}", d.range())),
            Domain::Integer { .. } | Domain::Real { .. } => Some(format!("range: {}", d.range())),
        };
        let notes: Vec<_> = range.into_iter().chain(scope(d).map(str::to_owned)).collect();
        let notes = if notes.is_empty() { String::new() } else { format!("    # {}\n", notes.join("; ")) };
        let value = match d.default() {
            // A string needs quotes only if it is empty.
            ParameterValue::String(text) if !text.is_empty() => text,
            value => shown(&value),
        };
        format!("\n{}{notes}    {}: {value}\n", wrapped(d.description, "    # "), d.name)
    };
    YAML_HEAD.to_owned() + &DECLARATIONS.iter().map(entry).collect::<String>()
}

/// When a parameter may be set, unless only while the node is not configured; and for what, unless
/// for the whole node.
fn scope(d: &Declaration) -> Option<&'static str> {
    match d {
        Declaration { live: true, .. } => Some("live"),
        Declaration { fixed: true, .. } => Some("fixed"),
        Declaration { per_camera: true, .. } => Some("per camera"),
        _ => None,
    }
}

/// `text` in lines of at most [`COLUMNS`], each after `prefix`.
fn wrapped(text: &str, prefix: &str) -> String {
    let mut lines = vec![prefix.trim_end().to_owned()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is one");
        if last.chars().count() + 1 + word.chars().count() <= COLUMNS {
            *last += &format!(" {word}");
        } else {
            lines.push(format!("{prefix}{word}"));
        }
    }
    lines.join("\n") + "\n"
}
