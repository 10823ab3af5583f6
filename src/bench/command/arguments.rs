//! The options of `latency_bench`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use peregrine_pipeline::DeviceChoice;

use crate::record::Layer;
use crate::stall::Fault;
use crate::stress::Stress;
use crate::timetable::Schedule;

/// What the command line says.
#[derive(Parser, Debug, Clone)]
#[command(name = "latency_bench", version, about = ABOUT, after_help = EXAMPLES)]
pub struct Arguments {
    /// A built-in profile or a .toml file: rate, deadline, allowed misses.
    #[arg(long, value_name = "NAME|FILE", default_value = "car_30hz", help_heading = "What is asked")]
    pub profile: String,

    /// List the built-in profiles and exit.
    #[arg(long, help_heading = "What is asked")]
    pub list_profiles: bool,

    /// Measure so many frames instead of the profile's number; auto: as many as its claim needs without a miss.
    #[arg(long, value_name = "N|auto", help_heading = "What is asked")]
    pub frames: Option<FrameCount>,

    /// How frames follow each other: fixed, jitter:MS or jitter:MS:SEED, burst:FRAMES, or trace:FILE (stamps in seconds,
    /// or a JSON result).
    #[arg(long, value_name = "SCHEDULE", default_value = "fixed", help_heading = "What is asked")]
    pub schedule: Schedule,

    /// Find the highest rate at which the profile still holds, by bisection.
    #[arg(long, help_heading = "What is asked", conflicts_with = "closed_loop")]
    pub max_rate: bool,

    /// Process frames back to back: the throughput, and no verdict.
    #[arg(long, help_heading = "What is asked")]
    pub closed_loop: bool,

    /// The network alone, the pipeline in this process, or the whole ROS 2 node over the middleware.
    #[arg(long, value_enum, default_value = "pipeline", help_heading = "What is measured")]
    pub layer: Layer,

    /// So many cameras, each with a pipeline of its own.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "What is measured",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub cameras: u16,

    /// A student package (manifest.json and weights) instead of the one built in.
    #[arg(long, value_name = "DIR", help_heading = "What is measured")]
    pub model: Option<PathBuf>,

    /// Where the network runs: auto (a GPU if there is one that can be used, else the CPU), cpu or cuda.
    #[arg(long, default_value = "auto", help_heading = "What is measured")]
    pub device: DeviceChoice,

    /// Threads of the network; 0 means one for each CPU that the process may use.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "What is measured")]
    pub threads: usize,

    /// Keep each of the network's threads on a CPU of its own, but for the one that frames arrive on.
    #[arg(long, help_heading = "What is measured")]
    pub pin_threads: bool,

    /// Input of the network in pixels, multiples of 32; the student's own if not given.
    #[arg(long, value_name = "WxH", value_parser = parse_size, help_heading = "What is measured")]
    pub input_size: Option<(usize, usize)>,

    /// Leave the segmentation head out.
    #[arg(long, help_heading = "What is measured")]
    pub no_segmentation: bool,

    /// Follow objects from frame to frame as well; the node always does, unless its parameters say otherwise.
    #[arg(long, help_heading = "What is measured")]
    pub track: bool,

    /// A folder of .jpg or .png images to send instead of the sample frames.
    #[arg(long, value_name = "DIR", help_heading = "What is measured")]
    pub images: Option<PathBuf>,

    /// Scale and cut the images to this size in pixels.
    #[arg(long, value_name = "WxH", value_parser = parse_size, help_heading = "What is measured")]
    pub image_size: Option<(usize, usize)>,

    /// Layer node: the perception_node to start; the one beside this program if not given.
    #[arg(long, value_name = "FILE", help_heading = "The node over ROS 2")]
    pub node: Option<PathBuf>,

    /// Layer node: start none, and measure the one that runs already on the topics image, detections and timing.
    #[arg(long, help_heading = "The node over ROS 2", conflicts_with = "node")]
    pub attach: bool,

    /// Layer node: beside it, in turn and on the same images, a node written with rclpy, onnxruntime and numpy
    /// (bench/peers/node.py), run by this Python.
    #[arg(long, value_name = "PYTHON", help_heading = "The node over ROS 2", conflicts_with = "attach")]
    pub peer: Option<PathBuf>,

