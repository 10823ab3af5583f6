//! Charts of lines, columns, intervals and rectangles over two axes, as SVG.

use std::ops::Range;
use std::path::Path;

use peregrine_core::files::write_atomically;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{Circle, DashedPathElement, PathElement, Rectangle, Text};
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, ShapeStyle, TextStyle, WHITE};

use crate::axis::{Axis, Coordinate};
use crate::colour::{plotted, BLACK, GREY, RED};
use crate::{Colour, ReportError};

/// Default size in units, of which a page shows two to a pixel: coordinates are whole units.
const SIZE: (u32, u32) = (1640, 520);
const TEXT: u32 = 24;
/// What plotters makes of a font's size without the font.
const FONT: f64 = TEXT as f64 * 1.24;
/// Width of a character, on average.
const CHARACTER: f64 = 13.0;
const LEGEND_LINE: i32 = 34;

/// A drawing as SVG markup, to be shown in a [`Page`](crate::Page) or as a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svg {
    markup: String,
    width: u32,
}

impl Svg {
    /// The markup, on a background of no colour.
    pub fn as_str(&self) -> &str {
        &self.markup
    }

    /// Width in units, of which a page shows two to a pixel.
    pub fn width(&self) -> u32 {
        self.width
    }
}

/// A chart over two axes. What is added later is drawn over what was added before.
#[derive(Debug, Clone)]
pub struct Chart {
    title: String,
    size: (u32, u32),
    x: Axis,
    y: Axis,
    marks: Vec<Mark>,
    legend: Vec<(String, Colour)>,
}

#[derive(Debug, Clone)]
enum Mark {
    Line { points: Vec<(f64, f64)>, colour: Colour },
    Rectangle { x: Range<f64>, y: Range<f64>, colour: Colour, opacity: f64 },
    Interval { row: usize, from: f64, at: f64, to: f64, colour: Colour },
    Note { x: f64, y: f64, text: String },
    HorizontalRule { y: f64, label: String },
    VerticalRule { x: f64 },
}

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Context<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Coordinate, Coordinate>>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

impl Chart {
    /// An empty chart. `title` is what screen readers say, and what errors name.
    pub fn new(title: &str, x: Axis, y: Axis) -> Self {
        Self { title: title.into(), size: SIZE, x, y, marks: Vec::new(), legend: Vec::new() }
    }

    /// Height in units; 520 by default.
    #[must_use]
    pub fn with_height(self, height: u32) -> Self {
        Self { size: (self.size.0, height), ..self }
    }

    /// Width in units; 1640 by default.
    #[must_use]
    pub fn with_width(self, width: u32) -> Self {
        Self { size: (width, self.size.1), ..self }
    }

    /// A line through `points`; those outside of the axes are drawn at their edge. A name puts it
    /// into the legend.
    pub fn line(&mut self, name: Option<&str>, colour: Colour, points: Vec<(f64, f64)>) {
        self.marks.push(Mark::Line { points, colour });
        if let Some(name) = name {
            self.legend_entry(name, colour);
        }
    }

    /// A filled rectangle: a column of a histogram, a part of a stacked bar, a cell of a heat map.
    /// Opacity: 0 to 1.
    pub fn rectangle(&mut self, x: Range<f64>, y: Range<f64>, colour: Colour, opacity: f64) {
        self.marks.push(Mark::Rectangle { x, y, colour, opacity });
    }

    /// In a row of [`Axis::rows`]: the value `at`, and its interval.
    pub fn interval(&mut self, row: usize, from: f64, at: f64, to: f64, colour: Colour) {
        self.marks.push(Mark::Interval { row, from, at, to, colour });
    }

    /// Text that begins at (`x`, `y`), centred vertically.
    pub fn note(&mut self, x: f64, y: f64, text: &str) {
        self.marks.push(Mark::Note { x, y, text: text.into() });
    }

    /// A dashed line at `y`, such as a deadline, with its name.
    pub fn horizontal_rule(&mut self, y: f64, label: &str) {
        self.marks.push(Mark::HorizontalRule { y, label: label.into() });
    }

    /// A plain line at `x`, such as zero.
    pub fn vertical_rule(&mut self, x: f64) {
        self.marks.push(Mark::VerticalRule { x });
    }

    /// An entry of the legend, which stands at the right.
    pub fn legend_entry(&mut self, name: &str, colour: Colour) {
        self.legend.push((name.into(), colour));
    }

    /// The drawing.
    ///
    /// # Errors
    /// When an axis has no finite range, or what is drawn is not finite.
    pub fn svg(&self) -> Result<Svg, ReportError> {
        Ok(Svg { markup: self.drawing(false)?, width: self.size.0 })
    }

