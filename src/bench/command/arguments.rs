//! Command-line options of `latency_bench`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Parser;
use peregrine_pipeline::DeviceChoice;
use peregrine_recording::LevelOptions;
use peregrine_student::Precision;

use crate::peers::PeerChoice;
use crate::record::BenchLayer;
use crate::stall::Fault;
use crate::stress::Stress;
use crate::timetable::FrameSchedule;

/// The command-line options.
#[derive(Parser, Debug, Clone)]
#[command(name = "latency_bench", version, about = ABOUT, after_help = EXAMPLES)]
pub struct Arguments {
    /// Built-in profile or .toml file: frame rate, deadline, allowed misses.
    #[arg(long, value_name = "NAME|FILE", default_value = "car_30hz", help_heading = "Requirements")]
    pub profile: String,

    /// List the built-in profiles and exit.
    #[arg(long, help_heading = "Requirements")]
    pub list_profiles: bool,

    /// Number of frames instead of the profile's; auto: the fewest that can prove the profile
    /// without a miss; a bag or video: the images of it, as --images, and as many as it has.
    #[arg(long, value_name = "N|auto|BAG", help_heading = "Requirements")]
    pub frames: Option<FrameCount>,

    /// Arrival pattern of the frames: fixed, jitter:MS or jitter:MS:SEED, burst:FRAMES,
    /// trace:FILE or trace:FILE:UNIT (timestamps in s, ms, us or ns, told from their distances
    /// without the unit; or a JSON result), or recorded (as in the bag or video of --images). Layer node: once for
    /// each camera, or once for all.
    #[arg(long, value_name = "SCHEDULE", default_value = "fixed", help_heading = "Requirements")]
    pub schedule: Vec<FrameSchedule>,

    /// Find the highest frame rate at which the profile is met, by bisection.
    #[arg(long, help_heading = "Requirements", conflicts_with = "closed_loop")]
    pub max_rate: bool,

    /// Process frames back to back: measures throughput, without a verdict.
    #[arg(long, help_heading = "Requirements")]
    pub closed_loop: bool,

    /// What is measured: engine (the network alone), pipeline (from image to boxes, in this
    /// process) or node (the whole ROS 2 node, over the middleware).
    #[arg(long, value_enum, default_value = "pipeline", help_heading = "Subject")]
    pub layer: BenchLayer,

    /// Number of cameras, each with its own pipeline; in layer node, all of one node. Default: as many as are named by
    /// --schedule, --topic or --image-topic, else 1.
    #[arg(long, value_name = "N", help_heading = "Subject", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub cameras: Option<u16>,

    /// Student package (manifest.json and weights) instead of the built-in one.
    #[arg(long, value_name = "DIR", help_heading = "Subject")]
    pub model: Option<PathBuf>,

    /// Device of the network: auto (a GPU if one can be used, else the CPU), cpu, cuda, or cuda:N for GPU N, from 0.
    #[arg(long, default_value = "auto", help_heading = "Subject")]
    pub device: DeviceChoice,

    /// Arithmetic of the network: f32, int8 (the package in the student's folder int8), or auto, as the node chooses
    /// it: int8 on a CPU where it is the faster, if it is there. With --peer, auto is f32, which the peer computes.
    #[arg(long, default_value = "auto", help_heading = "Subject")]
    pub precision: Precision,

    /// Threads of the network; 0: one for each CPU available to the process.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Subject")]
    pub threads: usize,

    /// Pin each of the network's threads to its own CPU, except the thread that calls it.
    #[arg(long, help_heading = "Subject")]
    pub pin_threads: bool,

    /// Network input in pixels, multiples of 32; default: the student's.
    #[arg(long, value_name = "WxH", value_parser = parse_size, help_heading = "Subject")]
    pub input_size: Option<(usize, usize)>,

    /// Do without the segmentation head.
    #[arg(long, help_heading = "Subject")]
    pub no_segmentation: bool,

    /// Measure tracking as well. The node always tracks, unless its parameters disable it.
    #[arg(long, help_heading = "Subject")]
    pub track: bool,

    /// Folder of .jpg or .png images to send instead of the sample frames, or a ROS 2 bag, an MCAP
    /// file or a video.
    #[arg(long, value_name = "DIR|BAG", help_heading = "Subject")]
    pub images: Option<PathBuf>,

    /// The topic of a bag's images; needed where it has several of images. Layer node: once for each camera, or once
    /// for all.
    #[arg(long, value_name = "TOPIC", help_heading = "Subject")]
    pub topic: Vec<String>,

    #[command(flatten, next_help_heading = "Subject")]
    pub levels: LevelOptions,

    /// Scale and crop the images to this size in pixels.
    #[arg(long, value_name = "WxH", value_parser = parse_size, help_heading = "Subject")]
    pub image_size: Option<(usize, usize)>,

