//! A run and its judgement, as text for people and JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use super::machine::Fingerprint;
use super::monitor::Conditions;
use super::node::side_by_side::SideBySide;
use super::profile::Profile;
use super::record::{Fate, FrameRecord, Layer, Run, Tally};
use super::stats::{Distribution, QUANTILES};
use super::usage::CostPerFrame;
use super::verdict::{percent, Judgement};

/// Version of the JSON form; rises when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 2;

/// All that is known of a run. Serialises to the JSON form, which `bench/SCHEMA.md` describes.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema_version: u32,
    pub profile: Profile,
    /// `open` (a camera's schedule) or `closed` (back to back).
    pub r#loop: &'static str,
    pub layer: Layer,
    /// As the option was given.
    pub schedule: String,
    pub cameras: usize,
    pub machine: Fingerprint,
    pub conditions: Conditions,
    pub subject: Subject,
    /// Faults that were injected to test the gate, as given.
    pub injected: Vec<String>,
    /// Load that was put on the machine on request, as given.
    pub stress: Vec<String>,
    pub elapsed_s: f64,
    pub counts: Tally,
    /// From the scheduled instant, from arrival, of each stage, and what follows from them.
    pub latency: Vec<Latency>,
    /// Means over the frames; none where it was not measured.
    pub cost: Option<CostPerFrame>,
    /// None for the closed loop, in which there is no deadline to keep.
    pub judgement: Option<Judgement>,
    /// The slowest frames, the slowest first.
    pub worst: Vec<WorstFrame>,
    /// Where a peer was measured beside it.
    pub side_by_side: Option<SideBySide>,
    /// Written at the end of the JSON, in one line.
    #[serde(skip)]
    pub frames: FrameColumns,
}

/// Every frame, column by column: for comparison frame by frame, and as a trace for another run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FrameColumns {
    pub camera: Vec<usize>,
    /// Microseconds from the first frame's instant.
    pub scheduled_us: Vec<f64>,
    pub latency_us: Vec<Option<f64>>,
    pub fate: Vec<Fate>,
}