    /// Run at this priority of SCHED_FIFO, 1 to 99, with all memory locked.
    #[arg(long, value_name = "PRIORITY", help_heading = "Conditions",
          value_parser = clap::value_parser!(i32).range(1..=99))]
    pub realtime: Option<i32>,

    /// Put load on the machine meanwhile: cpu, memory or disk, with :THREADS. Repeatable.
    #[arg(long, value_name = "KIND[:THREADS]", help_heading = "Conditions")]
    pub stress: Vec<Stress>,

    /// Self-test of the gate: a pause in one frame, in every so many, a drift, a worker that gets stuck, or a camera that
    /// falls silent (dropped@FRAME). STAGE is preprocess, inference (the default) or decode. Repeatable.
    #[arg(
        long,
        visible_alias = "inject-stall",
        help_heading = "Conditions",
        value_name = "MS@FRAME|MS/FRAMES|drift:MS/FRAMES|stuck@FRAME[:STAGE]"
    )]
    pub inject: Vec<Fault>,

    /// Examine the machine instead, with a remedy for whatever makes latency worse.
    #[arg(long, help_heading = "Conditions")]
    pub doctor: bool,

    /// Show what the CPU engine runs instead: each step, its time and its share of this machine's peak (--json: as JSON);
    /// with --device cuda, what the GPU would run, for Orin where there is none.
    #[arg(long, help_heading = "What is written")]
    pub explain_plan: bool,

    /// Tell where the time of the N slowest frames went.
    #[arg(long, value_name = "N", num_args = 0..=1, default_value_t = 0, default_missing_value = "5",
          hide_default_value = true, help_heading = "What is written")]
    pub explain: usize,

    /// Write the report as JSON (bench/SCHEMA.md), also that of --max-rate and --compare; - is standard output, in place of
    /// the text.
    #[arg(long, value_name = "FILE", help_heading = "What is written")]
    pub json: Option<PathBuf>,

    /// Write the report as a self-contained web page.
    #[arg(long, value_name = "FILE", help_heading = "What is written")]
    pub html: Option<PathBuf>,

    /// Write the percentiles of the latency in HdrHistogram's text form.
    #[arg(long, value_name = "FILE", help_heading = "What is written")]
    pub hgrm: Option<PathBuf>,

    /// Write the latency and each stage, second by second, as HdrHistogram's interval log.
    #[arg(long, value_name = "FILE", help_heading = "What is written")]
    pub hlog: Option<PathBuf>,

    /// Layer node: write the table into this Markdown file, in place of the last one for images of the same size.
    #[arg(long, value_name = "FILE", help_heading = "What is written")]
    pub results: Option<PathBuf>,

    /// Compare two JSON results instead: how much slower is the second?
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"], help_heading = "What is written")]
    pub compare: Option<Vec<PathBuf>>,

    /// With --compare, how much slower the second may be.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = parse_percent,
          help_heading = "What is written")]
    pub allow: f64,
}

impl Arguments {
    /// Whether JSON is what standard output is to hold.
    pub fn json_to_stdout(&self) -> bool {
        self.json.as_ref().is_some_and(|path| path.as_os_str() == "-")
    }

    /// Every file that is to be written.
    pub fn outputs(&self) -> impl Iterator<Item = &PathBuf> {
        self.json.iter().chain(&self.html).chain(&self.hgrm).chain(&self.hlog).chain(&self.results)
    }
}

/// How many frames are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameCount {
    /// As many as the profile's claim needs without a miss.
    Auto,
    Number(usize),
}

impl FromStr for FrameCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Number).map_err(|_| format!("{text:?} is neither a number of frames nor auto")),
        }
    }
}

const ABOUT: &str = "\
Says whether the student keeps a deadline on this machine, and how sure that is.

Frames are sent on a camera's schedule, whether or not the last one is done, and the
newest frame wins, as in the ROS node. Latency counts from the instant at which a frame was
due, so that a stall shows in every frame that it delays. A frame without a result in time
is a miss, whatever became of it.";

const EXAMPLES: &str = "\
Examples:
  latency_bench --doctor                          is this machine fit to be measured?
  latency_bench                                   a car's camera: 30 Hz, 33.3 ms
  latency_bench --profile drone_60hz --threads 1  a drone's, with a single thread
  latency_bench --profile my.toml --explain       a profile of your own, and the slowest frames
  latency_bench --profile ci --max-rate           the highest rate that it can keep
  latency_bench --layer node --explain            the ROS 2 node, over the middleware
  latency_bench --json a.json; latency_bench --json b.json; latency_bench --compare a.json b.json
                                                  did something become slower?
  latency_bench --profile ci --inject 900@50 --inject 900@100
                                                  see the gate turn red, and name the stage

Exit codes:
  0  met: the allowed miss ratio is shown to be kept (and for --closed-loop, --doctor: done, fit)
  1  missed: more frames, or more in a row, missed the deadline than the profile allows, or
     latency drifted or memory grew beyond it
  2  not provable: too few frames for the claim, interrupted, or the machine was unfit
     (busy with other things, slowed down by heat or a falling clock)
  3  an option, profile, model, image, device, permission or output file cannot be used";

fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let form = || format!("{text:?} is not a size such as 320x256");
    let (width, height) = text.split_once('x').ok_or_else(form)?;
    match (width.parse(), height.parse()) {
        (Ok(width @ 1..=8192), Ok(height @ 1..=8192)) => Ok((width, height)),
        _ => Err(form()),
    }
}

/// As a share of one.
fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(percent) if (0.0..=1000.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("{text:?} is not a percentage such as 5%")),
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
    fn shares_and_sizes_are_read_as_documented() {
        assert_eq!((parse_percent("5%"), parse_percent("2.5 %")), (Ok(0.05), Ok(0.025)));
        assert!(parse_percent("-1%").is_err() && parse_percent("much").is_err());
        assert_eq!(parse_size("640x480"), Ok((640, 480)));
        assert!(parse_size("640x0").is_err() && parse_size("640").is_err());
    }
}
