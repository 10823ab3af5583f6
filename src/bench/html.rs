//! The report as a self-contained web page: verdict, latency percentiles, every frame over time,
//! and the stages of typical and of the slowest frames.

use peregrine_report::colour::{BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY_BLUE, YELLOW};
use peregrine_report::{Axis, Chart, Colour, Page, ReportError, Svg};

use super::record::{BenchRun, FrameRecord, LatencyStage, STAGES};
use super::report::BenchReport;
use super::verdict::Verdict;

/// Most columns of the chart over time; each shows its slowest frame, so that no peak is lost.
const MAX_COLUMNS: usize = 740;

/// Most points of the percentile curve, besides its last.
const MAX_POINTS: f64 = 1500.0;

/// In the order of [`LatencyStage::ALL`].
const STAGE_COLOURS: [Colour; STAGES] = [GREY, PURPLE, ORANGE, SKY_BLUE, BLUE, GREEN, YELLOW, BLACK, RED, SKY_BLUE];

/// The page.
///
/// # Errors
/// If a chart cannot be drawn.
pub fn page(report: &BenchReport, run: &BenchRun) -> Result<Page, ReportError> {
    let mut page = Page::new(&format!("Latency of {} under {}", report.subject.model, report.profile.name));
    if let Some(judgement) = &report.judgement {
        page.badge(judgement.verdict.title(), verdict_colour(judgement.verdict));
        page.list(&judgement.reasons);
    }
    let deadline_ms = report.judgement.is_some().then_some(report.profile.deadline_ms);
    let frames = run.records.len();
    let lost = run.records.iter().filter(|record| record.latency().is_none()).count();
    page.section("Latency by percentile");
    page.figure(
        &percentile_chart(run, deadline_ms)?,
        &if lost > 0 {
            format!("{lost} of {frames} frames have no result and are to the right of the curve.")
        } else {
            String::new()
        },
    );
    page.table(&percentile_table(report));
    page.section("Every frame over time");
    page.figure(&time_chart(run, deadline_ms)?, "Red: a miss. Pale, up to the top: a frame without a result.");
    page.section("Time by stage");
    let samples = sample_frames(run);
    if samples.is_empty() {
        page.paragraph("No frame was processed.");
    } else {
        let caption = "Single frames at the percentiles of latency among the processed frames.";
        page.figure(&stage_chart(run, &samples)?, caption);
        page.table(&stage_table(run, &samples));
    }
    page.section("Report");
    page.preformatted(&report.text());
    Ok(page)
}

fn verdict_colour(verdict: Verdict) -> Colour {
    match verdict {
        Verdict::Met => GREEN,
        Verdict::Missed => RED,
        Verdict::NotProvable => GREY,
    }
}

fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// A latency axis from 0 to a tenth above the largest value and the deadline, and its upper end.
fn latency_axis(largest_ms: f64, deadline_ms: Option<f64>) -> (Axis, f64) {
    let top_ms = 1.1 * largest_ms.max(deadline_ms.unwrap_or(0.0)).max(0.001);
    (Axis::linear(0.0..top_ms, " ms"), top_ms)
}

