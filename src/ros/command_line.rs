//! The command line of `perception_node` besides ROS's own arguments.

use peregrine_pipeline::{explain_plan, PipelineOptions};
use peregrine_student::Student;

use super::arguments::unknown;
use super::parameters;
use super::spelling::nearest;

/// The arguments of the program itself.
const OWN: [&str; 7] = ["--help", "-h", "--version", "-V", "--list-parameters", "--describe", "--explain-plan"];

/// Compute capability (times 10) of the GPU that a CUDA plan is made for without one: Jetson Orin.
const ORIN: u32 = 87;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the node.
    Run,
    /// Print a text and exit.
    Print(String),
}

/// Parses the arguments after the program's name. Those between `--ros-args` and `--` are ROS's.
///
/// # Errors
/// A sentence about what is not understood, the program's own or ROS's.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut own = Vec::new();
    let mut ros = false;
    let arguments: Vec<String> = arguments.into_iter().collect();
    for argument in &arguments {
        match argument.as_str() {
            "--ros-args" => ros = true,
            "--" => ros = false,
            _ if ros => {}
            argument => own.push(argument),
        }
    }
    match own[..] {
        [] => unknown::check(arguments, &OWN).map(|()| Command::Run),
        ["--help" | "-h"] => Ok(Command::Print(help())),
        ["--version" | "-V"] => Ok(Command::Print(format!("perception_node {}\n", env!("CARGO_PKG_VERSION")))),
        ["--list-parameters"] => Ok(Command::Print(parameters::listing())),
        ["--describe", "markdown"] => Ok(Command::Print(parameters::markdown())),
        ["--explain-plan"] => explain("cpu"),
        ["--explain-plan", device] => explain(device),
        ["--describe", "yaml"] => Ok(Command::Print(parameters::yaml())),
        ["--describe", ..] => Err("--describe prints the parameters as markdown or as yaml: give one of them".into()),
        ["--list-parameters" | "--help" | "-h" | "--version" | "-V" | "--explain-plan", second, ..] => {
            Err(format!("unknown argument '{second}' after '{}'; see --help", own[0]))
        }
        [first, ..] => Err(format!("unknown argument '{first}'; {}", remedy(first))),
    }
}

/// What was probably meant by an unknown argument.
fn remedy(argument: &str) -> String {
    if let Some((name, value)) = argument.split_once(":=") {
        return format!("write --ros-args {}", unknown::rule(name, value));
    }
    let flag = argument.split_once('=').map_or(argument, |(flag, _)| flag);
    match nearest(flag, OWN.into_iter().chain(["--ros-args"]).chain(unknown::FLAGS)) {
        Some(flag) if unknown::FLAGS.contains(&flag) => format!("{flag} is for ROS: write --ros-args {flag}"),
        Some(flag) => format!("did you mean {flag}? See --help"),
        None => "see --help, and give parameters as --ros-args -p NAME:=VALUE".into(),
    }
}

/// The execution plan of the embedded student on a device.
fn explain(device: &str) -> Result<Command, String> {
    let options = PipelineOptions::default();
    let plan = explain_plan(&Student::embedded(), &options, device.parse()?, ORIN);
    Ok(Command::Print(plan.map_err(|e| e.to_string())?))
}

fn help() -> String {
    format!(
        "Real-time detection and segmentation on ROS 2 images.

Usage: perception_node [--ros-args [-p NAME:=VALUE]... [-r FROM:=TO]... [--params-file FILE]]
       perception_node --list-parameters | --describe markdown|yaml | --explain-plan [cpu|cuda] | --version | --help

Subscribes  image                    sensor_msgs/Image; image/compressed sensor_msgs/CompressedImage;
                                     image/foxglove foxglove_msgs/CompressedVideo
Publishes   detections               vision_msgs/Detection2DArray, boxes in pixels of the image, with its header
            timing                   peregrine_msgs/FrameTiming, latency and verdict of each frame
            road_mask, segmentation  sensor_msgs/Image mono8 (road: 255; class indices)
            tracks                   peregrine_msgs/Track2DArray, objects with ID, velocity and covariance
            objects                  vision_msgs/Detection3DArray, detections on the ground (see mounting)
            drivable_ground          nav_msgs/OccupancyGrid, the road on the ground ahead (see mounting)
            markers                  visualization_msgs/MarkerArray, the objects on the ground for RViz and Foxglove
            label_info               vision_msgs/LabelInfo, class names of segmentation (latched)
            detection_label_info     vision_msgs/LabelInfo, class names of detections (latched)
            debug_image              sensor_msgs/Image, the annotated image; debug_image/compressed as JPEG
            /diagnostics             diagnostic_msgs/DiagnosticArray, at 1 Hz and on change
            /rosout                  rcl_interfaces/Log, the log
Serves      ~/change_state and the other lifecycle services, and the six parameter services

The node configures and activates itself unless autostart is false. With -p cameras:=front,rear the topics of each
camera are below its name: front/image, front/detections and so on.

Parameters (range; default):
{}
Example: perception_node --ros-args -r image:=/camera/image_raw -p score_threshold:=0.5
",
        parameters::listing()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn ros_arguments_are_left_to_ros() {
        assert_eq!(parsed("--ros-args -p score_threshold:=0.5 -r image:=/camera"), Ok(Command::Run));
    }

    #[test]
    fn arguments_after_the_end_of_the_ros_ones_are_read_again() {
        assert!(matches!(parsed("--ros-args -r a:=b -- --version"), Ok(Command::Print(_))));
    }

    #[test]
    fn a_parameter_without_ros_args_is_refused_with_the_remedy() {
        let sentence = parsed("score_threshold:=0.5").unwrap_err();
        assert!(sentence.contains("'score_threshold:=0.5'") && sentence.contains("--ros-args"), "{sentence}");
    }

    #[test]
    fn an_unknown_argument_of_either_kind_is_refused_with_its_remedy() {
        for (line, remedy) in [
            ("deadline_ms:=80", "write --ros-args -p deadline_ms:=80"),
            ("image:=/camera", "write --ros-args -r image:=/camera"),
            ("--params-file x.yaml", "write --ros-args --params-file"),
            ("-p threads:=1", "write --ros-args -p"),
            ("--list-parameter", "did you mean --list-parameters? See --help"),
            ("--ros-arg -p threads:=1", "did you mean --ros-args? See --help"),
            ("--version now", "unknown argument 'now' after '--version'; see --help"),
            ("x.yaml", "see --help, and give parameters as --ros-args -p NAME:=VALUE"),
            ("--ros-args threads:=1", "write -p threads:=1"),
        ] {
            let sentence = parsed(line).unwrap_err();
            assert!(sentence.ends_with(remedy), "{line}: {sentence}");
        }
    }

    #[test]
    fn help_names_every_parameter() {
        let Ok(Command::Print(text)) = parsed("--help") else { panic!("--help prints") };
        for d in parameters::DECLARATIONS {
            assert!(text.contains(d.name), "{}", d.name);
        }
    }
}
