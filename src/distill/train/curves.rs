//! `curves.svg` in a run's folder: the loss and its terms over the steps, from `log.jsonl`.

use std::fmt::Write;
use std::path::Path;

use peregrine_core::files::write_atomically;
use serde_json::Value;

/// The terms that are drawn, as the log names them, in colours that people with colour blindness
/// can distinguish (Okabe & Ito 2008).
const TERMS: [(&str, &str); 6] = [
    ("loss", "#000000"),
    ("class", "#e69f00"),
    ("teacher", "#56b4e9"),
    ("bbox", "#009e73"),
    ("box_distribution", "#0072b2"),
    ("segmentation", "#d55e00"),
];
/// The sum of the methods' losses.
const METHODS: (&str, &str) = ("methods", "#cc79a7");

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 50.0;
const BOTTOM: f64 = 30.0;
const LEGEND: f64 = 130.0;

/// Draws `log` (lines of JSON) into `path`. Lines without a loss are skipped.
///
/// # Errors
/// When the folder cannot be written to.
pub fn draw(log: &str, path: &Path) -> anyhow::Result<()> {
    Ok(write_atomically(path, svg(log).as_bytes())?)
}

fn svg(log: &str) -> String {
    let lines: Vec<Value> = log.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let series = TERMS.iter().chain([&METHODS]).map(|(name, colour)| {
        let value = |line: &Value| match term(line, name) {
            Value::Array(terms) => Some(terms.iter().filter_map(Value::as_f64).sum()),
            value => value.as_f64(),
        };
        let points: Vec<(f64, f64)> = lines.iter().filter_map(|l| Some((l["step"].as_f64()?, value(l)?))).collect();
        (*name, *colour, points)
    });
    // A term that is always zero, such as the teacher's in a run without one, is not drawn.
    let series: Vec<_> = series.filter(|s| s.2.iter().any(|p| p.1 != 0.0)).collect();
    let all = || series.iter().flat_map(|s| &s.2);
    let last = all().map(|p| p.0).fold(1.0, f64::max);
    // The first losses are far above all others; the axis fits those that follow.
    let settled = all().filter(|p| p.0 > 0.1 * last).map(|p| p.1).fold(0.0, f64::max);
    let top = if settled > 0.0 { 1.1 * settled } else { 1.0 };
    let x = |step: f64| LEFT + (WIDTH - LEFT - LEGEND) * step / last;
    let y = |value: f64| (HEIGHT - BOTTOM) * (1.0 - (value / top).clamp(0.0, 1.0)) + 5.0;

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for i in 0..=4 {
        let value = top * f64::from(i) / 4.0;
        let (at, right) = (y(value), WIDTH - LEGEND);
        let _ = writeln!(out, "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>");
        let _ = writeln!(out, "<text x=\"5\" y=\"{:.1}\">{value:.2}</text>", at + 4.0);
        let step = last * f64::from(i) / 4.0;
        let _ =
            writeln!(out, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{step:.0}</text>", x(step), HEIGHT - 6.0);
    }
    for (i, (name, colour, points)) in series.iter().enumerate() {
        let points: Vec<String> = points.iter().map(|(s, v)| format!("{:.1},{:.1}", x(*s), y(*v))).collect();
        let _ = writeln!(out, "<polyline fill=\"none\" stroke=\"{colour}\" points=\"{}\"/>", points.join(" "));
        let (at, left) = (20.0 + 18.0 * i as f64, WIDTH - LEGEND + 12.0);
        let _ = writeln!(out, "<text x=\"{left}\" y=\"{at}\" fill=\"{colour}\">{name}</text>");
    }
    out + "</svg>\n"
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
        let svg = svg(log);
        assert_eq!(svg.matches("<polyline").count(), 3, "{svg}");
        assert!(svg.contains(">methods<") && !svg.contains(">teacher<"));
    }
}
