//! What is written of a run, and where.

use std::io::{self, Write};

use peregrine_core::files::write_atomically;

use super::arguments::Arguments;
use crate::record::Run;
use crate::{histogram_files, html, Report};

/// Writes all that was asked for; the exit code.
///
/// # Errors
/// When a file cannot be written.
pub fn write(arguments: &Arguments, report: &Report, run: &Run) -> anyhow::Result<u8> {
    text_and_json(arguments, &report.text(), &report.json())?;
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

/// Writes the text to standard output, and the JSON where `--json` says: `-` is standard output, in place of the text.
///
/// # Errors
/// When the file cannot be written.
pub fn text_and_json(arguments: &Arguments, text: &str, json: &str) -> anyhow::Result<()> {
    say(if arguments.json_to_stdout() { json } else { text });
    match &arguments.json {
        Some(path) if !arguments.json_to_stdout() => Ok(write_atomically(path, json.as_bytes())?),
        _ => Ok(()),
    }
}

/// Writes to standard output; a reader that has gone away is no error.
pub fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
