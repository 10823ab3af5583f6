//! rosbag2's sqlite3 files (.db3): tables `topics` and `messages`.
//!
//! Messages are read in the order in which they were written (by `id`), which needs no index and
//! goes as far as a file that is cut short does.

use std::path::Path;

use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::{Contents, Messages, OpenError, Span, MAX_MESSAGE};
use crate::topic::Topic;

const NEXT: &str = "SELECT id, timestamp, data FROM messages \
     WHERE id > ?1 AND topic_id = ?2 AND timestamp BETWEEN ?3 AND ?4 ORDER BY id LIMIT 1";

/// Opens a file to read it only. Where its folder cannot be written to, which SQLite needs for a
/// bag whose recorder was killed, what the recorder had not yet moved into the file is left out.
fn open(path: &Path) -> Result<Connection, OpenError> {
    // Before SQLite, whose message for this names no reason.
    std::fs::File::open(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let opened = Connection::open_with_flags(path, flags).and_then(prepared);
    let connection = match opened {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen) => {
            Connection::open_with_flags(immutable(path), flags).and_then(prepared)
        }
        opened => opened,
    };
    connection.map_err(|error| OpenError::Invalid(format!("is no rosbag2 file of storage sqlite3: {error}")))
}

fn prepared(connection: Connection) -> rusqlite::Result<Connection> {
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::try_from(MAX_MESSAGE).unwrap_or(i32::MAX))?;
    // Without this SQLite refuses a file that has fewer pages than its header says.
    connection.pragma_update(None, "writable_schema", true)?;
    connection.query_row("SELECT count(*) FROM topics", [], |row| row.get::<_, i64>(0))?;
    Ok(connection)
}

/// The URI that tells SQLite that nobody else uses the file.
fn immutable(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => uri.push(char::from(byte)),
            _ => uri += &format!("%{byte:02x}"),
        }
    }
    uri + "?immutable=1"
}

/// Topics and counts.
pub fn contents(path: &Path) -> Result<Contents, OpenError> {
    let connection = open(path)?;
    let invalid = |error: rusqlite::Error| OpenError::Invalid(format!("its table of topics cannot be read: {error}"));
    let mut statement =
        connection.prepare("SELECT id, name, type, serialization_format FROM topics ORDER BY name").map_err(invalid)?;
    let rows = statement.query_map([], |row| {
        let topic = Topic { name: row.get(1)?, type_name: row.get(2)?, encoding: row.get(3)?, count: None };
        Ok((row.get::<_, i64>(0)?, topic))
    });
    let rows = rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(invalid)?;

    let mut found = Contents::default();
    let mut counts = std::collections::HashMap::new();
    let counted = count(&connection, |topic, time| {
        found.include(time);
        *counts.entry(topic).or_insert(0u64) += 1;
    });
    if let Err(error) = counted {
        let messages: u64 = counts.values().sum();
        found.warnings.push(damaged(messages, &error));
    }
    let with_count = |(id, topic): (i64, Topic)| Topic { count: Some(counts.get(&id).copied().unwrap_or(0)), ..topic };
    found.topics = rows.into_iter().map(with_count).collect();
    Ok(found)
}

/// Calls `found` with the topic and time of each message. Does not read their data.
fn count(connection: &Connection, mut found: impl FnMut(i64, u64)) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT topic_id, timestamp FROM messages ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        found(row.get(0)?, time_of(row.get(1)?));
    }
    Ok(())
}

fn time_of(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or(0)
}

fn damaged(messages: u64, error: &rusqlite::Error) -> String {
    format!("is cut short or damaged after {messages} messages ({error}): what lies behind is lost")
}

/// The messages of `topic`.
pub fn messages(path: &Path, topic: &Topic, span: Span) -> Result<Box<dyn Messages>, OpenError> {
    let connection = open(path)?;
    let id = connection
        .query_row("SELECT id FROM topics WHERE name = ?1 AND type = ?2", [&topic.name, &topic.type_name], |r| r.get(0))
        .optional()
        .map_err(|error| OpenError::Invalid(format!("its table of topics cannot be read: {error}")))?;
    Ok(Box::new(OfTopic { connection, topic: id, span, last: i64::MIN, read: 0 }))
}

struct OfTopic {
    connection: Connection,
    /// `None` if this file has no such topic, or once it cannot be read on.
    topic: Option<i64>,
    span: Span,
    /// Id of the message that was read last.
    last: i64,
    read: u64,
}

impl Messages for OfTopic {
    fn next(&mut self, data: &mut Vec<u8>) -> Result<Option<u64>, String> {
        let Some(topic) = self.topic else { return Ok(None) };
        let bound = |time| i64::try_from(time).unwrap_or(i64::MAX);
        let read = self.connection.prepare(NEXT).and_then(|mut statement| {
            let mut rows = statement.query((self.last, topic, bound(self.span.0), bound(self.span.1)))?;
            let Some(row) = rows.next()? else { return Ok(None) };
            data.clear();
            data.extend_from_slice(row.get_ref(2)?.as_bytes()?);
            Ok(Some((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
        });
        match read {
            Ok(Some((id, timestamp))) => {
                (self.last, self.read) = (id, self.read + 1);
                Ok(Some(time_of(timestamp)))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.topic = None;
                Err(damaged(self.read, &error))
            }
        }
    }
}
