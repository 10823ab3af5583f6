//! `curves.svg` in a run's folder: the loss and its terms over the steps, from `log.jsonl`.

use std::path::Path;

use peregrine_report::{colour, Axis, Chart, Colour, ReportError};
use serde_json::Value;

/// The terms drawn, as the log names them.
const TERMS: [(&str, Colour); 8] = [
    ("loss", colour::BLACK),
    ("class", colour::ORANGE),
    ("teacher", colour::SKY_BLUE),
    ("bbox", colour::GREEN),
    ("box_distribution", colour::BLUE),
    ("segmentation", colour::RED),
    ("scene", colour::GREY),
    // The sum of the methods' losses.
    ("methods", colour::PURPLE),
];

/// Draws `log` (lines of JSON) into `path`. Lines without a loss are skipped.
///
/// # Errors
/// When the folder cannot be written to.
pub fn draw(log: &str, path: &Path) -> Result<(), ReportError> {
    chart(log).write(path)
}

fn chart(log: &str) -> Chart {
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let series = TERMS.map(|(name, colour)| {
        let value = |line: &Value| match term(line, name) {
            Value::Array(terms) => Some(terms.iter().filter_map(Value::as_f64).sum()),
            value => value.as_f64(),
        };
        let points = lines.iter().filter_map(|line| Some((line["step"].as_f64()?, value(line)?)));
        (name, colour, points.collect::<Vec<(f64, f64)>>())
    });
    // A term that is always zero, such as a teacher's without a teacher, gets no curve.
    let series: Vec<_> = series.into_iter().filter(|(.., points)| points.iter().any(|p| p.1 != 0.0)).collect();
    let all = || series.iter().flat_map(|(.., points)| points);
    let last = all().map(|p| p.0).fold(1.0, f64::max);
    // The first steps are far above all others; the axis is scaled to those after them.
    let settled = all().filter(|p| p.0 > 0.1 * last).map(|p| p.1).fold(0.0, f64::max);
    let top = if settled > 0.0 { 1.1 * settled } else { 1.0 };
    let axes = [(last, "step"), (top, "loss")].map(|(end, label)| Axis::linear(0.0..end, "").with_label(label));
    let [steps, loss] = axes;
    let mut chart = Chart::new("training loss", steps, loss).with_height(640);
    for (name, colour, points) in series {
        chart.line(Some(name), colour, points);
    }
    chart
}

/// A term of a line of the log; `box_distribution` was called `sides` once.
fn term<'a>(line: &'a Value, name: &str) -> &'a Value {
    match &line[name] {
        Value::Null if name == "box_distribution" => &line["sides"],
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_term_that_is_not_always_zero_becomes_a_curve() {
        let log = "{\"step\":10,\"loss\":3.0,\"class\":1.0,\"teacher\":0.0,\"methods\":[0.5,0.25]}\n\
                   {\"step\":10,\"reconfigured\":{}}\nhalf a li\n{\"step\":20,\"loss\":2.0,\"class\":0.5,\"teacher\":0.0}\n";
        let svg = chart(log).svg().unwrap();
        let svg = svg.as_str();
        assert_eq!(svg.matches("stroke-width=\"3\"").count(), 3, "{svg}");
        assert!(svg.contains("methods") && !svg.contains("teacher"));
    }
}