    /// Writes the drawing to `path`, whole or not at all, on white.
    ///
    /// # Errors
    /// As [`Self::svg`], and when the folder cannot be written to.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        Ok(write_atomically(path, self.drawing(true)?.as_bytes())?)
    }

    fn drawing(&self, white: bool) -> Result<String, ReportError> {
        let fails = |reason: String| ReportError::Chart { chart: self.title.clone(), reason };
        if let Some(fault) = self.x.fault().or(self.y.fault()) {
            return Err(fails(fault));
        }
        if !self.marks.iter().all(Mark::is_finite) {
            return Err(fails("a value to be drawn is not finite".into()));
        }
        let mut svg = String::new();
        {
            let canvas = SVGBackend::with_string(&mut svg, self.size).into_drawing_area();
            self.draw(&canvas, white).map_err(|error| fails(error.to_string()))?;
        }
        Ok(svg)
    }

    fn draw(&self, canvas: &Canvas, white: bool) -> Drawn {
        if white {
            canvas.fill(&WHITE)?;
        }
        let longest = self.legend.iter().map(|(name, _)| name.chars().count()).max();
        let legend = longest.map_or(0, |characters| 60 + (characters as f64 * CHARACTER) as u32);
        let (plot, beside) = canvas.split_horizontally(self.size.0.saturating_sub(legend));
        for (i, (name, colour)) in self.legend.iter().enumerate() {
            let y = 20 + LEGEND_LINE * i as i32;
            beside.draw(&Rectangle::new([(16, y), (36, y + 20)], plotted(*colour).filled()))?;
            beside.draw(&Text::new(name.clone(), (46, y), text()))?;
        }
        let x_label = if self.x.label.is_empty() { 0 } else { TEXT + 8 };
        let y_label = if self.y.label.is_empty() { 0 } else { TEXT + 8 };
        let y_ticks = (self.y.label_width() as f64 * CHARACTER) as u32;
        let x_ticks = if self.x.label_width() > 0 { TEXT + 16 } else { 0 };
        let mut chart = ChartBuilder::on(&plot)
            .margin(16)
            // The last label is centred below its tick.
            .margin_right((self.x.label_width() as f64 * CHARACTER / 2.0) as u32 + 8)
            .x_label_area_size(x_ticks + x_label)
            .y_label_area_size(y_ticks + 16 + y_label)
            .build_cartesian_2d(Coordinate::from(&self.x), Coordinate::from(&self.y))?;
        let faint = plotted(GREY).mix(0.3);
        chart
            .configure_mesh()
            .bold_line_style(faint)
            .light_line_style(plotted(GREY).mix(0.0))
            .max_light_lines(0)
            .axis_style(plotted(GREY))
            .label_style(text())
            .axis_desc_style(text())
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .x_labels(10)
            .y_labels(6)
            .draw()?;
        self.marks.iter().try_for_each(|mark| self.draw_mark(&mut chart, mark))
    }

    fn draw_mark(&self, chart: &mut Context, mark: &Mark) -> Drawn {
        let (x, y) = (|value| clamp(value, &self.x.range), |value| clamp(value, &self.y.range));
        let area = chart.plotting_area();
        match mark {
            Mark::Line { points, colour } => {
                let points: Vec<_> = points.iter().map(|&(px, py)| (x(px), y(py))).collect();
                area.draw(&PathElement::new(points, stroke(*colour, 3)))
            }
            Mark::Rectangle { x: across, y: up, colour, opacity } => {
                let corners = [(x(across.start), y(up.start)), (x(across.end), y(up.end))];
                area.draw(&Rectangle::new(corners, plotted(*colour).mix(*opacity).filled()))
            }
            Mark::Interval { row, from, at, to, colour } => {
                let row = y(*row as f64 + 0.5);
                area.draw(&PathElement::new(vec![(x(*from), row), (x(*to), row)], stroke(*colour, 4)))?;
                area.draw(&Circle::new((x(*at), row), 8, plotted(*colour).filled()))
            }
            Mark::Note { x: left, y: centre, text: note } => {
                let style = text().pos(Pos::new(HPos::Left, VPos::Center));
                area.draw(&Text::new(note.clone(), (x(*left), y(*centre)), style))
            }
            Mark::HorizontalRule { y: at, label } => {
                let Range { start, end } = self.x.range;
                let ends = [(start, y(*at)), (end, y(*at))];
                area.draw(&DashedPathElement::new(ends, 12, 8, stroke(RED, 3)))?;
                let style = text().pos(Pos::new(HPos::Right, VPos::Bottom));
                area.draw(&Text::new(label.clone(), (end, y(*at)), style))
            }
            Mark::VerticalRule { x: at } => {
                let Range { start, end } = self.y.range;
                area.draw(&PathElement::new(vec![(x(*at), start), (x(*at), end)], stroke(GREY, 2)))
            }
        }
    }
}

impl Mark {
    fn is_finite(&self) -> bool {
        let finite = |values: &[f64]| values.iter().all(|v| v.is_finite());
        match self {
            Self::Line { points, .. } => points.iter().all(|p| finite(&[p.0, p.1])),
            Self::Rectangle { x, y, opacity, .. } => finite(&[x.start, x.end, y.start, y.end, *opacity]),
            Self::Interval { from, at, to, .. } => finite(&[*from, *at, *to]),
            Self::Note { x, y, .. } => finite(&[*x, *y]),
            Self::HorizontalRule { y, .. } => y.is_finite(),
            Self::VerticalRule { x } => x.is_finite(),
        }
    }
}

fn clamp(value: f64, range: &Range<f64>) -> f64 {
    value.clamp(range.start.min(range.end), range.start.max(range.end))
}

fn text() -> TextStyle<'static> {
    ("sans-serif", FONT).into_font().color(&plotted(BLACK))
}

fn stroke(colour: Colour, width: u32) -> ShapeStyle {
    plotted(colour).stroke_width(width)
}
