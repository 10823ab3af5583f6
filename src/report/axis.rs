//! One axis of a chart: its range, its scale and its labels.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{IntoLogRange, LogCoord};

/// One axis of a chart.
#[derive(Debug, Clone)]
pub struct Axis {
    pub(crate) range: Range<f64>,
    pub(crate) label: String,
    logarithmic: bool,
    ticks: Ticks,
}

#[derive(Debug, Clone)]
enum Ticks {
    /// At round values, each with this unit.
    Round { unit: String },
    /// At these values, with these labels.
    Labelled(Vec<(f64, String)>),
}

impl Axis {
    /// A linear axis over `range`; an inverted range inverts the axis. `unit` follows each number
    /// (`" ms"`).
    pub fn linear(range: Range<f64>, unit: &str) -> Self {
        Self { range, label: String::new(), logarithmic: false, ticks: Ticks::Round { unit: unit.into() } }
    }

    /// A logarithmic axis over `range`, whose ends must be above zero.
    pub fn logarithmic(range: Range<f64>, unit: &str) -> Self {
        Self { logarithmic: true, ..Self::linear(range, unit) }
    }

    /// The rows of a chart from top to bottom: row `i`, with its label, spans `i` to `i + 1`.
    pub fn rows<S: Into<String>>(labels: impl IntoIterator<Item = S>) -> Self {
        let ticks: Vec<_> =
            labels.into_iter().enumerate().map(|(row, label)| (row as f64 + 0.5, label.into())).collect();
        Self::linear(ticks.len() as f64..0.0, "").with_ticks(ticks)
    }

    /// Labels these values instead of round ones; no values leave the axis bare.
    pub fn with_ticks(self, ticks: Vec<(f64, String)>) -> Self {
        Self { ticks: Ticks::Labelled(ticks), ..self }
    }

    /// What the axis measures, written along it.
    pub fn with_label(self, label: &str) -> Self {
        Self { label: label.into(), ..self }
    }

    /// The widest of the labels that are known before drawing, in characters.
    pub(crate) fn label_width(&self) -> usize {
        match &self.ticks {
            Ticks::Round { unit } => 6 + unit.chars().count(),
            Ticks::Labelled(ticks) => ticks.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0),
        }
    }

    /// Why nothing can be drawn over this axis; `None` if it can.
    pub(crate) fn fault(&self) -> Option<String> {
        let Range { start, end } = self.range;
        let fits = start.is_finite() && end.is_finite() && start != end;
        let positive = !self.logarithmic || start.min(end) > 0.0;
        (!fits || !positive).then(|| {
            let least = if self.logarithmic { " above zero" } else { "" };
            format!("an axis needs two finite, different ends{least}, not {start} and {end}")
        })
    }

    /// The text at a tick. Round numbers have the decimals that their distance needs.
    pub(crate) fn tick_label(&self, value: f64) -> String {
        match &self.ticks {
            Ticks::Labelled(ticks) => {
                ticks.iter().find(|(at, _)| *at == value).map(|(_, label)| label.clone()).unwrap_or_default()
            }
            Ticks::Round { unit } => {
                let scale = if self.logarithmic { value } else { (self.range.end - self.range.start) / 5.0 };
                let decimals = (-scale.abs().log10().floor()).clamp(0.0, 9.0) as usize;
                format!("{value:.decimals$}{unit}")
            }
        }
    }
}

/// An axis as plotters takes it.
pub(crate) struct Coordinate {
    axis: Axis,
    scale: Scale,
}

enum Scale {
    Linear(RangedCoordf64),
    Logarithmic(LogCoord<f64>),
}

impl From<&Axis> for Coordinate {
    fn from(axis: &Axis) -> Self {
        let range = axis.range.clone();
        let scale =
            if axis.logarithmic { Scale::Logarithmic(range.log_scale().into()) } else { Scale::Linear(range.into()) };
        Self { axis: axis.clone(), scale }
    }
}

impl Ranged for Coordinate {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        match &self.scale {
            Scale::Linear(scale) => scale.map(value, limit),
            Scale::Logarithmic(scale) => scale.map(value, limit),
        }
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match (&self.axis.ticks, &self.scale) {
            (Ticks::Labelled(ticks), _) => ticks.iter().map(|(at, _)| *at).collect(),
            (_, Scale::Linear(scale)) => scale.key_points(hint),
            (_, Scale::Logarithmic(scale)) => scale.key_points(hint),
        }
    }

    fn range(&self) -> Range<f64> {
        self.axis.range.clone()
    }
}

impl ValueFormatter<f64> for Coordinate {
    fn format_ext(&self, value: &f64) -> String {
        self.axis.tick_label(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_the_decimals_that_their_distance_needs() {
        assert_eq!(Axis::linear(0.0..40.0, " ms").tick_label(10.0), "10 ms");
        assert_eq!(Axis::linear(0.0..1.0, "").tick_label(0.2), "0.2");
        assert_eq!(Axis::logarithmic(0.01..100.0, "").tick_label(0.01), "0.01");
        assert_eq!(Axis::rows(["a", "b"]).tick_label(1.5), "b");
    }

    #[test]
    fn an_axis_over_nothing_is_refused() {
        assert!(Axis::linear(1.0..1.0, "").fault().is_some());
        assert!(Axis::linear(0.0..f64::NAN, "").fault().is_some());
        assert!(Axis::logarithmic(0.0..1.0, "").fault().is_some());
        assert!(Axis::linear(3.0..0.0, "").fault().is_none());
    }
}
