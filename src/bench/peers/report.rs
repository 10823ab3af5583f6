//! The figures of each engine, and how ours compares.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::process::Time;
use crate::command::setup::Setup;
use crate::compare::{ratios, Ratio};
use crate::machine::Fingerprint;
use crate::monitor::Conditions;
use crate::report::{Subject, SCHEMA_VERSION};
use crate::stats::Distribution;

/// The quantiles of the table, besides the maximum.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];

/// Largest difference of outputs, relative to the largest value, of what computes the same network.
const SAME: f32 = 1e-2;

/// One engine's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineFigures {
    pub name: String,
    /// As given to `--peer`; `None` for ours.
    pub peer: Option<String>,
    /// Percentiles of the inference's wall time, milliseconds, and `max`.
    pub percentiles: Vec<(&'static str, f64)>,
    /// Mean CPU time of all threads.
    pub cpu_ms: f64,
    /// Largest difference of outputs from ours, as a fraction of the largest of ours; `None` for ours, and for a
    /// network with another number of outputs.
    pub difference: Option<f32>,
}

impl EngineFigures {
    /// Summarises the times of one engine.
    pub fn new(name: String, peer: Option<String>, difference: Option<f32>, times: &[Time]) -> Self {
        let distribution = Distribution::new(times.iter().map(|time| Some(time.wall)));
        let ms = |ns: Option<u64>| ns.unwrap_or(0) as f64 / 1e6;
        let mut percentiles: Vec<_> = QUANTILES.map(|(name, q)| (name, ms(distribution.quantile(q)))).into();
        percentiles.push(("max", ms(distribution.max())));
        let cpu: u64 = times.iter().map(|time| time.cpu).sum();
        Self { name, peer, percentiles, cpu_ms: cpu as f64 / 1e6 / times.len().max(1) as f64, difference }
    }
}

/// Our time as a fraction of a peer's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerRatio {
    pub peer: String,
    /// With 99 % intervals. `first` is the peer, `second` ours.
    pub ratios: Vec<Ratio>,
}

/// All of a run.
#[derive(Debug, Serialize)]
pub struct PeerReport {
    pub schema_version: u32,
    pub machine: Fingerprint,
    pub conditions: Conditions,
    pub subject: Subject,
    pub stress: Vec<String>,
    pub rounds: usize,
    pub elapsed_s: f64,
    /// Ours first.
    pub engines: Vec<EngineFigures>,
    pub ratios: Vec<PeerRatio>,
    /// In percent of the CPU time: above it, other programs spoil the figures.
    #[serde(skip)]
    allowed_load: f64,
}

impl PeerReport {
    /// Of the times of each engine, round by round, ours first.
    pub fn new(
        setup: &Setup,
        conditions: Conditions,
        engines: Vec<EngineFigures>,
        times: &[Vec<Time>],
        elapsed: Duration,
    ) -> Self {
        let rounds = times[0].len();
        let us = |time: &Time| time.wall as f64 / 1e3;
        let ratio = |(theirs, figures): (&Vec<Time>, &EngineFigures)| {
            let pairs: Vec<_> = theirs.iter().zip(&times[0]).map(|(theirs, ours)| (us(theirs), us(ours))).collect();
            PeerRatio { peer: figures.name.clone(), ratios: if pairs.is_empty() { vec![] } else { ratios(&pairs) } }
        };
        let ratios = times[1..].iter().zip(&engines[1..]).map(ratio).collect();
        let context = setup.context(Conditions::default(), 0);
        Self {
            schema_version: SCHEMA_VERSION,
            machine: context.machine,
            conditions,
            subject: context.subject,
            stress: context.stress,
            rounds,
            elapsed_s: elapsed.as_secs_f64(),
            engines,
            ratios,
            allowed_load: setup.profile.max_foreign_load_percent,
        }
    }

    /// As JSON; ends with a line break.
    pub fn json(&self) -> String {
        format!("{}\n", serde_json::to_string_pretty(self).expect("a report is plain data"))
    }

    /// Human-readable; ends with a line break.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let s = &self.subject;
        writeln!(out, "machine   {}", self.machine.summary())?;
        writeln!(
            out,
            "engines   the network alone, {} rounds of one frame each, {} thread{}, input {}x{}",
            self.rounds,
            s.threads,
            if s.threads == 1 { "" } else { "s" },
            s.input_width,
            s.input_height
        )?;
        writeln!(out, "model     {}, weights {}", s.model, s.weights_sha256.get(..12).unwrap_or_default())?;
        if !self.machine.optimised_build {
            writeln!(out, "caution   a debug build, many times slower than a release build")?;
        }
        let load = self.conditions.load.map_or(0.0, |load| load.foreign_percent());
        if load > self.allowed_load {
            writeln!(
                out,
                "caution   other programs or the hypervisor took {load:.0} % of the CPU time: stop them and run again"
            )?;
        }
        for engine in &self.engines[1..] {
            let peer = engine.peer.as_deref().unwrap_or_default();
            match engine.difference {
                Some(difference) if difference <= SAME => {
                    writeln!(out, "outputs   of {peer} are within {difference:.1e} of ours, relative to the largest")?;
                }
                Some(difference) => writeln!(
                    out,
                    "caution   outputs of {peer} differ from ours by {difference:.1e} of the largest: other weights"
                )?,
                None => writeln!(out, "caution   {peer} is another network than ours, by the size of its outputs")?,
            }
        }
        let heads: String = ["p50", "p90", "p99", "max", "CPU"].map(|head| format!("{head:>9}")).concat();
        writeln!(out, "\n{:28}{heads}", "ms")?;
        for engine in &self.engines {
            let figures: String = engine.percentiles.iter().map(|(_, ms)| format!("{ms:9.2}")).collect();
            writeln!(out, "{:28}{figures}{:9.2}", engine.name, engine.cpu_ms)?;
        }
        writeln!(out)?;
        for PeerRatio { peer, ratios } in &self.ratios {
            let each = |r: &Ratio| format!("{} {:.3} ({:.3} to {:.3})", r.of, r.ratio, r.low, r.high);
            let all: Vec<_> = ratios.iter().map(each).collect();
            writeln!(out, "ratio     ours / {peer}: {}; intervals of 99 % confidence", all.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_an_engine_are_its_percentiles_in_milliseconds() {
        let times: Vec<_> = (1..=100).map(|ms| Time { wall: ms * 1_000_000, cpu: 2_000_000 }).collect();
        let figures = EngineFigures::new("x".into(), None, None, &times);
        let near = |i: usize, ms: f64| assert!((figures.percentiles[i].1 / ms - 1.0).abs() < 0.02, "{figures:?}");
        near(0, 50.0);
        near(1, 90.0);
        near(3, 100.0);
        assert_eq!(figures.cpu_ms, 2.0);
    }
}
