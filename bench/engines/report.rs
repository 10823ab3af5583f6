//! Results as tables for `bench/RESULTS.md`.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use peregrine_bench::results_file::{conditions, replace_section};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::contender::Time;

/// One contender: its times, round by round, and how far its outputs are from ours.
pub struct Row {
    pub name: String,
    /// `None` for rounds in which it did not run.
    pub times: Vec<Option<Time>>,
    /// `None` if it computes in 8-bit integers.
    pub difference: Option<f32>,
}

/// All contenders on one network with one number of threads; ours, the fastest, is the first row.
pub struct Table {
    /// Name of the network, and the name with its size.
    pub name: String,
    pub network: String,
    pub threads: usize,
    /// The largest value of any output.
    pub largest: f32,
    pub rows: Vec<Row>,
    /// Peers that did not run, and why.
    pub absent: Vec<String>,
}

/// Bootstrap resamples of an interval.
const RESAMPLES: usize = 1000;

impl Table {
    /// A heading, the table, and a sentence on the best peer.
    pub fn markdown(&self) -> String {
        let mut text =
            format!("### {}, {} thread{}\n\n", self.network, self.threads, if self.threads == 1 { "" } else { "s" });
        let _ = writeln!(
            text,
            "| engine | wall min | p50 | p99 | CPU p50 | ours / it, wall p50 | ours / it, CPU p50 | frames | differs |"
        );
        let _ = writeln!(text, "|---|---|---|---|---|---|---|---|---|");
        for row in &self.rows {
            let (wall, cpu) = (sorted(row, |t| t.wall), sorted(row, |t| t.cpu));
            let ours = self.ours(row);
            let (wall_ratio, cpu_ratio) = (ratio(ours, row, |t| t.wall), ratio(ours, row, |t| t.cpu));
            let _ = writeln!(
                text,
                "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {wall_ratio} | {cpu_ratio} | {} | {} |",
                row.name,
                quantile(&wall, 0.0),
                quantile(&wall, 0.5),
                quantile(&wall, 0.99),
                quantile(&cpu, 0.5),
                wall.len(),
                row.difference.map_or("".into(), |d| format!("{d:.1e}")),
            );
        }
        let _ = writeln!(text, "\nLargest output: {:.3}.", self.largest);
        self.integers_beside_floats(&mut text);
        for absent in &self.absent {
            let _ = writeln!(text, "Not run: {absent}.");
        }
        text
    }

    /// What our integers take of our floats' time: each at its best, and both held to the same
    /// older instructions.
    fn integers_beside_floats(&self, text: &mut String) {
        let row = |start: &str| self.rows.iter().find(|row| row.name.starts_with(start));
        for (integers, floats, on) in
            [("ours, int8 (", "ours (", "the best instructions"), ("ours, int8, held", "ours, held", "AVX2")]
        {
            if let (Some(integers), Some(floats)) = (row(integers), row(floats)) {
                let ratio = ratio(integers, floats, |t| t.wall);
                let _ = writeln!(text, "Our 8-bit integers take {ratio} of our f32 time on {on}.");
            }
        }
    }

    /// What a row is compared with: the first of its kind, f32 or 8-bit, which is ours.
    fn ours<'a>(&'a self, row: &'a Row) -> &'a Row {
        let same = |other: &&Row| other.difference.is_some() == row.difference.is_some();
        self.rows.iter().find(same).unwrap_or(row)
    }
}

/// The ratio of the medians of two rows, over the rounds in which both ran, with its 95 % interval.
fn ratio(row: &Row, other: &Row, of: impl Fn(&Time) -> f64) -> String {
    let (low, middle, high) = ratio_of_medians(&pairs(row, other, of));
    format!("{middle:.2} ({low:.2}–{high:.2})")
}

fn pairs(row: &Row, other: &Row, of: impl Fn(&Time) -> f64) -> Vec<(f64, f64)> {
    row.times.iter().zip(&other.times).filter_map(|(a, b)| Some((of(a.as_ref()?), of(b.as_ref()?)))).collect()
}

/// The wall times of two rows in the rounds in which both ran.
pub fn wall_pairs(row: &Row, other: &Row) -> Vec<(f64, f64)> {
    pairs(row, other, |t| t.wall)
}

/// The ratio of the medians of paired values, between the ends of its 95 % percentile interval:
/// bootstrapped by pairs (Efron 1979), since a disturbance often hits neighbours in a round alike.
pub fn ratio_of_medians(pairs: &[(f64, f64)]) -> (f64, f64, f64) {
    let ratio = |pairs: &[(f64, f64)]| {
        median(pairs.iter().map(|p| p.0).collect()) / median(pairs.iter().map(|p| p.1).collect())
    };
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut resampled = || {
        let drawn: Vec<_> = (0..pairs.len()).map(|_| pairs[rng.random_range(0..pairs.len())]).collect();
        ratio(&drawn)
    };
    let mut ratios: Vec<f64> = (0..RESAMPLES).map(|_| resampled()).collect();
    ratios.sort_by(f64::total_cmp);
    (quantile(&ratios, 0.025), ratio(pairs), quantile(&ratios, 0.975))
}

fn sorted(row: &Row, of: impl Fn(&Time) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = row.times.iter().flatten().map(of).collect();
    values.sort_by(f64::total_cmp);
    values
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[(q * (sorted.len() - 1) as f64).round() as usize]
}

/// A section of the results, between markers that name its make target.
pub struct Section {
    target: &'static str,
    heading: String,
    explanation: &'static str,
}

impl Section {
    /// Frames.
    pub fn engines() -> Self {
        Self {
            target: "bench-engines",
            heading: "CPU engine beside its peers".into(),
            explanation: "in milliseconds per frame. In each round all contenders ran, in random order, twice each, and the \
                second time counts; intervals are of 95 %, by bootstrap over rounds. `differs`: largest absolute difference \
                of any output from ours; rows in 8-bit integers are compared with ours in 8-bit integers. Peers: one \
                process each, their settings in `bench/peers/`. CPU time is that of all threads, so it counts spinning.",
        }
    }

    /// Training steps of `images` images.
    pub fn training(images: usize) -> Self {
        Self {
            target: "bench-training",
            heading: format!("A training step of {images} images beside PyTorch's"),
            explanation:
                "in milliseconds per step: forward, backward from ½ Σ output², AdamW; f32, batch-norm, the same \
                weights and images; PyTorch eager, in the memory format that is the faster here. Rounds as above; \
                `differs`: of any gradient of the first step.",
        }
    }
}

/// Replaces a section between its markers in `file`, or appends it; `after` follows the tables.
///
/// # Errors
/// If the file cannot be read or written.
pub fn update(file: &Path, section: &Section, tables: &[Table], after: &str, seconds: f64) -> Result<()> {
    let Section { target, heading, explanation } = section;
    let mut section = format!("## {heading}\n\n");
    let _ = writeln!(
        section,
        "{} (all of it ours on an idle machine). {seconds} s for each table, {explanation}\n",
        conditions(),
    );
    for table in tables {
        let _ = writeln!(section, "{}", table.markdown());
    }
    let _ = writeln!(section, "{after}");
    replace_section(file, &format!("make {target}"), &section)
}