impl FrameColumns {
    fn of(run: &Run) -> Self {
        let (start, us) = (run.start(), |ns: u64| ns as f64 / 1e3);
        let records = &run.records;
        Self {
            camera: records.iter().map(|r| r.camera).collect(),
            scheduled_us: records.iter().map(|r| us(r.scheduled - start)).collect(),
            latency_us: records.iter().map(|r| r.latency().map(us)).collect(),
            fate: records.iter().map(|r| r.fate).collect(),
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subject {
    pub model: String,
    /// SHA-256 of the weights.
    pub weights_sha256: String,
    /// Network input, pixels.
    pub input_width: usize,
    pub input_height: usize,
    pub threads: usize,
    pub segmentation: bool,
    /// Where the images came from.
    pub frames: String,
}

/// Percentiles of one duration, in milliseconds; none where frames without a result are in the way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    pub of: &'static str,
    /// By the names of [`QUANTILES`] and `max`.
    pub percentiles: Vec<(&'static str, Option<f64>)>,
    pub frames_without_result: u64,
    /// Upper ends in microseconds and counts; may be added up over runs, which percentiles may not.
    pub histogram: Vec<(f64, u64)>,
}

/// One of the slowest frames: where its time went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorstFrame {
    pub camera: usize,
    pub index: usize,
    /// Seconds from the start of the run to the frame's scheduled instant.
    pub at_s: f64,
    pub outcome: &'static str,
    pub latency_ms: f64,
    /// Milliseconds of each stage, in order.
    pub stages_ms: Vec<(&'static str, f64)>,
}

/// What surrounds a run in its report.
#[derive(Debug, Clone)]
pub struct Context {
    pub profile: Profile,
    pub open_loop: bool,
    pub schedule: String,
    pub machine: Fingerprint,
    pub conditions: Conditions,
    pub subject: Subject,
    pub injected: Vec<String>,
    pub stress: Vec<String>,
    /// How many of the slowest frames to name.
    pub worst: usize,
}

impl Report {
    /// Sums up a run.
    pub fn new(run: &Run, judgement: Option<Judgement>, context: Context) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            r#loop: if context.open_loop { "open" } else { "closed" },
            layer: run.layer,
            schedule: context.schedule,
            cameras: run.cameras().count(),
            machine: context.machine,
            conditions: context.conditions,
            subject: context.subject,
            injected: context.injected,
            stress: context.stress,
            elapsed_s: run.elapsed as f64 / 1e9,
            counts: run.tally(),
            latency: distributions(run).into_iter().map(|(of, distribution)| Latency::new(of, distribution)).collect(),
            cost: CostPerFrame::of(&run.records),
            judgement,
            worst: worst_frames(run, context.worst),
            side_by_side: None,
            frames: FrameColumns::of(run),
            profile: context.profile,
        }
    }

    /// For programs; ends with a line break.
    pub fn json(&self) -> String {
        let report = serde_json::to_string_pretty(self).expect("a report is plain data");
        let frames = serde_json::to_string(&self.frames).expect("numbers");
        format!("{},\n  \"frames\": {frames}\n}}\n", report.trim_end_matches("\n}"))
    }

    /// For people; ends with a line break.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let (p, s, c) = (&self.profile, &self.subject, &self.counts);
        if self.judgement.is_some() {
            writeln!(
                out,
                "profile   {}: {} Hz, {} ms from each frame's instant, misses at most {} ({} % confidence)",
                p.name,
                p.rate_hz,
                p.deadline_ms,
                percent(p.max_miss_ratio),
                p.confidence * 100.0
            )?;
        } else {
            writeln!(out, "profile   closed loop: {} frames back to back", p.frames)?;
        }
        let revision = self.machine.git_revision.as_deref().map(|r| format!(" ({r})")).unwrap_or_default();
        writeln!(out, "program   peregrine {}{revision}", self.machine.program_version)?;
        writeln!(out, "machine   {}", self.machine.summary())?;
        if let Some(load) = self.conditions.load {
            let [own, others, steal] = [load.own, load.others, load.steal].map(|share| share * 100.0);
            writeln!(out, "load      {own:.0} % of the CPU time own, {others:.0} % others', {steal:.1} % stolen")?;
        }
        self.write_conditions(out)?;
        writeln!(
            out,
            "model     {}, weights {}, input {}x{}, {} thread{}{}",
            s.model,
            s.weights_sha256.get(..12).unwrap_or_default(),
            s.input_width,
            s.input_height,
            s.threads,
            if s.threads == 1 { "" } else { "s" },
            if s.segmentation { ", with segmentation" } else { "" }
        )?;
        writeln!(out, "images    {}", s.frames)?;
        if !self.machine.optimised_build {
            writeln!(out, "caution   a debug build: these figures say nothing about a release build")?;
        }
        if !self.injected.is_empty() {
            writeln!(out, "caution   faults were injected to test the gate: {}", self.injected.join(", "))?;
        }
        if !self.stress.is_empty() {
            writeln!(out, "caution   load was put on the machine on request: {}", self.stress.join(", "))?;
        }
        let mut counts = format!(
            "frames    {} in {:.1} s: {} on time, {} late, {} superseded, {} dropped late, {} rejected",
            c.due, self.elapsed_s, c.on_time, c.late, c.superseded, c.dropped_late, c.rejected
        );
        for (count, what) in [(c.lost, "lost"), (c.in_hand, "never finished")] {
            if count > 0 {
                write!(counts, ", {count} {what}")?;
            }
        }
        writeln!(out, "{counts}\n")?;
        self.write_table(out)?;
        self.write_cost(out)?;
        if let Some(nodes) = &self.side_by_side {
            writeln!(out, "{}", nodes.text)?;
        }
        for frame in &self.worst {
            writeln!(out, "{}", frame.time_line())?;
        }
        if let Some(judgement) = &self.judgement {
            writeln!(
                out,
                "misses    {} of {} ({}); longest run {}",
                judgement.misses,
                judgement.frames,
                percent(judgement.miss_ratio),
                judgement.longest_miss_run
            )?;
            writeln!(out, "verdict   {}", judgement.verdict.title())?;
            for reason in &judgement.reasons {
                writeln!(out, "          {reason}")?;
            }
        } else {
            writeln!(out, "rate      {:.1} frames a second, one after the other", c.arrived as f64 / self.elapsed_s)?;
        }
        Ok(())
    }

    /// What the machine went through, as far as it can be told.
    fn write_conditions(&self, out: &mut String) -> std::fmt::Result {
        let c = &self.conditions;
        let mut facts = vec![];
        if let Some((low, high)) = c.cpu_mhz {
            facts.push(format!("CPU clock {low:.0} to {high:.0} MHz"));
        }
        if let Some(times) = c.throttled {
            facts.push(format!("slowed by heat {times} times"));
        }
        let gpu: Vec<_> = c.samples.iter().filter_map(|s| s.gpu).collect();
        if let Some(last) = gpu.last() {
            let known = |value: Option<f64>, unit: &str| value.map(|v| format!("{v:.0} {unit}"));
            let values = [
                known(last.clock_mhz.map(f64::from), "MHz"),
                known(last.temperature_c.map(f64::from), "°C"),
                known(last.power_w, "W"),
            ];
            let slowed = if c.gpu_throttled() { ", slowed down" } else { "" };
            facts.push(format!("GPU {}{slowed}", values.into_iter().flatten().collect::<Vec<_>>().join(", ")));
        }
        if let Some((first, last)) = c.samples.first().zip(c.samples.last()) {
            if let Some((first, last)) = first.resident_mib.zip(last.resident_mib) {
                facts.push(format!("memory {first:.1} to {last:.1} MiB"));
            }
        }
        if !facts.is_empty() {
            writeln!(out, "during    {}", facts.join("; "))?;
        }
        if self.layer != Layer::Pipeline || self.cameras > 1 || self.schedule != "fixed" {
            let cameras = if self.cameras > 1 { format!(", {} cameras", self.cameras) } else { String::new() };
            writeln!(out, "layer     {:?}, schedule {}{cameras}", self.layer, self.schedule)?;
        }
        Ok(())
    }

