//! The node's log, written with `tracing`: to the terminal as rclcpp does, and to `/rosout`.
//!
//! - [`console`]: one line a record, written by a thread of its own. [`directory`]: the folder of ROS's own log files. [`rosout`]: a bounded queue of records, and the publisher that
//!   another thread empties it to. The frame thread never logs.

pub mod console;
pub mod directory;
pub mod rosout;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use console::Console;
pub use rosout::{LogQueue, RosoutPublisher};

/// Starts the log of the process under the logger's `name`, from `level` upwards. Returns the queue
/// of records for `/rosout`, and the console, to be kept until the process ends.
///
/// # Panics
/// When called twice in a process.
pub fn start(name: &str, level: LevelFilter) -> (LogQueue, Console) {
    let (lines, console) = console::layer(name);
    let (layer, queue) = rosout::queue(console.dropped.clone());
    tracing_subscriber::registry().with(level).with(lines).with(layer).init();
    (queue, console)
}

/// The level that `--ros-args --log-level LEVEL` or `--log-level NAME:=LEVEL` asks for; the last
/// one that is for the logger `name` wins. ROS itself refuses a level that does not exist.
pub fn level(arguments: impl IntoIterator<Item = String>, name: &str) -> LevelFilter {
    let mut level = LevelFilter::INFO;
    let (mut ros, mut expected) = (false, false);
    for argument in arguments {
        match argument.as_str() {
            "--ros-args" => ros = true,
            "--" => ros = false,
            "--log-level" if ros => {
                expected = true;
                continue;
            }
            value if expected => {
                let (logger, value) = value.rsplit_once(":=").unwrap_or((name, value));
                if logger == name {
                    level = named(value).unwrap_or(level);
                }
            }
            _ => {}
        }
        expected = false;
    }
    level
}

/// A level of `rcutils`, in any case. `FATAL` is not used by this node.
fn named(level: &str) -> Option<LevelFilter> {
    Some(match level.to_ascii_lowercase().as_str() {
        "debug" => LevelFilter::DEBUG,
        "info" | "unset" => LevelFilter::INFO,
        "warn" => LevelFilter::WARN,
        "error" => LevelFilter::ERROR,
        "fatal" => LevelFilter::OFF,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_level_is_read_from_the_ros_arguments() {
        let level = |line: &str| level(line.split_whitespace().map(String::from), "car.eye");
        assert_eq!(level(""), LevelFilter::INFO);
        assert_eq!(level("--ros-args --log-level DEBUG -p a:=b"), LevelFilter::DEBUG);
        assert_eq!(level("--ros-args --log-level warn --log-level other:=debug"), LevelFilter::WARN);
        assert_eq!(level("--ros-args --log-level warn --log-level car.eye:=error"), LevelFilter::ERROR);
        assert_eq!(level("--log-level debug"), LevelFilter::INFO, "not a ROS argument");
    }
}
