//! A recording: a bag's folder, one of its files, or a video.

use std::path::{Path, PathBuf};

use crate::error::RecordingError;
use crate::image::ImageType;
use crate::images::Images;
use crate::metadata::{Metadata, METADATA};
use crate::selection::Selection;
use crate::storage::{self, Format, Plain};
use crate::topic::Topic;
use crate::video::{self, Video};

/// A recording whose images can be read.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    source: Source,
    topics: Vec<Topic>,
    start: u64,
    end: u64,
    warnings: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Source {
    /// In the order in which they were recorded.
    Files(Vec<PathBuf>),
    Video(Video),
}

/// The topic of a video.
const VIDEO: &str = "video";

impl Recording {
    /// Whether `path` is something to be opened here, as far as names tell: a folder with
    /// `metadata.yaml` or bag files, a `.mcap`, `.db3` or ROS 1 `.bag` file, or a video.
    pub fn is_one(path: &Path) -> bool {
        if path.is_dir() {
            return Metadata::is_in(path) || !files_of(path).is_empty();
        }
        Format::of(path).is_some() || is_ros1(path) || video::is_one(path)
    }

    /// Opens a bag's folder, one of its files (`.mcap`, `.db3`, also with `.zstd` behind), or a
    /// video. What is damaged is a [warning](Self::warnings) and not an error.
    ///
    /// # Errors
    /// When there is nothing that can be read; the message says why.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        if is_ros1(path) {
            let folder = path.with_extension("");
            let why = format!(
                "is a bag of ROS 1; convert it with `rosbags-convert --src {} --dst {}`",
                path.display(),
                folder.display()
            );
            return Err(RecordingError::Invalid { path: path.to_owned(), why });
        }
        if path.is_dir() {
            return Self::open_folder(path);
        }
        if Format::of(path).is_none() && video::is_one(path) {
            return Self::open_video(path);
        }
        let mut recording = Self::empty(path, Source::Files(vec![path.to_owned()]));
        recording.scan()?;
        Ok(recording)
    }

    fn empty(path: &Path, source: Source) -> Self {
        Self { path: path.to_owned(), source, topics: vec![], start: 0, end: 0, warnings: vec![] }
    }

    fn open_video(path: &Path) -> Result<Self, RecordingError> {
        let video = Video::open(path)?;
        let topic = Topic {
            name: VIDEO.to_owned(),
            type_name: "video".to_owned(),
            encoding: video.codec.clone(),
            count: video.frames,
        };
        let end = video.duration;
        Ok(Self { topics: vec![topic], end, ..Self::empty(path, Source::Video(video)) })
    }

    fn open_folder(path: &Path) -> Result<Self, RecordingError> {
        let found = files_of(path);
        let mut recording = Self::empty(path, Source::Files(found.clone()));
        match Metadata::read(path) {
            Some(Ok(metadata)) => {
                let files = recording.locate(&metadata.files);
                if files.is_empty() {
                    let why = format!("none of the files that {METADATA} lists is there");
                    return Err(RecordingError::Invalid { path: path.to_owned(), why });
                }
                recording.source = Source::Files(files);
                recording.topics = metadata.topics;
                recording.start = metadata.start;
                recording.end = metadata.start.saturating_add(metadata.duration);
                return Ok(recording);
            }
            Some(Err(why)) => {
                let why = why.lines().next().unwrap_or_default();
                let warning = format!("{METADATA} cannot be used ({why}): the files are read without it");
                recording.warn(path, &warning);
            }
            None if found.is_empty() => {
                let why = format!("has no {METADATA} and no .mcap or .db3 file; name a bag's folder");
                return Err(RecordingError::Invalid { path: path.to_owned(), why });
            }
            None => recording.warn(path, &format!("has no {METADATA}, as if its recorder was stopped")),
        }
        recording.scan()?;
        Ok(recording)
    }

    /// The files that exist of those that `metadata.yaml` lists; a warning for each other. Early
    /// versions wrote the bag's folder before the name.
    fn locate(&mut self, listed: &[PathBuf]) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for file in listed {
            let name = file.file_name().map(|name| self.path.join(name));
            let candidates = [Some(self.path.join(file)), name];
            match candidates.into_iter().flatten().find(|path| path.is_file()) {
                Some(path) => files.push(path),
                None => self.warn(&self.path.join(file), "is missing: its images are lost"),
            }
        }
        files
    }

    /// Lists the topics from the files themselves.
    fn scan(&mut self) -> Result<(), RecordingError> {
        let Source::Files(files) = &self.source else { return Ok(()) };
        let (mut span, mut first_error, mut read) = (None::<(u64, u64)>, None, Vec::new());
        for path in files.clone() {
            let opened = Plain::open(&path).and_then(|file| Ok((storage::contents(&file)?, file.loss.clone())));
            let (contents, loss) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    self.warnings.push(error.to_string());
                    first_error = first_error.or(Some(error));
                    continue;
                }
            };
            for warning in loss.iter().chain(&contents.warnings) {
                self.warn(&path, warning);
            }
            if let Some((first, last)) = contents.span {
                span = Some(span.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
            }
            contents.topics.into_iter().for_each(|topic| self.add(topic));
            read.push(path);
        }
        match first_error {
            Some(error) if read.is_empty() => return Err(error),
            _ => self.source = Source::Files(read),
        }
        (self.start, self.end) = span.unwrap_or_default();
        Ok(())
    }

    fn add(&mut self, topic: Topic) {
        let same = |t: &&mut Topic| t.name == topic.name && t.type_name == topic.type_name;
        match self.topics.iter_mut().find(same) {
            Some(known) => known.count = known.count.zip(topic.count).map(|(a, b)| a.saturating_add(b)),
            None => self.topics.push(topic),
        }
    }

    fn warn(&mut self, path: &Path, what: &str) {
        self.warnings.push(format!("{}: {what}", path.display()));
    }

    /// As it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every topic, of images or not. Of a video, one.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Log time of the first message, in nanoseconds since 1970; 0 for a video.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Nanoseconds from the first message to the last.
    pub fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// What is wrong with it, as far as opening it tells: sentences that name the file.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether it is a video, which has no topics.
    pub fn is_video(&self) -> bool {
        matches!(self.source, Source::Video(_))
    }

    /// The topic of images called `wanted`, or the only one.
    ///
    /// # Errors
    /// When there is none or several, or `wanted` is another; the message lists those that are
    /// there.
    pub fn image_topic(&self, wanted: Option<&str>) -> Result<&Topic, RecordingError> {
        let path = self.path.clone();
        if self.is_video() {
            return match wanted {
                Some(name) if name != VIDEO => Err(RecordingError::TopicOfVideo { path }),
                _ => Ok(&self.topics[0]),
            };
        }
        let described = |topics: &[&Topic]| topics.iter().map(|topic| topic.described()).collect::<Vec<_>>();
        let of_images: Vec<&Topic> = self.topics.iter().filter(|t| ImageType::named(&t.type_name).is_some()).collect();
        let images = described(&of_images);
        let topic = match (wanted, &of_images[..]) {
            (_, []) => {
                return Err(RecordingError::NoImages {
                    path,
                    topics: described(&self.topics.iter().collect::<Vec<_>>()),
                })
            }
            (None, &[only]) => only,
            // Topics that nothing was sent on do not make a question.
            (None, _) => match of_images.iter().filter(|topic| topic.count != Some(0)).collect::<Vec<_>>()[..] {
                [only] => only,
                _ => return Err(RecordingError::WhichTopic { path, images }),
            },
            (Some(name), _) => {
                // `ros2 topic list` shows names with a slash in front, and people leave it out.
                let is_it = |topic: &&&Topic| topic.name == name || topic.name.strip_prefix('/') == Some(name);
                match of_images.iter().find(is_it) {
                    Some(topic) => topic,
                    None if self.topics.iter().any(|topic| topic.name == name) => {
                        return Err(RecordingError::OtherType { path, wanted: name.to_owned(), images })
                    }
                    None => return Err(RecordingError::NoTopic { path, wanted: name.to_owned(), images }),
                }
            }
        };
        if topic.image_type().is_none() {
            let (wanted, encoding) = (topic.name.clone(), topic.encoding.clone());
            return Err(RecordingError::Encoding { path, wanted, encoding });
        }
        Ok(topic)
    }

    /// The images of `topic`, one of [`topics`](Self::topics), that `selection` wants.
    pub fn images(&self, topic: &Topic, selection: &Selection) -> Images<'_> {
        Images::new(&self.source, topic, selection, self.start)
    }
}

fn is_ros1(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "bag") && path.is_file()
}

/// The bag files of a folder, numbers in the order of their values.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| Format::of(path).is_some()).collect();
    files.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    files
}