    fn write_cost(&self, out: &mut String) -> std::fmt::Result {
        let Some(c) = self.cost else { return Ok(()) };
        writeln!(
            out,
            "a frame   {:.2} ms of CPU time; {:.2} context switches of its own will and {:.2} others; {:.2} page faults \
             ({:.2} from disk); {:.2} allocations, {} at most",
            c.cpu_ms,
            c.voluntary_switches,
            c.involuntary_switches,
            c.minor_faults,
            c.major_faults,
            c.allocations,
            c.most_allocations
        )
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "{:16}", "ms")?;
        for name in QUANTILES.map(|(name, _)| name).into_iter().chain(["max"]) {
            write!(out, "{name:>9}")?;
        }
        writeln!(out)?;
        for latency in &self.latency {
            write!(out, "{:16}", latency.of)?;
            for (_, value) in &latency.percentiles {
                match value {
                    Some(ms) => write!(out, "{ms:9.2}")?,
                    None => write!(out, "{:>9}", "none")?,
                }
            }
            writeln!(out)?;
        }
        if self.latency.iter().any(|l| l.frames_without_result > 0) {
            writeln!(out, "(none: so many frames had no result at all; they count as the slowest)")?;
        }
        writeln!(out)
    }
}

impl Latency {
    fn new(of: &'static str, distribution: Distribution) -> Self {
        let ms = |ns: Option<u64>| ns.map(|ns| ns as f64 / 1e6);
        let mut percentiles: Vec<_> = QUANTILES.map(|(name, q)| (name, ms(distribution.quantile(q)))).into();
        percentiles.push(("max", ms(distribution.max())));
        let histogram = distribution.buckets().into_iter().map(|(ns, count)| (ns as f64 / 1e3, count)).collect();
        Self { of, percentiles, frames_without_result: distribution.without_result(), histogram }
    }
}

/// The distributions that are reported, by name.
pub fn distributions(run: &Run) -> Vec<(&'static str, Distribution)> {
    let records = &run.records;
    let mut all = vec![
        ("from schedule", Distribution::new(records.iter().map(FrameRecord::latency))),
        ("from arrival", Distribution::new(records.iter().map(FrameRecord::latency_from_arrival))),
    ];
    // Of frames that passed: a frame that never got to a stage took no time in it.
    let passed = |of: &dyn Fn(&FrameRecord) -> Option<u64>| Distribution::new(records.iter().filter_map(of).map(Some));
    all.extend(run.layer.stages().iter().map(|&stage| (stage.name(), passed(&|r| r.stage(stage)))));
    all.push(("all but student", passed(&FrameRecord::besides_inference)));
    all.push(("output jitter", Distribution::new(output_jitter(run).into_iter().map(Some))));
    if records.iter().any(|r| r.cost.cpu > 0) {
        all.push(("CPU time", passed(&|r| r.passage.map(|_| r.cost.cpu))));
    }
    all
}

/// By how many nanoseconds the time between two results differs from the time between their scheduled instants.
fn output_jitter(run: &Run) -> Vec<u64> {
    let delay = |r: &FrameRecord| r.latency();
    run.cameras()
        .flat_map(|records| {
            let delays: Vec<_> = records.iter().filter_map(delay).collect();
            delays.windows(2).map(|pair| pair[0].abs_diff(pair[1])).collect::<Vec<_>>()
        })
        .collect()
}

/// The `count` slowest of the frames that were processed.
fn worst_frames(run: &Run, count: usize) -> Vec<WorstFrame> {
    let start = run.start();
    let mut slowest: Vec<_> = run.records.iter().filter_map(|r| Some((r.until_done()?, r))).collect();
    slowest.sort_by_key(|&(latency, record)| (std::cmp::Reverse(latency), record.index));
    let describe = |&(latency, record): &(u64, &FrameRecord)| WorstFrame {
        index: record.index,
        at_s: record.scheduled.saturating_sub(start) as f64 / 1e9,
        camera: record.camera,
        outcome: record.fate.name(),
        latency_ms: latency as f64 / 1e6,
        stages_ms: run.layer.stages().iter().map(|&s| (s.name(), record.stage(s).unwrap_or(0) as f64 / 1e6)).collect(),
    };
    slowest.iter().take(count).map(describe).collect()
}