/// Latency over the percentile. Each additional nine (90 %, 99 %, …) takes the same width, which
/// shows the tail.
fn percentile_chart(run: &BenchRun, deadline_ms: Option<f64>) -> Result<Svg, ReportError> {
    let frames = run.records.len() as f64;
    let mut latencies: Vec<_> = run.records.iter().filter_map(FrameRecord::latency).collect();
    latencies.sort_unstable();
    let nines = frames.log10().max(1.0);
    let x = |quantile: f64| (-(1.0 - quantile).max(1.0 / frames.max(1.0)).log10()).min(nines);
    let ticks = [(0.0, "0 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];
    let shown = ticks.into_iter().map(|(quantile, label): (f64, _)| (-(1.0 - quantile).log10(), label.to_owned()));
    let axis = Axis::linear(0.0..nines, "").with_ticks(shown.filter(|&(at, _)| at <= nines).collect());
    let (latency, _) = latency_axis(latencies.last().copied().map_or(0.0, milliseconds), deadline_ms);
    let mut chart = Chart::new("Latency from the scheduled instant by percentile", axis, latency);
    let mut points: Vec<(f64, f64)> = vec![];
    for (rank, &ns) in latencies.iter().enumerate() {
        let at = x(rank as f64 / frames);
        let distinct = points.last().is_none_or(|&(last, _)| at - last >= nines / MAX_POINTS);
        if distinct || rank + 1 == latencies.len() {
            points.push((at, milliseconds(ns)));
        }
    }
    if !points.is_empty() {
        chart.line(None, BLUE, points);
    }
    if let Some(ms) = deadline_ms {
        chart.horizontal_rule(ms, "deadline");
    }
    chart.svg()
}

fn percentile_table(report: &BenchReport) -> Vec<Vec<String>> {
    let names = report.latency.first().map(|latency| &latency.percentiles[..]).unwrap_or_default();
    let header = std::iter::once("ms").chain(names.iter().map(|(name, _)| *name)).map(str::to_owned).collect();
    let row = |latency: &super::report::LatencySummary| {
        let figure = |ms: Option<f64>| ms.map_or("none".to_owned(), |ms| format!("{ms:.2}"));
        let figures = latency.percentiles.iter().map(|&(_, ms)| figure(ms));
        std::iter::once(latency.of.to_owned()).chain(figures).collect()
    };
    std::iter::once(header).chain(report.latency.iter().map(row)).collect()
}

/// The slowest frame of each column over time.
fn time_chart(run: &BenchRun, deadline_ms: Option<f64>) -> Result<Svg, ReportError> {
    let count = run.records.len();
    let slowest =
        |frames: &[FrameRecord]| frames.iter().filter_map(FrameRecord::latency).max().map_or(0.0, milliseconds);
    let seconds = (run.elapsed as f64 / 1e9).max(0.001);
    let (latency, top_ms) = latency_axis(slowest(&run.records), deadline_ms);
    let mut chart = Chart::new("Latency of each frame over time", Axis::linear(0.0..seconds, " s"), latency);
    let columns = count.clamp(1, MAX_COLUMNS);
    let x = |column: usize| column as f64 / columns as f64 * seconds;
    for column in 0..columns {
        let frames = &run.records[column * count / columns..(column + 1) * count / columns];
        let missed = deadline_ms.is_some() && frames.iter().any(FrameRecord::missed);
        // A frame without a result has no height of its own.
        let lost = !frames.iter().all(FrameRecord::has_result);
        let (height, opacity) = if lost { (top_ms, 0.5) } else { (slowest(frames), 1.0) };
        chart.rectangle(x(column)..x(column + 1), 0.0..height, if missed { RED } else { BLUE }, opacity);
    }
    if let Some(ms) = deadline_ms {
        chart.horizontal_rule(ms, "deadline");
    }
    chart.svg()
}

/// Single frames, since percentiles of stages do not add up to a frame's latency.
fn sample_frames(run: &BenchRun) -> Vec<(&'static str, &FrameRecord)> {
    let mut processed: Vec<_> = run.records.iter().filter_map(|r| Some((r.until_done()?, r))).collect();
    processed.sort_unstable_by_key(|&(latency, record)| (latency, record.index));
    let at = |quantile: f64| {
        let rank = (quantile * processed.len() as f64).ceil() as usize;
        processed.get(rank.max(1) - 1).map(|&(_, record)| record)
    };
    let samples = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("slowest", 1.0)];
    samples.into_iter().filter_map(|(name, quantile)| Some((name, at(quantile)?))).collect()
}

fn stage_ms(record: &FrameRecord, stage: LatencyStage) -> f64 {
    milliseconds(record.stage(stage).unwrap_or(0))
}

fn stage_chart(run: &BenchRun, samples: &[(&str, &FrameRecord)]) -> Result<Svg, ReportError> {
    let total = |record: &FrameRecord| milliseconds(record.until_done().unwrap_or(0));
    let largest = samples.iter().map(|(_, record)| total(record)).fold(0.001, f64::max);
    let rows = Axis::rows(samples.iter().map(|(name, _)| *name));
    // Room at the right for the total.
    let mut chart = Chart::new("Stages of single frames", Axis::linear(0.0..1.15 * largest, " ms"), rows);
    for &stage in run.layer.stages() {
        chart.legend_entry(stage.name(), STAGE_COLOURS[stage as usize]);
    }
    for (row, (_, record)) in samples.iter().enumerate() {
        let row = row as f64;
        let mut from = 0.0;
        for (stage, colour) in LatencyStage::ALL.into_iter().zip(STAGE_COLOURS) {
            let to = from + stage_ms(record, stage);
            chart.rectangle(from..to, row + 0.1..row + 0.9, colour, 1.0);
            from = to;
        }
        chart.note(from + 0.01 * largest, row + 0.5, &format!("{:.2} ms", total(record)));
    }
    chart.svg()
}

fn stage_table(run: &BenchRun, samples: &[(&str, &FrameRecord)]) -> Vec<Vec<String>> {
    let stages = run.layer.stages();
    let header = std::iter::once("ms").chain(stages.iter().map(|stage| stage.name())).map(str::to_owned).collect();
    let row = |&(name, record): &(&str, &FrameRecord)| {
        let figures = stages.iter().map(|&stage| format!("{:.2}", stage_ms(record, stage)));
        std::iter::once(name.to_owned()).chain(figures).collect()
    };
    std::iter::once(header).chain(samples.iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report_of;
    use crate::simulation::{profile, simulate, Durations};

    fn page_of(frames: usize, durations: impl Fn(usize) -> Option<Durations>) -> String {
        let profile = profile(frames);
        let run = simulate(&profile, durations);
        page(&report_of(&run, profile), &run).unwrap().html()
    }

    #[test]
    fn the_page_is_self_contained_and_has_the_verdict() {
        let page = page_of(2000, |frame| Some([1, if frame == 50 { 900 } else { 5 }, 1]));
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        assert!(page.contains(">MISSED<") && page.contains("attributed to inference"));
        assert_eq!((page.matches("<svg").count(), page.matches("</svg>").count()), (3, 3));
        assert!(!page.contains("http") && !page.contains("NaN") && !page.contains("inf\""));
        assert!(page.len() < 200_000, "{} bytes", page.len());
    }

    #[test]
    fn runs_without_any_result_or_of_a_single_frame_have_a_page() {
        for page in [page_of(30, |_| None), page_of(1, |_| Some([0, 0, 0]))] {
            assert!(!page.contains("NaN") && page.ends_with("</html>\n"));
        }
    }

    #[test]
    fn text_from_outside_is_escaped() {
        let mut profile = profile(3);
        profile.name = "<script>".into();
        let run = simulate(&profile, |_| Some([1, 1, 1]));
        assert!(!page(&report_of(&run, profile), &run).unwrap().html().contains("<script>"));
    }
}
