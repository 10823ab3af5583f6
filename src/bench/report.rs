//! A run and its judgement, as text for people and JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use super::machine::{Fingerprint, Load};
use super::profile::Profile;
use super::schedule::{FrameRecord, Run, Stage};
use super::stats::{Distribution, QUANTILES};
use super::verdict::{percent, Judgement};
use crate::pipeline::Counts;

/// Version of the JSON form; rises when a field changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// All that is known of a run. Serialises to the JSON form.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema_version: u32,
    pub profile: Profile,
    /// `open` (a camera's schedule) or `closed` (back to back).
    pub r#loop: &'static str,
    pub machine: Fingerprint,
    /// What used the CPUs during the measurement.
    pub load: Option<Load>,
    pub subject: Subject,
    /// Stalls that were injected to test the gate, as given.
    pub injected_stalls: Vec<String>,
    pub elapsed_s: f64,
    pub counts: Counts,
    /// From the scheduled instant, from arrival, and of each stage.
    pub latency: Vec<Latency>,
    /// None for the closed loop, in which there is no deadline to keep.
    pub judgement: Option<Judgement>,
    /// The slowest frames, the slowest first.
    pub worst: Vec<WorstFrame>,
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
    pub index: usize,
    /// Seconds from the start of the run to the frame's scheduled instant.
    pub at_s: f64,
    pub outcome: &'static str,
    pub latency_ms: f64,
    /// Milliseconds of each stage, in order.
    pub stages_ms: Vec<(&'static str, f64)>,
}

/// What surrounds a run in its report.
pub struct Context {
    pub profile: Profile,
    pub open_loop: bool,
    pub machine: Fingerprint,
    pub load: Option<Load>,
    pub subject: Subject,
    pub injected_stalls: Vec<String>,
    /// How many of the slowest frames to name.
    pub worst: usize,
}

impl Report {
    /// Sums up a run.
    pub fn new(run: &Run, judgement: Option<Judgement>, context: Context) -> Self {
        let records = &run.records;
        let mut latency = vec![
            Latency::new("from schedule", Distribution::new(records.iter().map(FrameRecord::latency))),
            Latency::new("from arrival", Distribution::new(records.iter().map(FrameRecord::latency_from_arrival))),
        ];
        latency.extend(Stage::ALL.map(|stage| {
            // Of frames that passed: a frame that never got to a stage took no time in it.
            let passed = records.iter().filter_map(|r| r.stage(stage)).map(Some);
            Latency::new(stage.name(), Distribution::new(passed))
        }));
        Self {
            schema_version: SCHEMA_VERSION,
            r#loop: if context.open_loop { "open" } else { "closed" },
            machine: context.machine,
            load: context.load,
            subject: context.subject,
            injected_stalls: context.injected_stalls,
            elapsed_s: run.elapsed as f64 / 1e9,
            counts: run.counts,
            latency,
            judgement,
            worst: worst_frames(run, context.worst),
            profile: context.profile,
        }
    }

    /// For programs; ends with a line break.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data") + "\n"
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
        if let Some(load) = self.load {
            let [own, others, steal] = [load.own, load.others, load.steal].map(|share| share * 100.0);
            writeln!(out, "load      {own:.0} % of the CPU time own, {others:.0} % others', {steal:.1} % stolen")?;
        }
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
        if !self.injected_stalls.is_empty() {
            writeln!(out, "caution   stalls were injected to test the gate: {}", self.injected_stalls.join(", "))?;
        }
        writeln!(
            out,
            "frames    {} in {:.1} s: {} on time, {} late, {} superseded, {} dropped late, {} rejected\n",
            c.arrived, self.elapsed_s, c.on_time, c.late, c.superseded, c.dropped_late, c.rejected
        )?;
        self.write_table(out)?;
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

/// The `count` slowest of the frames that were processed.
fn worst_frames(run: &Run, count: usize) -> Vec<WorstFrame> {
    let start = run.records.first().map_or(0, |r| r.scheduled);
    let mut slowest: Vec<_> = run.records.iter().filter_map(|r| Some((r.until_decoded()?, r))).collect();
    slowest.sort_by_key(|&(latency, record)| (std::cmp::Reverse(latency), record.index));
    let describe = |&(latency, record): &(u64, &FrameRecord)| WorstFrame {
        index: record.index,
        at_s: record.scheduled.saturating_sub(start) as f64 / 1e9,
        outcome: record.outcome.name(),
        latency_ms: latency as f64 / 1e6,
        stages_ms: Stage::ALL.map(|s| (s.name(), record.stage(s).unwrap_or(0) as f64 / 1e6)).into(),
    };
    slowest.iter().take(count).map(describe).collect()
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
            let letter = name.chars().next().unwrap_or('?').to_ascii_uppercase();
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
        let judgement = judge(run, &profile, None, false);
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
            machine: Fingerprint::read(),
            load: None,
            subject,
            injected_stalls: vec![],
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
        let frame = WorstFrame { index: 7, at_s: 0.25, outcome: "late", latency_ms: 100.0, stages_ms };
        let bar = ["A".repeat(6), "W".repeat(12), "I".repeat(36), "D".repeat(6)].concat();
        let expected = format!(
            "frame 7 at 0.250 s, late: 100.00 ms = arrival 10.00 + wait 20.00 + preprocess 0.00 + inference 60.00 + \
             decode 10.00\n          |{bar}|"
        );
        assert_eq!(frame.time_line(), expected);
    }
}