/// For a bar of characters; no two stages have the same.
fn letter_of(stage: &str) -> char {
    match stage {
        "publish" => 'U',
        "decode" => 'D',
        "delivery" => 'L',
        "track" => 'K',
        other => other.chars().next().unwrap_or('?').to_ascii_uppercase(),
    }
}

impl WorstFrame {
    /// Two lines: the stages in figures, and drawn to scale, 60 characters for the whole latency.
    fn time_line(&self) -> String {
        const WIDTH: f64 = 60.0;
        let mut bar = String::new();
        let mut passed = 0.0;
        for &(name, ms) in &self.stages_ms {
            passed += ms;
            let until = (passed / self.latency_ms.max(1e-9) * WIDTH).round() as usize;
            let letter = letter_of(name);
            bar.extend(std::iter::repeat_n(letter, until.saturating_sub(bar.len())));
        }
        let stages: Vec<_> = self.stages_ms.iter().map(|(name, ms)| format!("{name} {ms:.2}")).collect();
        format!(
            "frame {} at {:.3} s, {}: {:.2} ms = {}\n          |{bar:60}|",
            self.index,
            self.at_s,
            self.outcome,
            self.latency_ms,
            stages.join(" + ")
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::simulation::{profile, simulate};
    use crate::bench::verdict::judge;

    /// A run's report with everything around it made up.
    pub(in crate::bench) fn report_of(run: &Run, profile: Profile) -> Report {
        let judgement = judge(run, &profile, &Conditions::default(), false);
        let subject = Subject {
            model: "test".into(),
            weights_sha256: "ab".repeat(32),
            input_width: 320,
            input_height: 256,
            threads: 1,
            segmentation: true,
            frames: "none".into(),
        };
        let context = Context {
            profile,
            open_loop: true,
            schedule: "fixed".into(),
            machine: Fingerprint::read(),
            conditions: Conditions::default(),
            subject,
            injected: vec![],
            stress: vec![],
            worst: 2,
        };
        Report::new(run, Some(judgement), context)
    }

    /// 200 frames, of which one takes `stall` milliseconds in inference.
    fn report(stall: u64) -> Report {
        let profile = profile(200);
        let run = simulate(&profile, |frame| Some([1, if frame == 50 { stall } else { 5 }, 1]));
        report_of(&run, profile)
    }

    #[test]
    fn text_tells_the_verdict_the_counts_and_the_worst_frames() {
        let text = report(200).text();
        assert!(text.contains("\nverdict   MISSED\n"), "{text}");
        assert!(text.contains("180 on time, 1 late, 19 superseded"), "{text}");
        assert!(text.contains("frame 50 at 0.500 s, late: 202.00 ms = "), "{text}");
        assert!(text.contains("go back to inference: usually 5.00 ms, 200.00 ms at worst"), "{text}");
    }

    #[test]
    fn percentiles_that_lost_frames_fall_into_are_none() {
        let report = report(200);
        // 19 of 200 frames have no result.
        assert!((report.latency[0].percentiles[0].1.unwrap() - 7.0).abs() < 0.01);
        assert_eq!(report.latency[0].percentiles[2], ("p99", None));
        assert_eq!(report.latency[0].frames_without_result, 19);
        assert!(report.text().contains("none"));
    }

    #[test]
    fn json_has_its_version_and_every_section() {
        let value: serde_json::Value = serde_json::from_str(&report(200).json()).unwrap();
        assert_eq!(value["schema_version"], SCHEMA_VERSION);
        assert_eq!(value["judgement"]["verdict"], "missed");
        assert_eq!(value["judgement"]["culprit"]["stage"], "inference");
        assert_eq!(value["counts"]["arrived"], 200);
        let histogram = value["latency"][0]["histogram"].as_array().unwrap();
        let counted: u64 = histogram.iter().map(|bucket| bucket[1].as_u64().unwrap()).sum();
        assert_eq!(counted, 181);
    }

    #[test]
    fn a_time_line_is_drawn_to_scale() {
        let stages_ms =
            vec![("arrival", 10.0), ("wait", 20.0), ("preprocess", 0.0), ("inference", 60.0), ("decode", 10.0)];
        let frame = WorstFrame { camera: 0, index: 7, at_s: 0.25, outcome: "late", latency_ms: 100.0, stages_ms };
        let bar = ["A".repeat(6), "W".repeat(12), "I".repeat(36), "D".repeat(6)].concat();
        let expected = format!(
            "frame 7 at 0.250 s, late: 100.00 ms = arrival 10.00 + wait 20.00 + preprocess 0.00 + inference 60.00 + \
             decode 10.00\n          |{bar}|"
        );
        assert_eq!(frame.time_line(), expected);
    }
}
