//! The latency of the middleware alone from a camera to a subscriber, without the node: the lower
//! bound of `transport`, `wait` and `delivery` of `make bench-node`.
//!
//!     cargo bench -p peregrine-ros --bench transport [-- FRAMES [--results bench/RESULTS.md]]
//!
//! One process publishes images at 30 Hz, another that does nothing else receives them, and answers
//! each with a message of a few bytes. Once with 64 bytes in the image, so that the wake-ups
//! dominate, and once with 640×480 rgb8. `publish`: the call to publish; `there`: from before that
//! call until the image is received; `back`: from before the answer's publication until the answer
//! is received.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context as _};
use clap::Parser;
use futures::{FutureExt, Stream, StreamExt};
use peregrine_bench::node::process::{prepare_environment, temporary_folder};
use peregrine_bench::results_file::{conditions, replace_section};
use r2r::sensor_msgs::msg::Image;
use r2r::std_msgs::msg::Header;
use r2r::{NativeMsg, Node, QosProfile};

const PERIOD: Duration = Duration::from_nanos(33_333_333);
const TICK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes this program the subscriber, until the end of its standard input.
const ECHO: &str = "--echo";

#[derive(Parser)]
#[command(about = "The latency of the middleware alone from a camera to a subscriber and back")]
struct Arguments {
    /// Number of images of each size.
    #[arg(default_value_t = 300)]
    frames: usize,

    /// The file whose table is replaced by the results.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,

    /// Added by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    ensure!(
        std::env::var_os("AMENT_PREFIX_PATH").is_some(),
        "there is no ROS 2 environment; run `. launch/setup/env.sh` first"
    );
    if std::env::args().any(|argument| argument == ECHO) {
        return echo();
    }
    let Arguments { frames, results, .. } = Arguments::parse();
    let folder = temporary_folder()?;
    prepare_environment(folder.path(), true)?;
    let mut subscriber = Command::new(std::env::current_exe()?).arg(ECHO).stdin(Stdio::piped()).spawn()?;
    let mut node = Node::create(r2r::Context::create()?, "camera", "")?;
    let images = node.create_publisher::<Image>("image", QosProfile::sensor_data().keep_last(1))?;
    let mut answers = node.subscribe_native::<Header>("answer", QosProfile::default())?;
    println!("{frames} images at 30 Hz, ms                 p50      p90      p99      max");
    let mut table = String::from("| ms | p50 | p90 | p99 | max |\n|---|---|---|---|---|\n");
    for (bytes, (width, height)) in [(64, (8, 8)), (640 * 480 * 3, (640, 480))] {
        let data = vec![127; bytes];
        let step = (bytes / height as usize) as u32;
        let image = Image { width, height, step, encoding: "rgb8".into(), data, ..Image::default() };
        let mut message = NativeMsg::<Image>::from(&image);
        let give_up = Instant::now() + PATIENCE;
        while exchange(&mut node, &images, &mut message, &mut answers, TICK * 10).is_none() {
            ensure!(Instant::now() < give_up, "the subscriber does not answer");
        }
        let mut times = vec![];
        let mut due = Instant::now();
        for _ in 0..frames {
            due += PERIOD;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            times.extend(exchange(&mut node, &images, &mut message, &mut answers, PERIOD / 2));
        }
        ensure!(times.len() * 10 >= frames * 9, "only {} of {frames} images of {bytes} bytes came back", times.len());
        for (i, name) in ["publish", "there", "back"].iter().enumerate() {
            let mut ms: Vec<_> = times.iter().map(|t: &[i64; 3]| t[i] as f64 / 1e6).collect();
            ms.sort_by(f64::total_cmp);
            let figures = [0.5, 0.9, 0.99, 1.0].map(|q| ms[(q * (ms.len() - 1) as f64).round() as usize]);
            let name = format!("{name}, {bytes} bytes");
            println!("{name:32}{}", figures.map(|ms| format!("{ms:9.3}")).concat());
            table += &format!("| {name} |{}\n", figures.map(|ms| format!(" {ms:.3} |")).concat());
        }
    }
    if let Some(file) = results {
        let section = format!(
            "### The middleware alone\n\n{}. {frames} images of each size at 30 Hz between two processes that do nothing \
             else. `publish`: the call; `there`: from before it until the image is received; `back`: a message of a few bytes.\n\n\
             {table}",
            conditions()
        );
        replace_section(&file, "make bench-transport", &section)?;
    }
    drop(subscriber.stdin.take());
    subscriber.wait().context("the subscriber")?;
    Ok(())
}

/// Sends an image and waits for its answer: nanoseconds of `publish`, `there` and `back`.
fn exchange(
    node: &mut Node,
    images: &r2r::Publisher<Image>,
    message: &mut NativeMsg<Image>,
    answers: &mut (impl Stream<Item = NativeMsg<Header>> + Unpin),
    patience: Duration,
) -> Option<[i64; 3]> {
    let sent = now();
    (message.header.stamp.sec, message.header.stamp.nanosec) = split(sent);
    images.publish_native(message).ok()?;
    let published = now();
    let give_up = Instant::now() + patience;
    while Instant::now() < give_up {
        node.spin_once(TICK);
        let received = now();
        while let Some(answer) = answers.next().now_or_never().flatten() {
            // The stamp is when the image was received; the text identifies the image.
            let arrived = join(answer.stamp.sec, answer.stamp.nanosec);
            let named = answer.frame_id.to_str().parse::<i64>().ok();
            if named == Some(sent) {
                return Some([published - sent, arrived - sent, received - arrived]);
            }
        }
    }
    None
}

fn echo() -> anyhow::Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let mut node = Node::create(r2r::Context::create()?, "subscriber", "")?;
    let mut images = node.subscribe_native::<Image>("image", QosProfile::sensor_data())?;
    let answers = node.create_publisher::<Header>("answer", QosProfile::default())?;
    let mut answer = NativeMsg::<Header>::new();
    loop {
        node.spin_once(TICK);
        let arrived = now();
        while let Some(image) = images.next().now_or_never().flatten() {
            let sent = join(image.header.stamp.sec, image.header.stamp.nanosec);
            (answer.stamp.sec, answer.stamp.nanosec) = split(arrived);
            answer.frame_id.assign(&sent.to_string());
            answers.publish_native(&mut answer)?;
        }
    }
}

/// The clock that all processes share, in nanoseconds.
fn now() -> i64 {
    // SAFETY: the structure is plain numbers, which the call fills.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time);
        time
    };
    join(time.tv_sec as i32, time.tv_nsec as u32)
}

fn join(sec: i32, nanosec: u32) -> i64 {
    i64::from(sec) * 1_000_000_000 + i64::from(nanosec)
}

fn split(ns: i64) -> (i32, u32) {
    ((ns / 1_000_000_000) as i32, (ns % 1_000_000_000) as u32)
}
