//! Records on the terminal, in the format of `rcutils`: `[INFO] [1700000000.123456789]
//! [perception]: active`.

use std::fmt;
use std::io::IsTerminal;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::Layer;

/// To standard error, in colour if that is a terminal.
pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(name: &str) -> impl Layer<S> {
    tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .event_format(RosFormat { name: name.to_owned() })
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
