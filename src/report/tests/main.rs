//! Pages and charts as a browser gets them.

use image::RgbImage;
use peregrine_report::{colour, Axis, Chart, Page};

fn chart() -> Chart {
    let x = Axis::logarithmic(1.0..1000.0, " ms");
    Chart::new("latency", x, Axis::linear(0.0..1.0, ""))
}

#[test]
fn text_cannot_become_markup() {
    let mut page = Page::new("<script>");
    page.table(&[vec!["a & b".into()]]);
    page.list(&["<b>"]);
    let mut chart = chart();
    chart.note(10.0, 0.5, "<i>");
    chart.legend_entry("x < y", colour::BLUE);
    page.figure(&chart.svg().unwrap(), "");
    let html = page.html();
    assert!(html.contains("&lt;script&gt;") && html.contains("a &amp; b") && html.contains("x &lt; y"));
    assert!(!html.contains("<script>") && !html.contains("<b>") && !html.contains("<i>"));
}

#[test]
fn a_page_needs_no_other_file() {
    let mut page = Page::new("p");
    let mut chart = chart();
    chart.line(Some("cpu"), colour::BLUE, vec![(1.0, 0.0), (10.0, 0.5), (2000.0, 1.0)]);
    chart.horizontal_rule(0.9, "deadline");
    page.figure(&chart.svg().unwrap(), "the distribution");
    page.pictures(&[(RgbImage::new(4, 4), "a picture".into())]).unwrap();
    let html = page.html();
    assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"));
    assert!(!html.contains("http") && html.contains("data:image/jpeg;base64,"));
    assert_eq!((html.matches("<svg").count(), html.matches("</svg>").count()), (1, 1));
}

#[test]
fn a_chart_labels_its_axes_and_draws_each_mark() {
    let mut chart = Chart::new("rows", Axis::linear(-2.0..2.0, " %"), Axis::rows(["first", "second"]));
    chart.vertical_rule(0.0);
    chart.interval(1, -0.5, 0.5, 1.5, colour::GREEN);
    chart.rectangle(0.0..1.0, 0.1..0.9, colour::ORANGE, 0.5);
    let svg = chart.svg().unwrap();
    let svg = svg.as_str();
    assert!(svg.contains("first") && svg.contains("second") && svg.contains("-2.0 %"), "{svg}");
    assert_eq!(svg.matches("<circle").count(), 1);
    assert!(svg.contains("fill=\"#E69F00\""), "{svg}");
}

#[test]
fn a_logarithmic_axis_gives_each_decade_the_same_width() {
    let mut chart = chart();
    chart.line(None, colour::BLUE, vec![(1.0, 0.5), (10.0, 0.5), (100.0, 0.5), (1000.0, 0.5)]);
    let svg = chart.svg().unwrap();
    let lines = svg.as_str().split("points=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let line = lines.map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|line| line.len() == 4).unwrap();
    let xs: Vec<i64> = line.iter().map(|point| point.split(',').next().unwrap().parse().unwrap()).collect();
    let widths: Vec<i64> = xs.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(widths.iter().all(|w| (w - widths[0]).abs() <= 1) && widths[0] > 100, "{widths:?}");
}

#[test]
fn what_cannot_be_drawn_is_refused_by_name() {
    let mut chart = chart();
    chart.line(None, colour::BLUE, vec![(1.0, f64::NAN)]);
    assert_eq!(chart.svg().unwrap_err().to_string(), "chart \"latency\": a value to be drawn is not finite");
    let empty = Chart::new("empty", Axis::linear(0.0..0.0, ""), Axis::linear(0.0..1.0, ""));
    assert!(empty.svg().unwrap_err().to_string().starts_with("chart \"empty\": an axis needs"));
}

#[test]
fn files_are_written_whole_and_charts_on_white() {
    let folder = tempfile::tempdir().unwrap();
    let (page, curve) = (folder.path().join("p.html"), folder.path().join("c.svg"));
    Page::new("p").write(&page).unwrap();
    chart().write(&curve).unwrap();
    assert_eq!(std::fs::read_to_string(page).unwrap(), Page::new("p").html());
    assert!(std::fs::read_to_string(curve).unwrap().contains("fill=\"#FFFFFF\""));
    assert!(Page::new("p").write(&folder.path().join("missing/p.html")).unwrap_err().to_string().contains("missing"));
}
