//! The perception node: see `perception_node --help`, and [`peregrine_ros`] for how it works.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use peregrine_ros::command_line::{parse, Command};
use peregrine_ros::run::run;

fn main() -> ExitCode {
    let outcome = match arguments().and_then(parse) {
        Ok(Command::Print(text)) => {
            print(&text);
            return ExitCode::SUCCESS;
        }
        Ok(Command::Run) => run().map_err(|error| error.to_string()),
        Err(sentence) => Err(sentence),
    };
    match outcome {
        Ok(counts) => {
            print(&format!("perception_node: {counts}\n"));
            ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("perception_node: {sentence}");
            // Immediately: if a thread is stuck in the middleware, the middleware's own clean-up at
            // exit would crash.
            signal_hook::low_level::exit(1)
        }
    }
}

/// The arguments after the program's name, which ROS reads as UTF-8.
fn arguments() -> Result<Vec<String>, String> {
    let text = |argument: OsString| argument.into_string().map_err(|a| format!("the argument {a:?} is not UTF-8"));
    std::env::args_os().skip(1).map(text).collect()
}

/// Prints, and ignores a reader that has gone, as in `perception_node --help | head -1`.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
