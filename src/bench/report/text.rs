//! The human-readable report.

use std::fmt::Write;

use super::{BenchReport, WorstFrame};
use crate::record::BenchLayer;
use crate::stats::QUANTILES;
use crate::verdict::percent;

impl BenchReport {
    /// Human-readable; ends with a line break.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let (p, s, tally) = (&self.profile, &self.subject, &self.counts);
        let c = &tally.counts;
        if self.judgement.is_some() {
            writeln!(
                out,
                "profile   {}: {} Hz, deadline {} ms, miss ratio at most {} ({} % confidence)",
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
            let [own, others, steal] = [load.own, load.others, load.steal].map(|fraction| fraction * 100.0);
            writeln!(out, "load      CPU time: own {own:.0} %, other programs {others:.0} %, stolen {steal:.1} %")?;
        }
        self.write_conditions(out)?;
        self.write_subject(out)?;
        writeln!(out, "images    {}", s.frames)?;
        if !self.machine.optimised_build {
            writeln!(out, "caution   a debug build, many times slower than a release build")?;
        }
        if !self.injected.is_empty() {
            writeln!(out, "caution   faults were injected: {}", self.injected.join(", "))?;
        }
        if !self.stress.is_empty() {
            writeln!(out, "caution   background load: {}", self.stress.join(", "))?;
        }
        let mut counts = format!(
            "frames    {} in {:.1} s: {} on time, {} late, {} superseded, {} dropped late, {} rejected",
            tally.due, self.elapsed_s, c.on_time, c.late, c.superseded, c.dropped_late, c.rejected
        );
        for (count, what) in [(tally.lost, "lost"), (tally.unanswered, "unanswered"), (c.in_flight, "unfinished")] {
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
            writeln!(out, "rate      {:.1} frames per second, back to back", c.arrived as f64 / self.elapsed_s)?;
        }
        Ok(())
    }

    /// The student, or the node that was not set up here.
    fn write_subject(&self, out: &mut String) -> std::fmt::Result {
        let s = &self.subject;
        if let Some(node) = &s.node {
            let (images, detections) = (node.image_topics.join(", "), node.detections_topics.join(", "));
            writeln!(out, "node      {}: images on {images}, detections on {detections}", node.name())?;
            if !node.frame_timing {
                writeln!(out, "          it publishes no FrameTiming: from image to detections is one stage")?;
            }
            return Ok(());
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
        )
    }

    /// The conditions of the machine, as far as they are known.
    fn write_conditions(&self, out: &mut String) -> std::fmt::Result {
        let c = &self.conditions;
        let mut facts = vec![];
        if let Some((low, high)) = c.cpu_mhz {
            facts.push(format!("CPU clock {low:.0} to {high:.0} MHz"));
        }
        if let Some(times) = c.throttled {
            facts.push(format!("throttled {times} times"));
        }
        facts.extend(c.board.facts());
        let gpu: Vec<_> = c.samples.iter().filter_map(|s| s.gpu).collect();
        if let Some(last) = gpu.last() {
            let known = |value: Option<f64>, unit: &str| value.map(|v| format!("{v:.0} {unit}"));
            let values = [
                known(last.clock_mhz.map(f64::from), "MHz"),
                known(last.temperature_c.map(f64::from), "°C"),
                known(last.power_w, "W"),
            ];
            let throttled = if c.gpu_throttled() { ", throttled" } else { "" };
            facts.push(format!("GPU {}{throttled}", values.into_iter().flatten().collect::<Vec<_>>().join(", ")));
        }
        if let Some((first, last)) = c.samples.first().zip(c.samples.last()) {
            if let Some((first, last)) = first.resident_mib.zip(last.resident_mib) {
                facts.push(format!("memory {first:.1} to {last:.1} MiB"));
            }
        }
        if !facts.is_empty() {
            writeln!(out, "during    {}", facts.join("; "))?;
        }
        if self.layer != BenchLayer::Pipeline || self.cameras > 1 || self.schedule != "fixed" {
            let cameras = if self.cameras > 1 { format!(", {} cameras", self.cameras) } else { String::new() };
            writeln!(out, "layer     {}, schedule {}{cameras}", self.layer.name(), self.schedule)?;
        }
        Ok(())
    }

    fn write_cost(&self, out: &mut String) -> std::fmt::Result {
        let Some(c) = self.cost else { return Ok(()) };
        write!(
            out,
            "per frame {:.2} ms of CPU time; {:.2} voluntary and {:.2} involuntary context switches; {:.2} minor and \
             {:.2} major page faults",
            c.cpu_ms, c.voluntary_switches, c.involuntary_switches, c.minor_faults, c.major_faults,
        )?;
        match c.allocations.zip(c.most_allocations) {
            Some((allocations, most)) => writeln!(out, "; {allocations:.2} allocations, at most {most}"),
            None => writeln!(out),
        }
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
            writeln!(out, "(none: the percentile falls among frames without a result, which rank as the slowest)")?;
        }
        writeln!(out)
    }
}

/// Letter of a stage in the time line; unique.
fn letter_of(stage: &str) -> char {
    match stage {
        "publish" => 'U',
        "decode" => 'D',
        "delivery" => 'L',
        "track" => 'K',
        "node" => 'N',
        other => other.chars().next().unwrap_or('?').to_ascii_uppercase(),
    }
}

impl WorstFrame {
    /// Two lines: the stages in figures, and to scale with 60 characters for the whole latency.
    fn time_line(&self) -> String {
        const WIDTH: f64 = 60.0;
        let mut bar = String::new();
        let mut elapsed_ms = 0.0;
        for &(name, ms) in &self.stages_ms {
            elapsed_ms += ms;
            let until = (elapsed_ms / self.latency_ms.max(1e-9) * WIDTH).round() as usize;
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
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn the_text_has_verdict_counts_and_worst_frames() {
        let text = report(200).text();
        assert!(text.contains("\nverdict   MISSED\n"), "{text}");
        assert!(text.contains("180 on time, 1 late, 19 superseded"), "{text}");
        assert!(text.contains("frame 50 at 0.500 s, late: 202.00 ms = "), "{text}");
        assert!(text.contains("attributed to inference: median 5.00 ms, worst 200.00 ms"), "{text}");
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