    /// The perception_node to start; default: the one beside this program.
    #[arg(long, value_name = "FILE", help_heading = "Layer node")]
    pub node: Option<PathBuf>,

    /// Measure a node that is running already, this project's or any other that publishes
    /// vision_msgs/Detection2DArray, instead of starting one. It must copy the image's header.stamp.
    #[arg(long, help_heading = "Layer node", conflicts_with = "node")]
    pub attach: bool,

    /// Measure the node that this command line starts, such as 'ros2 run my_package my_node --ros-args -r in:=image':
    /// any that publishes vision_msgs/Detection2DArray with the image's header.stamp.
    #[arg(long, value_name = "LINE", help_heading = "Layer node", conflicts_with_all = ["node", "attach", "peer"])]
    pub command: Option<String>,

    /// With --attach or --command: the topic on which the node takes images [default: image]. Once for each camera.
    #[arg(long, value_name = "TOPIC", help_heading = "Layer node")]
    pub image_topic: Vec<String>,

    /// With --attach or --command: the topic of its detections [default: detections]. Once for each camera, or once
    /// for all.
    #[arg(long, value_name = "TOPIC", help_heading = "Layer node")]
    pub detections_topic: Vec<String>,

    /// Measure the network alone beside another engine, with as many threads and the same input size, frame by frame
    /// in turn: onnxruntime:FILE.onnx or openvino:FILE (.onnx or .xml), in the Python of PEREGRINE_PYTHON or python3.
    /// --frames is then the number of rounds (300). Repeatable. With --layer node: a Python, which runs a reference node
    /// (rclpy, onnxruntime and numpy: bench/peers/node.py) in alternating blocks on the same images.
    #[arg(long, value_name = "ENGINE:FILE|PYTHON", help_heading = "Subject", conflicts_with = "attach")]
    pub peer: Vec<PeerChoice>,

    /// Run at this SCHED_FIFO priority, 1 to 99, with all memory locked.
    #[arg(long, value_name = "PRIORITY", help_heading = "Conditions",
          value_parser = clap::value_parser!(i32).range(1..=99))]
    pub realtime: Option<i32>,

    /// Background load during the run: cpu, memory or disk, with :THREADS. Repeatable.
    #[arg(long, value_name = "KIND[:THREADS]", help_heading = "Conditions")]
    pub stress: Vec<Stress>,

    /// Inject a fault, to test the verdict: a pause in one frame or every FRAMES frames, a drift, a
    /// stuck worker, or a silent camera (dropped@FRAME). STAGE is preprocess, inference (the
    /// default) or decode. Repeatable.
    #[arg(
        long,
        visible_alias = "inject-stall",
        help_heading = "Conditions",
        value_name = "MS@FRAME|MS/FRAMES|drift:MS/FRAMES|stuck@FRAME[:STAGE]"
    )]
    pub inject: Vec<Fault>,

    /// Check the machine instead: what adds latency, why it matters and the command that mends it. With --images and a
    /// bag, also the camera's clock by the images' stamps.
    #[arg(long, help_heading = "Conditions")]
    pub doctor: bool,

    /// Show the engine's plan instead: each step, its time and its fraction of this machine's peak
    /// (--json: as JSON). With --device cuda, the GPU's plan; without a GPU, that for Orin.
    #[arg(long, help_heading = "Output")]
    pub explain_plan: bool,

    /// Show the time of each stage of the N slowest frames.
    #[arg(long, value_name = "N", num_args = 0..=1, default_value_t = 0, default_missing_value = "5",
          hide_default_value = true, help_heading = "Output")]
    pub explain: usize,

    /// Write the report as JSON (bench/SCHEMA.md), also with --max-rate, --compare, --pool and --doctor;
    /// - for standard output, instead of the text.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,

    /// Write the report as a self-contained web page.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,

    /// Write the latency percentiles in HdrHistogram's text format.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hgrm: Option<PathBuf>,

    /// Write the latency and each stage, second by second, as an HdrHistogram interval log.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hlog: Option<PathBuf>,

    /// Layer node: write the table into this Markdown file, replacing the last one for images of
    /// the same size.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub results: Option<PathBuf>,

    /// Compare two JSON results instead: is the second slower?
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"], help_heading = "Output")]
    pub compare: Option<Vec<PathBuf>>,

    /// Pool JSON results of several runs of one set-up instead, into one claim about its misses.
    #[arg(long, num_args = 2.., value_name = "RUN.json", help_heading = "Output")]
    pub pool: Option<Vec<PathBuf>>,

    /// Allowed slowdown for --compare.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = parse_percent,
          help_heading = "Output")]
    pub allow: f64,
}

impl Arguments {
    /// Whether JSON goes to standard output.
    pub fn json_to_stdout(&self) -> bool {
        self.json.as_ref().is_some_and(|path| path.as_os_str() == "-")
    }

