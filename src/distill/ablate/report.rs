//! The table: JSON for programs, Markdown for the repository, and an HTML page with forest plots.

use std::fmt::Write;

use peregrine_report::{colour, Axis, Chart, Page, ReportError};
use serde::Serialize;

use super::config::Ablation;
use super::metrics::CellResult;
use super::statistics::{Finding, Summary};

/// The whole comparison; values are fractions of one.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    pub title: String,
    pub notes: Vec<String>,
    pub reference: String,
    pub seeds: Vec<u64>,
    /// Names of the columns.
    pub metrics: Vec<String>,
    pub rows: Vec<TableRow>,
}

/// One variant of the student.
#[derive(Debug, Clone, Serialize)]
pub struct TableRow {
    pub name: String,
    pub note: String,
    pub latency_ms: Option<f64>,
    /// One per metric.
    pub figures: Vec<Option<Figure>>,
    pub seeds: Vec<CellResult>,
}

/// A row's value of one metric.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub value: Summary,
    /// Paired difference from the reference by seed; `None` for the reference itself and without a
    /// common seed.
    pub difference: Option<Summary>,
    pub finding: Finding,
    /// Whether this row's own interval is entirely above the reference's.
    pub intervals_apart: bool,
}

impl Table {
    /// Summarises the cells' results.
    pub fn new(ablation: &Ablation, results: Vec<CellResult>) -> Self {
        let mut metrics: Vec<String> = Vec::new();
        for name in results.iter().filter_map(|r| r.figures.as_ref()).flat_map(|f| f.keys()) {
            if !metrics.contains(name) {
                metrics.push(name.clone());
            }
        }
        let of = |row: usize, metric: &str| -> Vec<(u64, f64)> {
            let cells = results.iter().filter(|r| r.row == row);
            cells.filter_map(|r| Some((r.seed, *r.figures.as_ref()?.get(metric)?))).collect()
        };
        let reference = ablation.rows.iter().position(|r| r.name == ablation.reference).unwrap_or(0);
        let plain = |values: &[(u64, f64)]| Summary::of(&values.iter().map(|v| v.1).collect::<Vec<_>>());
        let figure = |row: usize, metric: &str| {
            let (ours, theirs) = (of(row, metric), of(reference, metric));
            let value = plain(&ours)?;
            let difference = (row != reference).then(|| Summary::of_differences(&ours, &theirs)).flatten();
            Some(Figure {
                value,
                difference,
                finding: difference.map_or(Finding::Open, |d| d.finding()),
                intervals_apart: plain(&theirs).is_some_and(|t| value.is_above(&t)),
            })
        };
        let row = |index: usize| TableRow {
            name: ablation.rows[index].name.clone(),
            note: ablation.rows[index].note.clone(),
            latency_ms: results.iter().filter(|r| r.row == index).find_map(|r| r.latency_ms),
            figures: metrics.iter().map(|m| figure(index, m)).collect(),
            seeds: results.iter().filter(|r| r.row == index).cloned().collect(),
        };
        Self {
            title: ablation.title.clone(),
            notes: ablation.notes.clone(),
            reference: ablation.reference.clone(),
            seeds: ablation.seeds.clone(),
            rows: (0..ablation.rows.len()).map(row).collect(),
            metrics,
        }
    }

    fn legend(&self) -> String {
        format!(
            "Percent: mean over seeds {:?} ± half the 95 % confidence interval (Student's t), then the paired difference from \
             *{}* by seed, with its own interval. ▲ and ▼ mark differences whose interval excludes zero; ▲▲ those where \
             the two rows' own intervals are disjoint as well. A single seed gives no interval. Latency: median of one \
             640×360 image through the whole pipeline on one thread, rows measured alternately.",
            self.seeds, self.reference
        )
    }
}

/// `61.4 ± 0.8`, in percent.
fn percent(s: &Summary, signed: bool) -> String {
    let mean = 100.0 * s.mean;
    let mean = if signed { format!("{mean:+.1}") } else { format!("{mean:.1}") };
    s.half_width.map_or(mean.clone(), |w| format!("{mean} ± {:.1}", 100.0 * w))
}

fn mark(figure: &Figure) -> &'static str {
    match figure.finding {
        Finding::Better if figure.intervals_apart => " ▲▲",
        Finding::Better => " ▲",
        Finding::Worse => " ▼",
        Finding::Open => "",
    }
}

fn text(figure: &Option<Figure>) -> String {
    let Some(figure) = figure else { return "–".into() };
    let difference = figure.difference.map_or(String::new(), |d| format!(" ({}){}", percent(&d, true), mark(figure)));
    percent(&figure.value, false) + &difference
}

/// The number of finished and failed seeds of a row.
fn seeds(row: &TableRow) -> String {
    let done = row.seeds.iter().filter(|s| s.figures.is_some()).count();
    let failed = row.seeds.iter().filter(|s| s.failure.is_some()).count();
    let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    format!("{done} of {}{failed}", row.seeds.len())
}

fn latency(row: &TableRow) -> String {
    row.latency_ms.map_or("–".into(), |ms| format!("{ms:.1} ms"))
}

