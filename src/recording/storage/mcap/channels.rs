//! The channels of an MCAP file, with the names of their schemas.

use std::collections::{BTreeMap, HashMap};

use super::fields::{op, schema, Channel};
use crate::topic::Topic;

/// The channels of a file, as far as it has been read.
#[derive(Debug, Default)]
pub struct Channels {
    schemas: HashMap<u16, String>,
    channels: BTreeMap<u16, Channel>,
}

impl Channels {
    /// Takes note of a schema or channel; other records are no business of this.
    ///
    /// # Errors
    /// When the record is damaged.
    pub fn note(&mut self, opcode: u8, record: &[u8]) -> Result<(), &'static str> {
        match opcode {
            op::SCHEMA => {
                let (id, name) = schema(record).ok_or("a schema is damaged")?;
                self.schemas.insert(id, name);
            }
            op::CHANNEL => {
                let channel = Channel::parse(record).ok_or("a channel is damaged")?;
                self.channels.insert(channel.id, channel);
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether [`note`](Self::note) has a use for such a record.
    pub fn wants(opcode: u8) -> bool {
        opcode == op::SCHEMA || opcode == op::CHANNEL
    }

    pub fn has(&self, channel: u16) -> bool {
        self.channels.contains_key(&channel)
    }

    /// Type of a channel's messages; empty if it has no schema.
    fn type_of(&self, channel: &Channel) -> &str {
        self.schemas.get(&channel.schema).map_or("", String::as_str)
    }

    /// Whether `channel` is one of `topic`.
    pub fn is_of(&self, channel: u16, topic: &Topic) -> bool {
        self.channels.get(&channel).is_some_and(|found| {
            found.topic == topic.name && self.type_of(found) == topic.type_name && found.encoding == topic.encoding
        })
    }

    /// All topics, in the order of their names, with the sums of their channels' `counts`.
    pub fn topics(&self, counts: Option<&BTreeMap<u16, u64>>) -> Vec<Topic> {
        let mut topics: Vec<Topic> = Vec::new();
        for (id, channel) in &self.channels {
            let (type_name, encoding) = (self.type_of(channel), &channel.encoding);
            let count = counts.map(|counts| counts.get(id).copied().unwrap_or(0));
            let same = |t: &&mut Topic| t.name == channel.topic && t.type_name == type_name && t.encoding == *encoding;
            match topics.iter_mut().find(same) {
                Some(topic) => topic.count = topic.count.zip(count).map(|(a, b)| a.saturating_add(b)),
                None => topics.push(Topic {
                    name: channel.topic.clone(),
                    type_name: type_name.to_owned(),
                    encoding: encoding.clone(),
                    count,
                }),
            }
        }
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics
    }
}
