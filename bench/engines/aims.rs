//! Performance targets of the engine, and whether the measured tables meet them.

use std::fmt::Write;

use crate::alone::Alone;
use crate::report::{median, quantile, ratio_of_medians, wall_pairs, Row, Table};
use crate::roofline::Roofline;

/// Fraction of the best peer's time: f32 with one and two threads, and 8-bit integers.
const OF_BEST_PEER: [f64; 2] = [0.85, 0.75];
const OF_BEST_INT8_PEER: f64 = 0.8;
/// The same in f32 on the NanoDet-like network, which nobody ships.
const NANODET_LIKE: f64 = 1.0;
/// Fraction of our f32 time in 8-bit integers, with VNNI and with AVX2.
const WITH_VNNI: f64 = 0.5;
const WITH_AVX2: f64 = 0.75;
/// Speed-up by a second thread.
const TWO_THREADS: f64 = 1.7;
/// p99 divided by p50, one thread.
const TAIL: f64 = 1.3;

/// A target: a ratio that is at most, or at least, a limit.
struct Aim {
    what: String,
    limit: f64,
    at_least: bool,
    /// The lower end of the 95 % interval, the value and the upper end.
    measured: (f64, f64, f64),
    beside: String,
    /// The ratio if our engine ran at the machine's peak, which no kernel can exceed.
    at_peak: Option<f64>,
}

impl Aim {
    fn row(&self) -> String {
        let (low, middle, high) = self.measured;
        let met =
            if self.at_least { [low >= self.limit, high < self.limit] } else { [high <= self.limit, low > self.limit] };
        let verdict = match met {
            [true, _] => "met",
            [_, true] => "**missed**",
            _ => "open: the interval contains the limit",
        };
        let interval = if low == high { String::new() } else { format!(" ({low:.2}–{high:.2})") };
        let bound = if self.at_least { "≥" } else { "≤" };
        let at_peak = self.at_peak.map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let (what, limit, beside) = (&self.what, self.limit, &self.beside);
        format!("| {what} | {bound} {limit} | {middle:.2}{interval} | {beside} | {at_peak} | {verdict} |")
    }
}

/// The table of all targets that were measured.
pub fn markdown(tables: &[Table], layers: &[Roofline], alone: &[Alone]) -> String {
    let aims: Vec<Aim> =
        tables.iter().flat_map(|table| of_table(table, layers)).chain(alone.iter().flat_map(of_alone)).collect();
    let mut text = String::from("### Targets\n\n");
    text += "Wall time as a ratio of medians, with its 95 % interval; `at peak`: the ratio if all of our operations ran at the \
             machine's peak, beyond which only fewer operations help. The slowest layers come first in the tables \
             above.\n\n";
    text += "| | target | measured | beside | at peak | |\n|---|---|---|---|---|---|\n";
    for aim in &aims {
        let _ = writeln!(text, "{}", aim.row());
    }
    text
}

fn of_table(table: &Table, layers: &[Roofline]) -> Vec<Aim> {
    let mut aims = vec![];
    let threads = format!("{} thread{}", table.threads, if table.threads == 1 { "" } else { "s" });
    let ours = |start: &str| table.rows.iter().find(|row| row.name.starts_with(start));
    let mut add = |what: String, limit: f64, row: Option<&Row>, other: Option<&Row>, layers: Option<&Roofline>| {
        let (Some(row), Some(other)) = (row, other) else { return };
        let pairs = wall_pairs(row, other);
        let others = median(pairs.iter().map(|pair| pair.1).collect());
        let at_peak = layers.map(|l| l.milliseconds_at_peak() / table.threads as f64 / others);
        let measured = ratio_of_medians(&pairs);
        aims.push(Aim { what, limit, at_least: false, measured, beside: other.name.clone(), at_peak });
    };
    let is_student = table.name == "student";
    let (floats, integers) = (layers.first(), layers.get(1));
    let limit = match table.threads {
        1 | 2 if table.name != "nanodet-like" => OF_BEST_PEER[table.threads - 1],
        _ => NANODET_LIKE,
    };
    add(
        format!("{}, f32, {threads}", table.name),
        limit,
        ours("ours ("),
        best_peer(table, true),
        floats.filter(|_| is_student),
    );
    if let Some(int8) = ours("ours, int8 (") {
        let integers = integers.filter(|_| is_student);
        add(
            format!("{}, int8, {threads}", table.name),
            OF_BEST_INT8_PEER,
            Some(int8),
            best_peer(table, false),
            integers,
        );
        let limit = if int8.name.to_lowercase().contains("vnni") { WITH_VNNI } else { WITH_AVX2 };
        add(format!("{}, int8 beside f32, {threads}", table.name), limit, Some(int8), ours("ours ("), None);
        let (int8, floats) = (ours("ours, int8, held to Avx2"), ours("ours, held to Avx2"));
        add(format!("{}, int8 beside f32, both held to AVX2, {threads}", table.name), WITH_AVX2, int8, floats, None);
    }
    aims
}

fn of_alone(alone: &Alone) -> [Aim; 2] {
    let mut one: Vec<f64> = alone.times.iter().map(|t| t.0).collect();
    one.sort_by(f64::total_cmp);
    let tail = quantile(&one, 0.99) / median(one);
    let beside = |what: &str| format!("{what}, {} frames", alone.times.len());
    [
        Aim {
            what: format!("{}: two threads' speed-up", alone.what),
            limit: TWO_THREADS,
            at_least: true,
            measured: ratio_of_medians(&alone.times),
            beside: beside("itself in turn"),
            at_peak: None,
        },
        Aim {
            what: format!("{}: p99 by p50, 1 thread", alone.what),
            limit: TAIL,
            at_least: false,
            measured: (tail, tail, tail),
            beside: beside("alone"),
            at_peak: None,
        },
    ]
}

/// The peer with the least median, in f32 or in 8-bit integers.
fn best_peer(table: &Table, f32: bool) -> Option<&Row> {
    let peers = table.rows.iter().filter(|row| !row.name.starts_with("ours") && row.difference.is_some() == f32);
    let time = |row: &&Row| median(row.times.iter().flatten().map(|t| t.wall).collect());
    peers.min_by(|a, b| time(a).total_cmp(&time(b)))
}
