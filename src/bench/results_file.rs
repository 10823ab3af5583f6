//! `bench/RESULTS.md`: each command writes its own section, between two markers that name the
//! command.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use peregrine_core::files::write_atomically;

use super::machine::Fingerprint;
use super::system;

/// Replaces the section of `command` in `file` by `text`, or appends it.
///
/// # Errors
/// If the file cannot be read or written.
pub fn replace_section(file: &Path, command: &str, text: &str) -> anyhow::Result<()> {
    let before = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    write_atomically(file, with_section(&before, command, text).as_bytes())?;
    Ok(())
}

fn with_section(before: &str, command: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- {command} writes from here -->"), format!("<!-- {command} writes to here -->"));
    let appended = format!("{}\n", before.trim_end());
    let (head, tail) = match (before.find(&begin), before.find(&end)) {
        (Some(from), Some(to)) if from < to => (&before[..from], &before[to + end.len()..]),
        _ => (appended.as_str(), "\n"),
    };
    let gap = if head.ends_with("\n\n") || head.trim().is_empty() { "" } else { "\n" };
    format!("{head}{gap}{begin}\n\n{}\n\n{end}{tail}", text.trim())
}

/// The conditions to state with figures: machine, revision and present load average.
pub fn conditions() -> String {
    let machine = Fingerprint::read();
    format!(
        "{}; revision {}; load average at the end {}{}",
        machine.summary(),
        machine.git_revision.as_deref().unwrap_or("unknown"),
        system::load_average().map_or("unknown".into(), |load| format!("{load:.2}")),
        if machine.optimised_build { "" } else { "; **a debug build: do not quote these figures**" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_replaces_only_its_own_section() {
        let first = with_section("# Results\n", "make a", "one");
        let both = with_section(&first, "make b", "two\n");
        let again = with_section(&both, "make a", "three");
        assert!(!again.contains("one") && again.contains("three") && again.contains("two"), "{again}");
        assert_eq!(again.matches("writes from here").count(), 2);
        assert_eq!(with_section(&again, "make a", "three"), again, "the same again changes nothing");
        assert!(again.starts_with("# Results\n\n<!-- make a writes from here -->\n\nthree\n\n<!-- make a writes to"));
    }
}
