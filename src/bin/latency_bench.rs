//! `latency_bench`: does the student keep a deadline on this machine, and how sure is that?

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use peregrine::bench::frames::Frames;
use peregrine::bench::machine::{CpuTime, Fingerprint, Load};
use peregrine::bench::report::{Context, Subject};
use peregrine::bench::stall::Stall;
use peregrine::bench::stats::frames_needed;
use peregrine::bench::verdict::{judge, USAGE_ERROR};
use peregrine::bench::worker::PipelineWork;
use peregrine::bench::{doctor, html, schedule, Profile, Report, Run, Verdict};
use peregrine::pipeline::{Ledger, PipelineOptions};
use peregrine::student::package::write_atomically;
use peregrine::student::Student;

#[derive(Parser)]
#[command(version, about = ABOUT, after_help = EXAMPLES)]
struct Arguments {
    /// A built-in profile or a .toml file: rate, deadline, allowed misses.
    #[arg(long, value_name = "NAME|FILE", default_value = "car_30hz")]
    profile: String,

    /// List the built-in profiles and exit.
    #[arg(long)]
    list_profiles: bool,

    /// Measure so many frames instead of the profile's number.
    #[arg(long, value_name = "N")]
    frames: Option<usize>,

    /// Process frames back to back: the throughput, and no verdict.
    #[arg(long)]
    closed_loop: bool,

    /// A student package (manifest.json and weights) instead of the one built in.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,

    /// A folder of .jpg or .png images to send instead of the sample frames.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,

    /// Threads of the network; 0 means one for each CPU that the process may use.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,

    /// Input of the network in pixels, multiples of 32; the student's own if not given.
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    input_size: Option<(usize, usize)>,

    /// Leave the segmentation head out.
    #[arg(long)]
    no_segmentation: bool,

    /// Tell where the time of the N slowest frames went.
    #[arg(long, value_name = "N", num_args = 0..=1, default_value_t = 0, default_missing_value = "5", hide_default_value = true)]
    explain: usize,

    /// Write the report as JSON; - is standard output, in place of the text.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the report as a self-contained web page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Self-test of the gate: pause in preprocess, inference (the default) or decode. Repeatable.
    #[arg(long, value_name = "MS@FRAME[:STAGE]")]
    inject_stall: Vec<Stall>,

    /// Examine the machine instead, with a remedy for whatever makes latency worse.
    #[arg(long)]
    doctor: bool,
}

const ABOUT: &str = "\
Says whether the student keeps a deadline on this machine, and how sure that is.

Frames are sent at a camera's fixed rate, whether or not the last one is done, and the
newest frame wins, as in the ROS node. Latency counts from the instant at which a frame was
due, so that a stall shows in every frame that it delays. A frame without a result in time
is a miss, whatever became of it.";

const EXAMPLES: &str = "\
Examples:
  latency_bench --doctor                          is this machine fit to be measured?
  latency_bench                                   a car's camera: 30 Hz, 33.3 ms
  latency_bench --profile drone_60hz --threads 1  a drone's, with a single thread
  latency_bench --profile my.toml --explain       a profile of your own, and the slowest frames
  latency_bench --profile ci --inject-stall 900@50 --inject-stall 900@100
                                                  see the gate turn red, and name the stage

Exit codes:
  0  met: the allowed miss ratio is shown to be kept (and for --closed-loop, --doctor: done, fit)
  1  missed: more frames, or more in a row, missed the deadline than the profile allows
  2  not provable: too few frames for the claim, or the machine was busy with other things
  3  an option, profile, model, image or output file cannot be used";

fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let form = || format!("{text:?} is not a size such as 320x256");
    let (width, height) = text.split_once('x').ok_or_else(form)?;
    Ok((width.parse().map_err(|_| form())?, height.parse().map_err(|_| form())?))
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE_ERROR } else { 0 });
        }
    };
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(USAGE_ERROR)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    if arguments.list_profiles {
        for name in Profile::built_in_names() {
            say(&format!("{name:16} {}\n", Profile::load(name)?.description));
        }
        return Ok(0);
    }
    if arguments.doctor {
        let checks = doctor::examine();
        say(&doctor::text(&checks));
        let verdict = if doctor::is_fit(&checks) { Verdict::Met } else { Verdict::NotProvable };
        return Ok(verdict.exit_code());
    }
    let (report, run) = measure(arguments)?;
    let to_stdout = arguments.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    say(&if to_stdout { report.json() } else { report.text() });
    if let (Some(path), false) = (&arguments.json, to_stdout) {
        write_atomically(path, report.json().as_bytes())?;
    }
    if let Some(path) = &arguments.html {
        write_atomically(path, html::page(&report, &run).as_bytes())?;
    }
    Ok(report.judgement.map_or(0, |judgement| judgement.verdict.exit_code()))
}

