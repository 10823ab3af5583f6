//! Videos, by the programs `ffprobe` and `ffmpeg`: pictures as PPM from a pipe, their times from
//! the filter `showinfo`.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};

use crate::error::RecordingError;
use crate::storage::{Span, MAX_MESSAGE};

/// File names that end in these are taken for videos.
const EXTENSIONS: [&str; 14] =
    ["mp4", "avi", "mkv", "mov", "webm", "m4v", "mpg", "mpeg", "ts", "mts", "wmv", "flv", "ogv", "3gp"];

/// Whether the file's name is a video's.
pub fn is_one(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// A video, as ffprobe describes it.
#[derive(Debug, Clone)]
pub struct Video {
    path: PathBuf,
    pub codec: String,
    /// Number of pictures, where the file says it.
    pub frames: Option<u64>,
    /// Nanoseconds; 0 where the file does not say it.
    pub duration: u64,
}

impl Video {
    /// Asks ffprobe.
    ///
    /// # Errors
    /// When it is not installed, or finds no video.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        std::fs::File::open(path).map_err(|source| RecordingError::Io { path: path.to_owned(), source })?;
        let mut command = Command::new("ffprobe");
        command.args(["-v", "error", "-select_streams", "v:0", "-of", "default=noprint_wrappers=1"]);
        command.args(["-show_entries", "stream=codec_name,nb_frames:format=duration"]).arg(url(path));
        let output = command.stdin(Stdio::null()).output().map_err(|error| not_started(path, "ffprobe", &error))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let Some(codec) = field("codec_name").filter(|_| output.status.success()) else {
            let said = String::from_utf8_lossy(&output.stderr);
            let why = said.lines().last().unwrap_or("there is no picture in it").to_owned();
            return Err(RecordingError::Video { path: path.to_owned(), program: "ffprobe", why });
        };
        let seconds = field("duration").and_then(|duration| duration.parse::<f64>().ok()).unwrap_or(0.0);
        Ok(Self {
            path: path.to_owned(),
            codec: codec.to_owned(),
            frames: field("nb_frames").and_then(|frames| frames.parse().ok()),
            duration: (seconds.max(0.0) * 1e9) as u64,
        })
    }

    /// Starts ffmpeg on the pictures within `span`, nanoseconds from the beginning.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn frames(&self, span: Span) -> Result<Frames, RecordingError> {
        let seconds = |nanoseconds: u64| format!("{:.6}", nanoseconds as f64 / 1e9);
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-nostats", "-loglevel", "level+info"]);
        if span.0 > 0 {
            command.args(["-ss", &seconds(span.0)]);
        }
        if span.1 < u64::MAX {
            command.args(["-t", &seconds(span.1.saturating_sub(span.0))]);
        }
        command.arg("-i").arg(url(&self.path)).args(["-map", "0:v:0", "-an", "-sn"]);
        // Numbered anew behind showinfo, so that none is doubled or left out to keep a rate.
        command.args(["-vf", "showinfo,settb=1/25,setpts=N", "-r", "25", "-f", "image2pipe", "-c:v", "ppm", "-"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| not_started(&self.path, "ffmpeg", &error))?;
        let output = BufReader::with_capacity(1 << 16, child.stdout.take().expect("piped"));
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, times) = mpsc::channel();
        let complaint = Arc::new(Mutex::new(None));
        let to_complaint = Arc::clone(&complaint);
        std::thread::spawn(move || {
            for line in log.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if let Some(time) = time_of(&line) {
                    if sender.send(time).is_err() {
                        break;
                    }
                } else if let Some((_, what)) = line.split_once("[error]").or_else(|| line.split_once("[fatal]")) {
                    *to_complaint.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
                        Some(what.trim().to_owned());
                }
            }
        });
        Ok(Frames { path: self.path.clone(), child, output, times, complaint, first: span.0, read: 0 })
    }
}

/// A name that ffmpeg takes for a file's whatever is in it.
fn url(path: &Path) -> std::ffi::OsString {
    let mut url = std::ffi::OsString::from("file:");
    url.push(path);
    url
}

