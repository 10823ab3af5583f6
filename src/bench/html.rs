//! The report as one web page that needs nothing else.

use super::report::Report;

/// The page.
pub fn page(report: &Report) -> String {
    report.text()
}
