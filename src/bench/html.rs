//! The report as one web page that needs nothing else: the verdict, percentiles, every frame over time, and where the
//! time of typical and of the slowest frames went.

use std::fmt::Write;

use super::record::{FrameRecord, Run, Stage, STAGES};
use super::report::Report;
use super::verdict::Verdict;

/// Size of a chart and of the margins for its labels, in SVG units.
const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 12.0;

/// Most columns of the chart over time; each shows the slowest of its frames, so that no peak is lost.
const MOST_COLUMNS: usize = 740;

/// Colours that those with colour-blindness tell apart too (Okabe & Ito 2008), in the order of [`Stage::ALL`].
const STAGE_COLOURS: [&str; STAGES] =
    ["#999999", "#cc79a7", "#e69f00", "#56b4e9", "#0072b2", "#009e73", "#f0e442", "#000000", "#d55e00"];
const MISS: &str = "#d55e00";
const FINE: &str = "#0072b2";

const STYLE: &str = "\
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 860px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.1em; margin-top: 2em; }
.badge { color: #fff; border-radius: 4px; padding: .1em .5em; }
table { border-collapse: collapse; } td, th { padding: .15em .8em; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid #8884; }
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: currentColor; }
.axis { stroke: #8888; } .deadline { stroke: #d55e00; stroke-dasharray: 6 4; } .over { paint-order: stroke; stroke: Canvas; stroke-width: 4px; }
pre { overflow-x: auto; font-size: 13px; }";

/// The page.
pub fn page(report: &Report, run: &Run) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_page(&mut out, report, run);
    out
}

fn write_page(out: &mut String, report: &Report, run: &Run) -> std::fmt::Result {
    let title = format!("Latency of {} under {}", report.subject.model, report.profile.name);
    let title = escape(&title);
    writeln!(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
    writeln!(out, "<title>{title}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{title}</h1>")?;
    if let Some(judgement) = &report.judgement {
        let colour = match judgement.verdict {
            Verdict::Met => "#009e73",
            Verdict::Missed => MISS,
            Verdict::NotProvable => "#666666",
        };
        let title = judgement.verdict.title();
        writeln!(out, "<p><strong class=\"badge\" style=\"background:{colour}\">{title}</strong></p>\n<ul>")?;
        for reason in &judgement.reasons {
            writeln!(out, "<li>{}</li>", escape(reason))?;
        }
        writeln!(out, "</ul>")?;
    }
    let deadline_ms = report.judgement.is_some().then_some(report.profile.deadline_ms);
    writeln!(out, "<h2>Latency by percentile</h2>")?;
    write_percentile_chart(out, run, deadline_ms)?;
    write_table(out, report)?;
    writeln!(out, "<h2>Every frame over time</h2>")?;
    write_time_chart(out, run, deadline_ms)?;
    writeln!(out, "<h2>Where the time went</h2>")?;
    write_stage_chart(out, run)?;
    writeln!(out, "<h2>Report</h2>\n<pre>{}</pre>\n</body>\n</html>", escape(&report.text()))
}

/// A chart's frame: its vertical scale in milliseconds, and the deadline.
struct Axis {
    top_ms: f64,
}

impl Axis {
    fn new(largest_ms: f64, deadline_ms: Option<f64>) -> Self {
        Self { top_ms: 1.1 * largest_ms.max(deadline_ms.unwrap_or(0.0)).max(0.001) }
    }

    fn y(&self, ms: f64) -> f64 {
        HEIGHT - BOTTOM - (ms / self.top_ms).min(1.0) * (HEIGHT - BOTTOM - TOP)
    }

    fn open(&self, out: &mut String, label: &str) -> std::fmt::Result {
        writeln!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">")?;
        let step = nice_step(self.top_ms / 4.0);
        for i in 0..=(self.top_ms / step) as usize {
            let (ms, y) = (i as f64 * step, self.y(i as f64 * step));
            writeln!(out, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>")?;
            let (x, y) = (LEFT - 6.0, y + 4.0);
            let digits = (-step.log10().floor()).max(0.0) as usize;
            writeln!(out, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{ms:.digits$} ms</text>")?;
        }
        Ok(())
    }

    /// The deadline over all that was drawn, and the end.
    fn close(&self, out: &mut String, deadline_ms: Option<f64>) -> std::fmt::Result {
        if let Some(y) = deadline_ms.map(|ms| self.y(ms)) {
            writeln!(out, "<line class=\"deadline\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>")?;
            let y = y - 4.0;
            writeln!(out, "<text class=\"over\" x=\"{WIDTH}\" y=\"{y:.1}\" text-anchor=\"end\">deadline</text>")?;
        }
        writeln!(out, "</svg>")
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&step| step >= least).unwrap_or(10.0 * power)
}

fn tick(out: &mut String, x: f64, label: &str) -> std::fmt::Result {
    let y = HEIGHT - BOTTOM + 18.0;
    // A label at the right border would be cut off if it were centred.
    let anchor = if x > WIDTH - 30.0 { "end" } else { "middle" };
    writeln!(out, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{label}</text>")
}

/// Latency of each frame in milliseconds, the fastest first; frames without a result come last.
fn sorted(run: &Run) -> Vec<Option<f64>> {
    let mut latencies: Vec<_> = run.records.iter().map(FrameRecord::latency).collect();
    latencies.sort_unstable_by_key(|latency| latency.unwrap_or(u64::MAX));
    latencies.into_iter().map(|latency| latency.map(|ns| ns as f64 / 1e6)).collect()
}

/// Each nine of the percentile takes the same width, so that the tail is seen.
fn write_percentile_chart(out: &mut String, run: &Run, deadline_ms: Option<f64>) -> std::fmt::Result {
    let latencies = sorted(run);
    let count = latencies.len();
    let axis = Axis::new(latencies.iter().flatten().last().copied().unwrap_or(0.0), deadline_ms);
    axis.open(out, "Latency from the scheduled instant by percentile")?;
    let nines = (count as f64).log10().max(1.0);
    let x =
        |share: f64| LEFT + (WIDTH - LEFT - 40.0) * (-(1.0 - share).max(1.0 / count as f64).log10() / nines).min(1.0);
    let mut points = String::new();
    let mut last_x = f64::NEG_INFINITY;
    for (i, ms) in latencies.iter().enumerate() {
        let at = x(i as f64 / count as f64);
        // A point each half unit is all that can be seen; the last always counts.
        let drawn = at - last_x >= 0.5 || i + 1 == count;
        if let (Some(ms), true) = (ms, drawn) {
            write!(points, "{at:.1},{:.1} ", axis.y(*ms))?;
            last_x = at;
        }
    }
    writeln!(out, "<polyline fill=\"none\" stroke=\"{FINE}\" stroke-width=\"2\" points=\"{}\"/>", points.trim_end())?;
    for (share, label) in [(0.0, "0 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")] {
        if -(1.0f64 - share).log10() <= nines {
            tick(out, x(share), label)?;
        }
    }
    axis.close(out, deadline_ms)?;
    let lost = latencies.iter().filter(|latency| latency.is_none()).count();
    if lost > 0 {
        writeln!(out, "<p>The curve ends where the {lost} of {count} frames without a result begin.</p>")?;
    }
    Ok(())
}

fn write_table(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "<table>\n<tr><th>ms</th>")?;
    for (name, _) in report.latency.first().map(|l| &l.percentiles[..]).unwrap_or_default() {
        write!(out, "<th>{name}</th>")?;
    }
    writeln!(out, "</tr>")?;
    for latency in &report.latency {
        write!(out, "<tr><td>{}</td>", latency.of)?;
        for (_, ms) in &latency.percentiles {
            write!(out, "<td>{}</td>", ms.map_or("none".into(), |ms| format!("{ms:.2}")))?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</table>")
}

fn write_time_chart(out: &mut String, run: &Run, deadline_ms: Option<f64>) -> std::fmt::Result {
    let count = run.records.len();
    let ms = |record: &FrameRecord| record.latency().map(|ns| ns as f64 / 1e6);
    let axis = Axis::new(run.records.iter().filter_map(ms).fold(0.0, f64::max), deadline_ms);
    axis.open(out, "Latency of each frame over time")?;
    let columns = count.clamp(1, MOST_COLUMNS);
    let width = (WIDTH - LEFT) / columns as f64;
    for column in 0..columns {
        let frames = &run.records[column * count / columns..(column + 1) * count / columns];
        let missed = deadline_ms.is_some() && frames.iter().any(FrameRecord::missed);
        // Frames without a result have no height of their own: they reach to the top.
        let lost = !frames.iter().all(FrameRecord::has_result);
        let slowest = if lost { axis.top_ms } else { frames.iter().filter_map(ms).fold(0.0, f64::max) };
        let (x, y) = (LEFT + column as f64 * width, axis.y(slowest));
        let (height, colour) = (HEIGHT - BOTTOM - y, if missed { MISS } else { FINE });
        let opacity = if lost { 0.5 } else { 1.0 };
        writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.2}\" height=\"{height:.1}\" fill=\"{colour}\" opacity=\"{opacity}\"/>",
            width.max(0.8)
        )?;
    }
    let seconds = run.elapsed as f64 / 1e9;
    for i in 0..=4 {
        tick(out, LEFT + (WIDTH - LEFT) * i as f64 / 4.0, &format!("{:.1} s", seconds * i as f64 / 4.0))?;
    }
    axis.close(out, deadline_ms)?;
    writeln!(out, "<p>Orange: a miss; pale to the top: a frame without a result.</p>")
}

/// Real frames, since stage percentiles do not add up to a frame's.
fn write_stage_chart(out: &mut String, run: &Run) -> std::fmt::Result {
    let mut passed: Vec<_> = run.records.iter().filter_map(|r| Some((r.until_done()?, r))).collect();
    passed.sort_unstable_by_key(|&(latency, record)| (latency, record.index));
    let Some(&(largest, _)) = passed.last() else {
        return writeln!(out, "<p>No frame was processed.</p>");
    };
    let at = |share: f64| ((share * passed.len() as f64).ceil() as usize).clamp(1, passed.len()) - 1;
    let rows =
        [("p50", at(0.5)), ("p90", at(0.9)), ("p99", at(0.99)), ("p99.9", at(0.999)), ("slowest", passed.len() - 1)];
    let height = rows.len() as f64 * 26.0;
    writeln!(out, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Stages of single frames\">")?;
    for (row, (name, rank)) in rows.into_iter().enumerate() {
        let (latency, record) = passed[rank];
        let y = row as f64 * 26.0;
        writeln!(out, "<text x=\"0\" y=\"{:.0}\">{name}</text>", y + 15.0)?;
        let mut x = LEFT;
        for (stage, colour) in Stage::ALL.into_iter().zip(STAGE_COLOURS) {
            let ns = record.stage(stage).unwrap_or(0) as f64;
            let width = ns / largest.max(1) as f64 * (WIDTH - LEFT - 90.0);
            writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"20\" fill=\"{colour}\"><title>{} {:.2} ms</title></rect>",
                stage.name(),
                ns / 1e6
            )?;
            x += width;
        }
        writeln!(out, "<text x=\"{:.1}\" y=\"{:.0}\">{:.2} ms</text>", x + 6.0, y + 15.0, latency as f64 / 1e6)?;
    }
    writeln!(
        out,
        "</svg>\n<p>Single frames, those at the percentiles of latency among the frames that were processed: "
    )?;
    for (stage, colour) in run.layer.stages().iter().map(|&s| (s, STAGE_COLOURS[s as usize])) {
        writeln!(out, "<span style=\"color:{colour}\">&#9632;</span> {} ", stage.name())?;
    }
    writeln!(out, "</p>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report_of;
    use crate::simulation::{profile, simulate, Durations};

    fn page_of(frames: usize, durations: impl Fn(usize) -> Option<Durations>) -> String {
        let profile = profile(frames);
        let run = simulate(&profile, durations);
        page(&report_of(&run, profile), &run)
    }

    #[test]
    fn the_page_is_whole_self_contained_and_tells_the_verdict() {
        let page = page_of(2000, |frame| Some([1, if frame == 50 { 900 } else { 5 }, 1]));
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        assert!(page.contains(">MISSED<") && page.contains("go back to inference"));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        assert!(!page.contains("http") && !page.contains("NaN") && !page.contains("inf\""));
        assert!(page.len() < 200_000, "{} bytes", page.len());
    }

    #[test]
    fn runs_without_any_result_and_of_a_single_frame_have_a_page_too() {
        for page in [page_of(30, |_| None), page_of(1, |_| Some([0, 0, 0]))] {
            assert!(!page.contains("NaN") && page.ends_with("</html>\n"));
        }
    }

    #[test]
    fn text_from_outside_is_escaped() {
        let mut profile = profile(3);
        profile.name = "<script>".into();
        let run = simulate(&profile, |_| Some([1, 1, 1]));
        assert!(!page(&report_of(&run, profile), &run).contains("<script>"));
    }

    #[test]
    fn steps_are_round() {
        for (least, step) in [(0.9, 1.0), (1.1, 2.0), (3.0, 5.0), (60.0, 100.0), (0.03, 0.05)] {
            assert!((nice_step(least) / step - 1.0).abs() < 1e-9);
        }
    }
}
