//! `bench/RESULTS.md`: each command writes its own part of it, between two marks that name the command.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use peregrine_core::files::write_atomically;

use super::machine::Fingerprint;

/// Replaces what `command` last wrote into `file` by `text`, or appends it.
///
/// # Errors
/// When the file cannot be read or written.
pub fn replace_part(file: &Path, command: &str, text: &str) -> anyhow::Result<()> {
    let before = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    write_atomically(file, with_part(&before, command, text).as_bytes())?;
    Ok(())
}

fn with_part(before: &str, command: &str, text: &str) -> String {
    let (begin, end) = (format!("<!-- {command} writes from here -->"), format!("<!-- {command} writes to here -->"));
    let appended = format!("{}\n", before.trim_end());
    let (head, tail) = match (before.find(&begin), before.find(&end)) {
        (Some(from), Some(to)) if from < to => (&before[..from], &before[to + end.len()..]),
        _ => (appended.as_str(), "\n"),
    };
    let gap = if head.ends_with("\n\n") || head.trim().is_empty() { "" } else { "\n" };
    format!("{head}{gap}{begin}\n\n{}\n\n{end}{tail}", text.trim())
}

/// What has to stand beside figures: machine, revision, and the load that there is at this moment.
pub fn circumstances() -> String {
    let machine = Fingerprint::read();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{}; revision {}; load average at the end {}{}",
        machine.summary(),
        machine.git_revision.as_deref().unwrap_or("unknown"),
        load.split(' ').next().unwrap_or("unknown"),
        if machine.optimised_build { "" } else { "; **an unoptimised build, so no figure to quote**" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_replaces_its_own_part_and_leaves_the_rest() {
        let first = with_part("# Results\n", "make a", "one");
        let both = with_part(&first, "make b", "two\n");
        let again = with_part(&both, "make a", "three");
        assert!(!again.contains("one") && again.contains("three") && again.contains("two"), "{again}");
        assert_eq!(again.matches("writes from here").count(), 2);
        assert_eq!(with_part(&again, "make a", "three"), again, "the same again changes nothing");
        assert!(again.starts_with("# Results\n\n<!-- make a writes from here -->\n\nthree\n\n<!-- make a writes to"));
    }
}
