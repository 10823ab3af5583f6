//! The quantization report as text and JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::assemble::QuantizationSettings;
use super::latency::LatencyComparison;
use super::sensitivity::Sensitivity;

/// Accuracy on one data set; fractions of one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    #[serde(rename = "AP50")]
    pub ap50: Option<f64>,
    #[serde(rename = "AP")]
    pub ap: Option<f64>,
    #[serde(rename = "mIoU")]
    pub mean_iou: Option<f64>,
    /// Mean over the groups of scenes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scene_accuracy: Option<f64>,
}

impl Accuracy {
    fn figures(&self) -> [(&'static str, Option<f64>); 4] {
        [("AP50", self.ap50), ("AP", self.ap), ("mIoU", self.mean_iou), ("scene_accuracy", self.scene_accuracy)]
    }

    /// The measured metrics by name.
    pub fn known(&self) -> BTreeMap<String, f64> {
        self.figures().into_iter().filter_map(|(name, v)| Some((name.to_owned(), v?))).collect()
    }

    /// The largest drop of any metric from `before`, in percentage points; negative if all
    /// improved.
    pub fn drop_from(&self, before: &Self) -> f64 {
        let pairs = before.figures().into_iter().zip(self.figures());
        let drops = pairs.filter_map(|((_, before), (_, after))| Some(100.0 * (before? - after?)));
        drops.fold(f64::NEG_INFINITY, f64::max)
    }
}

/// By data set.
pub type Accuracies = BTreeMap<String, Accuracy>;

/// The largest drop on any data set, in percentage points.
pub fn worst_drop(before: &Accuracies, after: &Accuracies) -> f64 {
    let drop = |(name, before): (&String, &Accuracy)| after.get(name).map(|after| after.drop_from(before));
    before.iter().filter_map(drop).fold(f64::NEG_INFINITY, f64::max)
}

/// `quantization.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizationReport {
    pub model: String,
    pub settings: QuantizationSettings,
    /// Number of calibration images by data set.
    pub calibrated_on: BTreeMap<String, usize>,
    pub max_drop: f64,
    pub float_layers: Vec<String>,
    /// Of all convolutions, the most sensitive first.
    pub sensitivity: Vec<Sensitivity>,
    pub before: Accuracies,
    pub after: Accuracies,
    /// The largest drop in percentage points by the number of most sensitive layers in f32, as
    /// tried.
    pub tried: BTreeMap<usize, f64>,
    pub latency: Vec<LatencyComparison>,
    /// Size of the weights file, before and after.
    pub bytes: (usize, usize),
}

impl QuantizationReport {
    /// The report as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, t: &mut String) -> std::fmt::Result {
        let data: Vec<_> = self.calibrated_on.iter().map(|(d, n)| format!("{n} of {d}")).collect();
        writeln!(t, "{}, calibration images: {}", self.model, data.join(", "))?;
        writeln!(t, "\n{:<20} {:<6} {:>8} {:>8} {:>8}", "accuracy on", "", "f32", "int8", "change")?;
        for (dataset, before) in &self.before {
            let after = self.after.get(dataset).cloned().unwrap_or_default();
            for ((name, before), (_, after)) in before.figures().into_iter().zip(after.figures()) {
                if let (Some(before), Some(after)) = (before, after) {
                    let (before, after) = (100.0 * before, 100.0 * after);
                    writeln!(t, "{dataset:<20} {name:<6} {before:>8.2} {after:>8.2} {:>+8.2}", after - before)?;
                }
            }
        }
        writeln!(t, "\n{:<20} {:<6} {:>8} {:>8} {:>8}", "inference, ms", "", "f32", "int8", "ratio")?;
        for l in &self.latency {
            let plural = if l.threads == 1 { "" } else { "s" };
            writeln!(t, "{} and {}:", l.instructions.0, l.instructions.1)?;
            let threads = format!("{} thread{plural}, {}", l.threads, l.clock);
            for (name, before, after) in
                [("median", l.before.median, l.after.median), ("minimum", l.before.least, l.after.least)]
            {
                writeln!(t, "{threads:<20} {name:<7}{before:>8.2} {after:>8.2} {:>8.2}", after / before)?;
            }
        }
        let kib = |bytes: usize| bytes.div_ceil(1024);
        writeln!(t, "\nweights file: {} KiB, before {} KiB", kib(self.bytes.1), kib(self.bytes.0))?;
        if self.float_layers.is_empty() {
            writeln!(t, "all layers are integer")?;
        } else {
            writeln!(t, "f32 layers: {}", self.float_layers.join(", "))?;
        }
        writeln!(t, "\nmost sensitive layers (normalised MSE of the outputs with only this layer in 8 bits):")?;
        for s in self.sensitivity.iter().take(10) {
            writeln!(t, "  {:<32} {:.2e}", s.layer, s.error)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_drop_is_over_all_metrics_and_data_sets() {
        let of = |ap50, mean_iou| Accuracy { ap50, mean_iou, ..Accuracy::default() };
        let before: Accuracies = [("a".into(), of(Some(0.5), None)), ("b".into(), of(None, Some(0.6)))].into();
        let after: Accuracies = [("a".into(), of(Some(0.52), None)), ("b".into(), of(None, Some(0.585)))].into();
        assert!((worst_drop(&before, &after) - 1.5).abs() < 1e-9);
    }
}
