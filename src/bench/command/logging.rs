//! Messages on standard error: `note:`, `warning:` or `error:` and a sentence. Results go to
//! standard output.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Installs it for this process; does nothing if there is a subscriber already.
pub fn init() {
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(Level::INFO);
    let _ = subscriber.event_format(CommandLine).try_init();
}

struct CommandLine;

impl<S, F> FormatEvent<S, F> for CommandLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, F>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let kind = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => "note",
        };
        write!(out, "{kind}: ")?;
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}
