//! Records on the terminal, in the format of `rcutils`: `[INFO] [1700000000.123456789]
//! [perception]: active`.
//!
//! A thread that logs never waits for the terminal: another one writes, since whoever reads standard error
//! may stop to (a pager, a launcher that hangs), and a full pipe would stop the node.

use std::fmt;
use std::io::IsTerminal;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::Layer;

/// Lines that can wait to be written; those that find it full are dropped and counted.
const LINES: usize = 1024;

/// The console's side of the log: until it is dropped lines are written, and then those that wait, for a
/// second at most.
pub struct Console {
    _writer: WorkerGuard,
    pub(super) dropped: ErrorCounter,
}

/// To standard error, in colour if that is a terminal.
pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(name: &str) -> (impl Layer<S>, Console) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES).thread_name("log");
    let (lines, writer) = builder.finish(std::io::stderr());
    let dropped = lines.error_counter();
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(lines)
        .with_ansi(std::io::stderr().is_terminal())
        .event_format(RosFormat { name: name.to_owned() });
    (layer, Console { _writer: writer, dropped })
}

struct RosFormat {
    name: String,
}

impl<S, N> FormatEvent<S, N> for RosFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let level = *event.metadata().level();
        let colour = match level {
            Level::ERROR => "\x1b[31m",
            Level::WARN => "\x1b[33m",
            _ => "",
        };
        let coloured = writer.has_ansi_escapes() && !colour.is_empty();
        if coloured {
            writer.write_str(colour)?;
        }
        write!(writer, "[{level}] [{}.{:09}] [{}]: ", now.as_secs(), now.subsec_nanos(), self.name)?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        if coloured {
            writer.write_str("\x1b[0m")?;
        }
        writeln!(writer)
    }
}
