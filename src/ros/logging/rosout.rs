//! Records on `/rosout`, as `rcl_interfaces/msg/Log`, which r2r does not publish itself.
//!
//! A thread that logs never waits: records go into a bounded queue, which the diagnostics thread empties.
//! Those that find it full are dropped and counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, Sender};
use r2r::rcl_interfaces::msg::Log;
use r2r::{Node, Publisher, QosProfile};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::ErrorCounter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::Layer;

/// Records that can wait to be published.
const CAPACITY: usize = 256;

/// One record of the log. Texts of the source are those of the program itself.
struct LogRecord {
    at: Duration,
    level: Level,
    message: String,
    file: &'static str,
    function: &'static str,
    line: u32,
}

/// A queue, and the layer that fills it. `not_written` counts the lines that the console dropped.
pub(super) fn queue(not_written: ErrorCounter) -> (RosoutLayer, LogQueue) {
    let (sender, records) = crossbeam::channel::bounded(CAPACITY);
    let dropped = Arc::new(AtomicU64::new(0));
    let queue = LogQueue { records, dropped: Arc::clone(&dropped), not_written, told: AtomicUsize::new(0) };
    (RosoutLayer { sender, dropped }, queue)
}

/// Records that wait to be published.
pub struct LogQueue {
    records: Receiver<LogRecord>,
    /// Since the last publication.
    dropped: Arc<AtomicU64>,
    not_written: ErrorCounter,
    /// How many of them were told of.
    told: AtomicUsize,
}

/// Puts each record into the queue.
pub(super) struct RosoutLayer {
    sender: Sender<LogRecord>,
    dropped: Arc<AtomicU64>,
}

impl<S: Subscriber> Layer<S> for RosoutLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let metadata = event.metadata();
        let record = LogRecord {
            at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            level: *metadata.level(),
            message: message.0,
            file: metadata.file().unwrap_or_default(),
            function: metadata.module_path().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
        };
        if self.sender.try_send(record).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// The text of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// The node's publisher on `/rosout`.
pub struct RosoutPublisher {
    publisher: Publisher<Log>,
    /// The logger's name.
    name: String,
    queue: LogQueue,
}

impl RosoutPublisher {
    /// # Errors
    /// When ROS refuses the publisher.
    pub fn new(node: &mut Node, queue: LogQueue) -> r2r::Result<Self> {
        // As rclcpp's: those who subscribe later still get the records of the last ten seconds.
        let mut qos = QosProfile::default().keep_last(1000).reliable().transient_local();
        qos.lifespan = Duration::from_secs(10);
        Ok(Self { publisher: node.create_publisher("/rosout", qos)?, name: node.logger().to_owned(), queue })
    }

    /// Publishes what waits in the queue. A record that the middleware refuses is on the terminal
    /// all the same.
    pub fn publish_pending(&self) {
        let dropped = self.queue.dropped.swap(0, Relaxed);
        for record in self.queue.records.try_iter() {
            let _ = self.publisher.publish(&self.message(record));
        }
        if dropped > 0 {
            // Into the queue, which has room now.
            tracing::warn!("{dropped} log records were dropped before they reached /rosout");
        }
        let not_written = self.queue.not_written.dropped_lines();
        let told = self.queue.told.swap(not_written, Relaxed);
        // One more is the line that told of the last ones.
        if not_written > told + 1 || (not_written > 0 && told == 0) {
            tracing::warn!("standard error is not read: {not_written} lines of the log are not on the terminal");
        }
    }

    fn message(&self, record: LogRecord) -> Log {
        Log {
            stamp: r2r::Clock::to_builtin_time(&record.at),
            level: number(record.level),
            name: self.name.clone(),
            msg: record.message,
            file: record.file.to_owned(),
            function: record.function.to_owned(),
            line: record.line,
        }
    }
}

/// A level's number in `rcl_interfaces/msg/Log`.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG | Level::TRACE => 10,
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn records_have_text_and_source_and_dropped_ones_are_counted() {
        let (lines, _writer) = tracing_appender::non_blocking(std::io::sink());
        let (layer, queue) = queue(lines.error_counter());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!("images on {} are rejected", "/image");
            (0..CAPACITY).for_each(|i| tracing::info!("record {i}"));
        });
        let records: Vec<_> = queue.records.try_iter().collect();
        let first = &records[0];
        assert_eq!((first.message.as_str(), number(first.level)), ("images on /image are rejected", 30));
        assert!(first.file.ends_with("rosout.rs") && first.line > 0 && first.function.contains("rosout"));
        assert_eq!((records.len(), queue.dropped.load(Relaxed)), (CAPACITY, 1));
    }
}
