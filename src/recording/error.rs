//! Why a recording cannot be used.

use std::path::PathBuf;

use peregrine_video::VideoFault;

/// Why a recording cannot be used. Every message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum RecordingError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {why}")]
    Invalid { path: PathBuf, why: String },
    #[error(
        "{path}: cannot be unpacked into {folder}: {source}; name another folder for temporary files in the variable \
         TMPDIR, or unpack it with `zstd -d`"
    )]
    Unpack { path: PathBuf, folder: PathBuf, source: std::io::Error },
    #[error("{path}: has no topic {wanted}; its image topics are: {}", listed(.images))]
    NoTopic { path: PathBuf, wanted: String, images: Vec<String> },
    #[error("{path}: the topic {wanted} has no images; the image topics are: {}", listed(.images))]
    OtherType { path: PathBuf, wanted: String, images: Vec<String> },
    #[error(
        "{path}: the messages of {wanted} are encoded as {encoding:?}, and only cdr (ROS 2) is read; convert the \
         recording with `rosbags-convert`"
    )]
    Encoding { path: PathBuf, wanted: String, encoding: String },
    #[error("{path}: has no topic of images; its topics are: {}", listed(.topics))]
    NoImages { path: PathBuf, topics: Vec<String> },
    #[error("{path}: has several image topics; name one with --topic: {}", listed(.images))]
    WhichTopic { path: PathBuf, images: Vec<String> },
    #[error("{path}: a video has no topics; leave out --topic")]
    TopicOfVideo { path: PathBuf },
    #[error(
        "{path}: videos are read by the programs ffmpeg and ffprobe, and {program} is not installed (Debian and \
         Ubuntu: apt-get install ffmpeg)"
    )]
    NoFfmpeg { path: PathBuf, program: &'static str },
    #[error("{path}: the images of {topic} are a video, which cannot be decoded here: {fault}")]
    NoDecoder { path: PathBuf, topic: String, fault: VideoFault },
    #[error("{path}: {program} cannot read this video: {why}")]
    Video { path: PathBuf, program: &'static str, why: String },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}