/// The table in Markdown.
pub fn markdown(table: &Table) -> String {
    let mut out = format!("# {}\n\n", table.title);
    for note in &table.notes {
        let _ = writeln!(out, "- {note}");
    }
    let _ = writeln!(out, "\n| row | {} | latency | seeds | |", table.metrics.join(" | "));
    let _ = writeln!(out, "|---|{}---|---|---|", "---|".repeat(table.metrics.len()));
    for row in &table.rows {
        let figures: Vec<String> = row.figures.iter().map(text).collect();
        let figures = if figures.is_empty() { String::new() } else { format!(" {} |", figures.join(" | ")) };
        let _ = writeln!(out, "| {} |{figures} {} | {} | {} |", row.name, latency(row), seeds(row), row.note);
    }
    let _ = writeln!(out, "\n{}", table.legend());
    for failure in table.rows.iter().flat_map(|r| &r.seeds).filter_map(|s| s.failure.as_ref()) {
        let _ = writeln!(out, "\nFailed: {failure}");
    }
    out
}

/// The table as a self-contained page, with each metric's differences drawn.
///
/// # Errors
/// When a figure is not finite.
pub fn page(table: &Table) -> Result<Page, ReportError> {
    let mut page = Page::new(&table.title);
    page.list(&table.notes);
    let header = [&["row".to_owned()][..], &table.metrics, &["latency", "seeds", ""].map(str::to_owned)].concat();
    let row = |row: &TableRow| {
        let figures: Vec<String> = row.figures.iter().map(text).collect();
        [&[row.name.clone()][..], &figures, &[latency(row), seeds(row), row.note.clone()]].concat()
    };
    page.table(&std::iter::once(header).chain(table.rows.iter().map(row)).collect::<Vec<_>>());
    page.paragraph(&table.legend());
    for (column, metric) in table.metrics.iter().enumerate() {
        if let Some(chart) = forest(table, column) {
            page.section(&format!("{metric}: difference from {} in points", table.reference));
            page.figure(&chart.svg()?, "");
        }
    }
    for failure in table.rows.iter().flat_map(|r| &r.seeds).filter_map(|s| s.failure.as_ref()) {
        page.paragraph(&format!("Failed: {failure}"));
    }
    Ok(page)
}

/// Height of the forest plot's rows and of its horizontal axis.
const ROW: u32 = 40;
const AXIS: u32 = 80;

/// A forest plot: mean and interval of each row that has a difference; `None` if none has.
fn forest(table: &Table, column: usize) -> Option<Chart> {
    let rows: Vec<(&str, Summary)> =
        table.rows.iter().filter_map(|r| Some((r.name.as_str(), r.figures[column].as_ref()?.difference?))).collect();
    let bounds = |s: &Summary| [-1.0, 0.0, 1.0].map(|sign| 100.0 * (s.mean + sign * s.half_width.unwrap_or(0.0)));
    let limit = 1.05 * rows.iter().flat_map(|(_, s)| bounds(s)).fold(1.0, |most, bound| bound.abs().max(most));
    let names = Axis::rows(rows.iter().map(|(name, _)| *name));
    let mut chart = Chart::new(&table.metrics[column], Axis::linear(-limit..limit, ""), names)
        .with_height(ROW * rows.len() as u32 + AXIS);
    chart.vertical_rule(0.0);
    for (index, (_, summary)) in rows.iter().enumerate() {
        let colour = match summary.finding() {
            Finding::Better => colour::GREEN,
            Finding::Worse => colour::RED,
            Finding::Open => colour::GREY,
        };
        let [from, mean, to] = bounds(summary);
        chart.interval(index, from, mean, to, colour);
    }
    (!rows.is_empty()).then_some(chart)
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Figures;
    use super::*;

    fn table() -> Table {
        let ablation = Ablation::parse(
            "title = 'T'\nseeds = [1, 2]\nreference = 'alone'\nevaluate = ['val']\n\
             [base]\n[[base.data]]\nfolder = 'x'\nshare = 1.0\n\
             [[row]]\nname = 'alone'\n[[row]]\nname = 'better'\n[[row]]\nname = 'begun'\n",
        )
        .unwrap();
        let cell = |row, seed, value: Option<f64>| CellResult {
            row,
            seed,
            figures: value.map(|v| Figures::from([("val AP50".to_owned(), v)])),
            ..Default::default()
        };
        let values = [(0, 1, Some(0.30)), (0, 2, Some(0.32)), (1, 1, Some(0.40)), (1, 2, Some(0.42)), (2, 1, None)];
        Table::new(&ablation, values.map(|(r, s, v)| cell(r, s, v)).into())
    }

    #[test]
    fn a_row_is_compared_with_the_reference_by_seed() {
        let markdown = markdown(&table());
        // Each row's own interval is wide (t(1) · 1 %), but the differences agree.
        assert!(markdown.contains("| alone | 31.0 ± 12.7 | – | 2 of 2 |"), "{markdown}");
        assert!(markdown.contains("| better | 41.0 ± 12.7 (+10.0 ± 0.0) ▲ | – | 2 of 2 |"), "{markdown}");
        assert!(markdown.contains("| begun | – | – | 0 of 1 |"), "{markdown}");
    }

    #[test]
    fn the_page_draws_each_difference_once() {
        let html = page(&table()).unwrap().html();
        assert_eq!(html.matches("<circle").count(), 1);
        assert!(html.contains("+10.0"));
    }
}