fn not_started(path: &Path, program: &'static str, error: &io::Error) -> RecordingError {
    let path = path.to_owned();
    match error.kind() {
        ErrorKind::NotFound => RecordingError::NoFfmpeg { path, program },
        _ => RecordingError::Video { path, program, why: error.to_string() },
    }
}

/// Seconds of a picture, of a line of showinfo.
fn time_of(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once("showinfo").filter(|(_, rest)| rest.contains(" n:"))?.1.split_once("pts_time:")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The pictures of a video, one after another.
pub struct Frames {
    path: PathBuf,
    child: Child,
    output: BufReader<ChildStdout>,
    times: Receiver<f64>,
    /// What ffmpeg said last that is an error.
    complaint: Arc<Mutex<Option<String>>>,
    /// Where it began to read, in nanoseconds.
    first: u64,
    read: u64,
}

/// A picture: nanoseconds from the beginning, and (width, height) in pixels.
pub type Picture = (u64, (u32, u32));

impl Frames {
    /// Reads the next picture into `pixels`, as rgb8. `None` after the last one.
    ///
    /// # Errors
    /// When ffmpeg fails.
    pub fn next(&mut self, pixels: &mut Vec<u8>) -> Result<Option<Picture>, RecordingError> {
        let size = match self.picture(pixels) {
            Ok(Some(size)) => size,
            Ok(None) => return self.end().map(|()| None),
            Err(error) => return Err(self.failed(&error.to_string())),
        };
        let Ok(seconds) = self.times.recv() else { return Err(self.failed("it does not say when a picture is")) };
        self.read += 1;
        Ok(Some((self.first.saturating_add((seconds.max(0.0) * 1e9).round() as u64), size)))
    }

    /// A picture in PPM: `P6`, width, height and 255, a space after each, and the pixels.
    fn picture(&mut self, pixels: &mut Vec<u8>) -> io::Result<Option<(u32, u32)>> {
        if self.output.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut fields = [0u32; 3];
        let damaged = || io::Error::new(ErrorKind::InvalidData, "its pictures are no PPM");
        if self.word()? != b"P6" {
            return Err(damaged());
        }
        for field in &mut fields {
            let word = self.word()?;
            *field = std::str::from_utf8(&word).ok().and_then(|word| word.parse().ok()).ok_or_else(damaged)?;
        }
        let [width, height, most] = fields;
        let bytes = u64::from(width) * u64::from(height) * 3;
        if most != 255 || bytes == 0 || bytes > MAX_MESSAGE {
            return Err(damaged());
        }
        pixels.resize(bytes as usize, 0);
        self.output.read_exact(pixels)?;
        Ok(Some((width, height)))
    }

    /// The bytes up to the next white space.
    fn word(&mut self) -> io::Result<Vec<u8>> {
        let mut word = Vec::new();
        loop {
            let mut byte = [0];
            self.output.read_exact(&mut byte)?;
            match byte[0] {
                b' ' | b'\n' => return Ok(word),
                _ if word.len() == 16 => return Err(io::Error::new(ErrorKind::InvalidData, "its pictures are no PPM")),
                other => word.push(other),
            }
        }
    }

    fn end(&mut self) -> Result<(), RecordingError> {
        match self.child.wait() {
            Ok(status) if status.success() && self.said().is_none() => Ok(()),
            Ok(_) => Err(self.failed("it ended early")),
            Err(error) => Err(self.failed(&error.to_string())),
        }
    }

    fn said(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn failed(&self, otherwise: &str) -> RecordingError {
        let why = self.said().unwrap_or_else(|| otherwise.to_owned());
        let why = format!("{why} (after {} pictures)", self.read);
        RecordingError::Video { path: self.path.clone(), program: "ffmpeg", why }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_picture_is_in_its_line() {
        let line = "[Parsed_showinfo_0 @ 0x5] [info] n:   1 pts:    512 pts_time:0.04    duration: 512 fmt:yuv420p";
        assert_eq!(time_of(line), Some(0.04));
        assert_eq!(time_of("[Parsed_showinfo_0 @ 0x5] [info] config in time_base: 1/12800, frame_rate: 25/1"), None);
    }

    #[test]
    fn videos_are_known_by_their_names() {
        assert!(is_one(Path::new("a/b.MP4")) && !is_one(Path::new("mp4")) && !is_one(Path::new("a.mcap")));
    }
}
