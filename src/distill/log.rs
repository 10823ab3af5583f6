//! Log lines: on stderr, plain messages without timestamps, above any progress bar.
//!
//! `RUST_LOG` sets the levels, such as `RUST_LOG=warn` or `RUST_LOG=peregrine_distill=debug`;
//! without it, this program logs from info on and its libraries from warnings on.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::LazyLock;

use indicatif::{MultiProgress, ProgressBar};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
static QUIET: AtomicBool = AtomicBool::new(false);

/// Starts logging; to be called once, first thing in the program.
pub fn init() {
    let asked = std::env::var("RUST_LOG").ok();
    let levels = asked.as_deref().map(str::parse::<Targets>);
    let default = || Targets::new().with_default(Level::WARN).with_target("peregrine_distill", Level::INFO);
    let invalid = levels.as_ref().and_then(|levels| levels.as_ref().err().map(ToString::to_string));
    let levels = levels.and_then(Result::ok).unwrap_or_else(default);
    let lines = tracing_subscriber::fmt::layer().event_format(Plain).with_writer(|| AboveBars).with_filter(levels);
    // Fails when there is a subscriber already: that of a program that uses this as a library
    // stays.
    let _ = tracing_subscriber::registry().with(lines).try_init();
    if let Some(invalid) = invalid {
        tracing::warn!("RUST_LOG is ignored: {invalid}");
    }
}

/// From now on only errors are logged, and no bar is shown: another process tells the same.
pub fn only_errors() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Shows `bar` on the terminal so that log lines are written above it.
pub fn show(bar: ProgressBar) -> ProgressBar {
    if QUIET.load(Ordering::Relaxed) {
        return ProgressBar::hidden();
    }
    BARS.add(bar)
}

/// The message alone; warnings and errors say so first.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        if level > Level::ERROR && QUIET.load(Ordering::Relaxed) {
            return Ok(());
        }
        match level {
            Level::ERROR => write!(out, "error: ")?,
            Level::WARN => write!(out, "warning: ")?,
            _ => {}
        }
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// Stderr, with the progress bars taken away while a line is written.
struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
