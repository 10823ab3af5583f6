//! The program `latency_bench`, from its command line to its exit code.
//!
//! - [`arguments`]: the options, and in [`combination`] which go together. [`setup`]: from options to a
//!   measurement, with all errors before it runs.
//! - [`in_process`]: layers engine and pipeline. [`over_ros`]: layer node. [`max_rate`]: search for
//!   the highest rate.
//! - [`plan`]: the engine's plan. [`live`]: progress bar. [`output`]: report files. [`logging`]:
//!   messages.

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use clap::Parser;

use super::doctor::{camera_clock, Examination};
use super::record::BenchLayer;
use super::verdict::{Verdict, USAGE_ERROR};
use super::{compare, peers, pool, recorded, DeadlineProfile};

pub mod arguments;
pub mod combination;
pub mod in_process;
pub mod live;
pub mod logging;
pub mod max_rate;
pub mod output;
pub mod over_ros;
pub mod plan;
pub mod setup;

use arguments::Arguments;
use output::print;

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE_ERROR } else { 0 });
        }
    };
    logging::init();
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!("{}", sentence(&error));
            ExitCode::from(USAGE_ERROR)
        }
    }
}

/// An error with its causes, without those that its text contains already.
fn sentence(error: &anyhow::Error) -> String {
    let append = |text: String, cause: String| {
        if text.ends_with(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    };
    error.chain().map(ToString::to_string).reduce(append).unwrap_or_default()
}

fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    if arguments.list_profiles {
        for name in DeadlineProfile::built_in_names() {
            print(&format!("{name:16} {}\n", DeadlineProfile::load(name)?.description));
        }
        return Ok(0);
    }
    if arguments.doctor {
        return examine(arguments);
    }
    if let Some([first, second]) = arguments.compare.as_deref() {
        let comparison = compare::compare(first, second, arguments.allow)?;
        let json = format!("{}\n", serde_json::to_string_pretty(&comparison)?);
        output::text_and_json(arguments, &comparison.text(), &json)?;
        return Ok(comparison.verdict.exit_code());
    }
    if let Some(paths) = &arguments.pool {
        let pool = pool::pool(paths)?;
        let json = format!("{}\n", serde_json::to_string_pretty(&pool)?);
        output::text_and_json(arguments, &pool.text(), &json)?;
        return Ok(pool.verdict.exit_code());
    }
    let setup = setup::Setup::new(arguments)?;
    if arguments.explain_plan {
        return plan::explain(&setup);
    }
    match arguments.layer {
        _ if arguments.has_peer_engines() => peers::measure::run(&setup),
        _ if arguments.max_rate => max_rate::run(&setup),
        BenchLayer::Engine | BenchLayer::Pipeline => in_process::run(&setup),
        BenchLayer::Node | BenchLayer::ForeignNode => over_ros::run(&setup),
    }
}

/// Checks the machine, and the stamps of a recording if one is given. Returns the exit code.
fn examine(arguments: &Arguments) -> anyhow::Result<u8> {
    let stamps = arguments
        .source()
        .map(|path| recorded::stamps(path, arguments.topic.first().map(String::as_str)))
        .transpose()?;
    let found = Examination::of_this_machine().with(stamps.map(|stamps| camera_clock::check(&stamps)));
    output::text_and_json(arguments, &found.text(), &found.json())?;
    let verdict = if found.fit { Verdict::Met } else { Verdict::NotProvable };
    Ok(verdict.exit_code())
}

/// A flag that Ctrl-C sets, which ends a run with a partial report. A second Ctrl-C ends the
/// program.
fn stop_on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order, so that only the second signal finds the flag set.
        signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(Verdict::NotProvable.exit_code()),
            Arc::clone(&stop),
        )?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
