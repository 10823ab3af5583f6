//! `metadata.yaml`, in which rosbag2 lists the files and topics of a bag.

use std::io::Read;
use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

use crate::topic::Topic;

/// File name within a bag's folder.
pub const METADATA: &str = "metadata.yaml";

/// Longest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 24;

/// What is used of the file.
#[derive(Debug)]
pub struct Metadata {
    /// Relative to the bag's folder, in the order in which they were recorded.
    pub files: Vec<PathBuf>,
    pub topics: Vec<Topic>,
    /// Log time of the first message, in nanoseconds, and nanoseconds from it to the last.
    pub start: u64,
    pub duration: u64,
}

impl Metadata {
    /// Whether `folder` has such a file, by its first key.
    pub fn is_in(folder: &Path) -> bool {
        let mut beginning = [0; 256];
        let read = std::fs::File::open(folder.join(METADATA)).and_then(|mut file| file.read(&mut beginning));
        read.is_ok_and(|bytes| String::from_utf8_lossy(&beginning[..bytes]).contains("rosbag2_bagfile_information"))
    }

    /// Reads the file in a bag's folder. `None` if there is none.
    ///
    /// # Errors
    /// A sentence without the file's name.
    pub fn read(folder: &Path) -> Option<Result<Self, String>> {
        let path = folder.join(METADATA);
        let length = std::fs::metadata(&path).ok()?.len();
        if length > MAX_BYTES {
            return Some(Err(format!("has {length} bytes, and no bag needs so many")));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        Some(text.and_then(|text| Self::parse(&text)))
    }

    fn parse(text: &str) -> Result<Self, String> {
        // The parser copies what an anchor names, so that a few lines could fill the memory.
        if text.contains('&') {
            return Err("has YAML anchors, which rosbag2 does not write".to_owned());
        }
        let documents = YamlLoader::load_from_str(text).map_err(|error| error.to_string())?;
        let information = documents.first().map(|document| &document["rosbag2_bagfile_information"]);
        let information = information.filter(|found| !found.is_badvalue()).ok_or("is not rosbag2's")?;
        let files = information["relative_file_paths"].as_vec().ok_or("has no relative_file_paths")?;
        let topics = information["topics_with_message_count"].as_vec().ok_or("has no topics_with_message_count")?;
        let number = |value: &Yaml| value.as_i64().and_then(|number| u64::try_from(number).ok());
        Ok(Self {
            files: files.iter().filter_map(Yaml::as_str).map(PathBuf::from).collect(),
            topics: topics.iter().map(topic).collect::<Option<_>>().ok_or("has a topic without name or type")?,
            start: number(&information["starting_time"]["nanoseconds_since_epoch"]).unwrap_or(0),
            duration: number(&information["duration"]["nanoseconds"]).unwrap_or(0),
        })
    }
}

fn topic(counted: &Yaml) -> Option<Topic> {
    let metadata = &counted["topic_metadata"];
    let text = |key: &str| metadata[key].as_str().map(str::to_owned);
    let count = counted["message_count"].as_i64().and_then(|count| u64::try_from(count).ok());
    Some(Topic { name: text("name")?, type_name: text("type")?, encoding: text("serialization_format")?, count })
}
