//! Output of a run: text, JSON and files.

use std::io::{self, Write};

use peregrine_core::files::write_atomically;

use super::arguments::Arguments;
use crate::record::BenchRun;
use crate::{histogram_files, html, BenchReport};

/// Writes all requested outputs. Returns the exit code.
///
/// # Errors
/// If a file cannot be written.
pub fn write(arguments: &Arguments, report: &BenchReport, run: &BenchRun) -> anyhow::Result<u8> {
    text_and_json(arguments, &report.text(), &report.json())?;
    if let Some(path) = &arguments.html {
        html::page(report, run)?.write(path)?;
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

/// Writes the text to standard output, and the JSON to the file of `--json`; with `--json -`, JSON
/// instead of text.
///
/// # Errors
/// If the file cannot be written.
pub fn text_and_json(arguments: &Arguments, text: &str, json: &str) -> anyhow::Result<()> {
    print(if arguments.json_to_stdout() { json } else { text });
    match &arguments.json {
        Some(path) if !arguments.json_to_stdout() => Ok(write_atomically(path, json.as_bytes())?),
        _ => Ok(()),
    }
}

/// Writes to standard output; a closed pipe is not an error.
pub fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