    /// Where the images come from, if not from the sample frames.
    pub fn source(&self) -> Option<&Path> {
        match &self.frames {
            Some(FrameCount::Of(path)) => Some(path),
            _ => self.images.as_deref(),
        }
    }

    /// The number of cameras: as given, or as many as are named.
    pub fn camera_count(&self) -> usize {
        let named = self.schedule.len().max(self.topic.len()).max(self.image_topic.len()).max(1);
        self.cameras.map_or(named, usize::from)
    }

    /// Whether a node is measured that was not set up here: it runs already, or a command line starts it.
    pub fn is_foreign_node(&self) -> bool {
        self.attach || self.command.is_some()
    }

    /// Whether other engines are measured beside ours.
    pub fn has_peer_engines(&self) -> bool {
        self.peer.iter().any(|peer| matches!(peer, PeerChoice::Engine(..)))
    }

    /// Every output file.
    pub fn outputs(&self) -> impl Iterator<Item = &PathBuf> {
        self.json.iter().chain(&self.html).chain(&self.hgrm).chain(&self.hlog).chain(&self.results)
    }
}

/// Number of measured frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameCount {
    /// The fewest that can prove the profile without a miss.
    Auto,
    Number(usize),
    /// As many as this recording has.
    Of(PathBuf),
}

impl FromStr for FrameCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            _ if text.parse::<f64>().is_err() && (text.contains(['.', '/']) || Path::new(text).exists()) => {
                Ok(Self::Of(text.into()))
            }
            _ => text
                .parse()
                .map(Self::Number)
                .map_err(|_| format!("invalid number of frames {text:?}: give a number, auto, or a bag that is there")),
        }
    }
}

const ABOUT: &str = "\
Measures whether a student meets a deadline on this machine, with a statistical verdict.

Frames are sent on a camera's schedule, whether or not the previous one is done, and the newest
frame wins, as in the ROS node. Latency is measured from the scheduled instant of a frame, so that
a stall shows in every frame that it delays (no coordinated omission). A frame without a result in
time is a miss, whether it was late, superseded, dropped or lost.";

const EXAMPLES: &str = "\
Examples:
  latency_bench --doctor                          is this machine fit for measurements?
  latency_bench                                   a car camera: 30 Hz, deadline 33.3 ms
  latency_bench --profile drone_60hz --threads 1  a drone camera, on a single thread
  latency_bench --profile my.toml --explain       a profile of your own, and the slowest frames
  latency_bench --profile ci --max-rate           the highest frame rate that meets the profile
  latency_bench --peer onnxruntime:model.onnx --threads 1
                                                  the network beside ONNX Runtime's
  latency_bench --layer node --explain            the ROS 2 node, over the middleware
  latency_bench --layer node --cameras 4 --schedule jitter:8
                                                  four cameras on one node
  latency_bench --layer node --command 'ros2 run my_package my_node'
                                                  your own node, from image to detections
  latency_bench --json a.json; latency_bench --json b.json; latency_bench --compare a.json b.json
                                                  is the second run slower?
  latency_bench --pool monday.json tuesday.json wednesday.json
                                                  what do the runs prove together?
  latency_bench --profile ci --inject 900@50 --inject 900@100
                                                  see the verdict fail and name the stage

Exit codes:
  0  met: the allowed miss ratio is proven (for --closed-loop: done; for --doctor: fit)
  1  missed: more misses, or more in a row, than the profile allows, or a drift of the latency or a
     growth of the memory beyond it
  2  not provable: too few frames, interrupted, or the machine was unfit (busy with other programs,
     throttled, falling clock)
  3  invalid option, profile, model, image, device, permission or output file";

fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let form = || format!("invalid size {text:?}: give WIDTHxHEIGHT, such as 320x256");
    let (width, height) = text.split_once('x').ok_or_else(form)?;
    match (width.parse(), height.parse()) {
        (Ok(width @ 1..=8192), Ok(height @ 1..=8192)) => Ok((width, height)),
        _ => Err(form()),
    }
}

/// As a fraction: 5% is 0.05.
fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(percent) if (0.0..=1000.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("invalid percentage {text:?}: give one such as 5%")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn frames_are_a_number_or_a_recording() {
        assert_eq!("12".parse(), Ok(FrameCount::Number(12)));
        assert_eq!("drive.mcap".parse(), Ok(FrameCount::Of("drive.mcap".into())));
        assert!("1.5".parse::<FrameCount>().is_err() && "many".parse::<FrameCount>().is_err());
    }

    #[test]
    fn percentages_and_sizes_are_parsed() {
        assert_eq!((parse_percent("5%"), parse_percent("2.5 %")), (Ok(0.05), Ok(0.025)));
        assert!(parse_percent("-1%").is_err() && parse_percent("much").is_err());
        assert_eq!(parse_size("640x480"), Ok((640, 480)));
        assert!(parse_size("640x0").is_err() && parse_size("640").is_err());
    }
}