fn measure(arguments: &Arguments) -> anyhow::Result<(Report, Run)> {
    for path in arguments.json.iter().chain(&arguments.html) {
        require_folder(path)?;
    }
    let mut profile = Profile::load(&arguments.profile)?;
    profile.frames = arguments.frames.unwrap_or(profile.frames);
    profile.check("--frames")?;
    let student = match &arguments.model {
        Some(folder) => Student::load(folder)?,
        None => Student::embedded(),
    };
    let frames = match &arguments.images {
        Some(folder) => Frames::load(folder).context("--images")?,
        None => Frames::shipped_or_drawn(),
    };
    let options = PipelineOptions {
        segmentation: !arguments.no_segmentation,
        threads: match arguments.threads {
            0 => thread::available_parallelism().map_or(1, |n| n.get()),
            threads => threads,
        },
        input_size: arguments.input_size,
        ..PipelineOptions::default()
    };
    let mut work = PipelineWork::new(&student, options.clone(), &frames, arguments.inject_stall.clone())?;
    work.warm_up(profile.warmup_frames)?;
    if !arguments.closed_loop {
        announce(&profile);
    }
    let (run, load) = run_watched(&profile, arguments.closed_loop, &mut work);

    let stalls_injected = !arguments.inject_stall.is_empty();
    let judgement = (!arguments.closed_loop).then(|| judge(&run, &profile, load, stalls_injected));
    let input = &student.manifest.architecture.input;
    let (input_width, input_height) = options.input_size.unwrap_or((input.width, input.height));
    let subject = Subject {
        model: student.manifest.name.clone(),
        weights_sha256: student.manifest.weights.sha256.clone(),
        input_width,
        input_height,
        threads: options.threads,
        segmentation: options.segmentation,
        frames: frames.origin.clone(),
    };
    let context = Context {
        profile,
        open_loop: !arguments.closed_loop,
        machine: Fingerprint::read(),
        load,
        subject,
        injected_stalls: arguments.inject_stall.iter().map(Stall::to_string).collect(),
        worst: arguments.explain,
    };
    Ok((Report::new(&run, judgement, context), run))
}

/// Says beforehand that a measurement could not prove anything, and how long it takes where no progress bar tells.
fn announce(profile: &Profile) {
    let needed = frames_needed(0, profile.max_miss_ratio, profile.confidence);
    if profile.frames < needed {
        eprintln!("note: {} frames cannot prove this profile: it takes {needed} without a miss", profile.frames);
    }
    if !io::stderr().is_terminal() {
        let seconds = profile.frames as f64 / profile.rate_hz;
        eprintln!("note: measuring {} frames at {} Hz takes {seconds:.0} s", profile.frames, profile.rate_hz);
    }
}

/// Before a long measurement rather than after it.
fn require_folder(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    anyhow::ensure!(folder.is_dir(), "{}: there is no folder {}; create it first", file.display(), folder.display());
    Ok(())
}

/// Runs the schedule, with a progress bar on a terminal: drawn by a thread of its own, off the frames' path.
fn run_watched(profile: &Profile, closed_loop: bool, work: &mut PipelineWork) -> (Run, Option<Load>) {
    let (ledger, done) = (Ledger::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        if io::stderr().is_terminal() {
            scope.spawn(|| {
                let style = "{elapsed_precise} {wide_bar} {pos} of {len} frames, {eta} left";
                let bar = ProgressBar::new(profile.frames as u64);
                bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
                while !done.load(Ordering::Relaxed) {
                    bar.set_position(ledger.counts().ended());
                    thread::sleep(Duration::from_millis(250));
                }
                bar.finish_and_clear();
            });
        }
        let before = CpuTime::read();
        let run = match closed_loop {
            true => schedule::closed_loop(profile, work, &ledger),
            false => schedule::open_loop(profile, work, &ledger),
        };
        let load = before.zip(CpuTime::read()).and_then(|(before, after)| before.load_until(&after));
        done.store(true, Ordering::Relaxed);
        (run, load)
    })
}

/// Writes to standard output; a reader that has gone away is no error.
fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
