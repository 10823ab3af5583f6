//! What is written of a run, and where.

use std::io::{self, Write};
use std::path::Path;

use super::arguments::Arguments;
use crate::bench::record::Run;
use crate::bench::{histogram_files, html, Report};
use crate::student::package::write_atomically;

/// Writes all that was asked for; the exit code.
///
/// # Errors
/// When a file cannot be written.
pub fn write(arguments: &Arguments, report: &Report, run: &Run) -> anyhow::Result<u8> {
    let to_stdout = arguments.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    say(&if to_stdout { report.json() } else { report.text() });
    if let (Some(path), false) = (&arguments.json, to_stdout) {
        json(path, &report.json())?;
    }
    if let Some(path) = &arguments.html {
        write_atomically(path, html::page(report, run).as_bytes())?;
    }
    if let Some(path) = &arguments.hgrm {
        write_atomically(path, histogram_files::hgrm(run).as_bytes())?;
    }
    if let Some(path) = &arguments.hlog {
        write_atomically(path, histogram_files::log(run).as_bytes())?;
    }
    let interrupted = if run.interrupted.is_some() { 2 } else { 0 };
    Ok(report.judgement.as_ref().map_or(interrupted, |judgement| judgement.verdict.exit_code()))
}

/// Writes JSON where `--json` says: `-` is standard output.
///
/// # Errors
/// When the file cannot be written.
pub fn json(path: &Path, text: &str) -> anyhow::Result<()> {
    if path.as_os_str() == "-" {
        say(text);
    } else {
        write_atomically(path, text.as_bytes())?;
    }
    Ok(())
}

/// Writes to standard output; a reader that has gone away is no error.
pub fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
