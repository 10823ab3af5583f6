//! Evaluation metrics, as JSON and as a table.

use std::collections::BTreeMap;
use std::fmt::Write;

use peregrine_student::{Architecture, Manifest};
use serde::Serialize;

use super::observe::Observations;
use super::scene::{self, SceneAccuracy};
use crate::data::Dataset;
use crate::metrics::average_precision::outcomes;
use crate::metrics::{average_precision, Calibration, ClassPrecision, Evaluated};

/// Minimum score of the detections whose calibration is measured: the node's default threshold.
pub const CONFIDENT: f32 = 0.3;

/// A student's metrics on one data set; fractions of one. The keys of `distill evaluate --json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    pub model: String,
    pub dataset: String,
    /// Width and height of the network's input; `None` for soft targets, which may be of several.
    pub input: Option<(usize, usize)>,
    /// Evaluated images.
    pub images: usize,
    /// Skipped images and labels.
    pub skipped: usize,
    /// Byte-identical duplicates of other images: skipped with `--distinct`, else evaluated like
    /// the rest.
    pub copies: usize,
    pub distinct: bool,
    /// Means over the labelled classes that occur.
    #[serde(rename = "AP50")]
    pub ap50: Option<f64>,
    #[serde(rename = "AP")]
    pub ap: Option<f64>,
    /// Of objects up to 32², up to 96² and above, in pixels² of the source image.
    #[serde(rename = "AP_small")]
    pub small: Option<f64>,
    #[serde(rename = "AP_medium")]
    pub medium: Option<f64>,
    #[serde(rename = "AP_large")]
    pub large: Option<f64>,
    #[serde(rename = "mIoU")]
    pub mean_iou: Option<f64>,
    /// Expected calibration error of the detections with a score of at least 0.3, at an IoU of 0.5.
    #[serde(rename = "ECE_detection")]
    pub detection_error: Option<f64>,
    /// Expected calibration error of the mask's pixels.
    #[serde(rename = "ECE_segmentation")]
    pub segmentation_error: Option<f64>,
    /// Mean accuracy over the groups of scenes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scene_accuracy: Option<f64>,
    /// By group of scenes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scene: BTreeMap<String, SceneAccuracy>,
    /// By class.
    pub detection: BTreeMap<String, ClassPrecision>,
    /// By class: IoU.
    pub segmentation: BTreeMap<String, f64>,
}

impl Evaluation {
    /// The metrics of a network with `architecture`'s classes and input size. The caller sets
    /// `copies` and `distinct`.
    pub fn of(name: &str, architecture: &Architecture, dataset: &Dataset, observations: &Observations) -> Self {
        let classes = architecture.detection_classes();
        let mask_classes = architecture.segmentation_classes();
        let images: Vec<Evaluated> = observations.images.iter().filter_map(|i| i.objects.clone()).collect();
        let mut calibration = Calibration::default();
        let mut detection = BTreeMap::new();
        for class in (0..classes.len()).filter(|&c| dataset.labelled[c]) {
            let Some(precision) = average_precision(&images, class) else { continue };
            detection.insert(classes[class].clone(), precision);
            let sure = outcomes(&images, class, 0.5).into_iter().filter(|o| o.0 >= CONFIDENT);
            sure.for_each(|(score, right)| calibration.add(score, right));
        }
        let mean = |of: &dyn Fn(&ClassPrecision) -> Option<f64>| {
            let values: Vec<f64> = detection.values().filter_map(of).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let confusion = &observations.confusion;
        let scene = observations.scenes.accuracies();
        let iou = |c: usize| confusion.iou(c).map(|iou| (mask_classes[c].clone(), iou));
        Self {
            model: name.to_owned(),
            dataset: dataset.name.clone(),
            input: Some((architecture.input.width, architecture.input.height)),
            images: observations.images.len(),
            skipped: dataset.skipped.len() + observations.skipped.len(),
            copies: 0,
            distinct: false,
            ap50: mean(&|p| Some(p.ap50)),
            ap: mean(&|p| Some(p.ap)),
            small: mean(&|p| p.small),
            medium: mean(&|p| p.medium),
            large: mean(&|p| p.large),
            mean_iou: confusion.labelled_mean_iou(),
            detection_error: calibration.error(),
            segmentation_error: observations.mask_calibration.error(),
            scene_accuracy: scene::mean_accuracy(&scene),
            scene,
            segmentation: (0..mask_classes.len()).filter(|&c| confusion.is_labelled(c)).filter_map(iou).collect(),
            detection,
        }
    }

    /// Records the metrics in a package's manifest.
    pub fn record(&self, manifest: &mut Manifest) {
        let figures =
            [("AP50", self.ap50), ("AP", self.ap), ("mIoU", self.mean_iou), ("scene_accuracy", self.scene_accuracy)];
        let known = figures.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        manifest.accuracy.insert(self.dataset.clone(), known.collect());
    }

    /// The metrics as a human-readable table, in percent.
    pub fn table(&self) -> String {
        let percent = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{:.1}", 100.0 * v));
        let input = self.input.map_or_else(String::new, |(width, height)| format!(" at {width}x{height}"));
        let mut text = format!(
            "{}{input} on {}: {} images, {} skipped files\n",
            self.model, self.dataset, self.images, self.skipped
        );
        match (self.copies, self.distinct) {
            (0, _) => {}
            (copies, true) => text += &format!("{copies} duplicates of other images were skipped\n"),
            (copies, false) => {
                text += &format!("{copies} images are duplicates of others; --distinct evaluates each once\n")
            }
        }
        if self.ap50.is_some() {
            let names = ["AP50", "AP", "small", "medium", "large"].map(|n| format!("{n:>8}")).concat();
            let _ = writeln!(text, "{:<14}{names}{:>9}", "class", "objects");
            let mut row = |name: &str, of: [Option<f64>; 5], objects: &str| {
                let [ap50, ap, small, medium, large] = of.map(percent);
                let _ = writeln!(text, "{name:<14}{ap50:>8}{ap:>8}{small:>8}{medium:>8}{large:>8}{objects:>9}");
            };
            for (class, p) in &self.detection {
                row(class, [Some(p.ap50), Some(p.ap), p.small, p.medium, p.large], &p.objects.to_string());
            }
            row("mean", [self.ap50, self.ap, self.small, self.medium, self.large], "");
        }
        if self.mean_iou.is_some() {
            let _ = writeln!(text, "{:<14}{:>8}", "class", "IoU");
            for (class, iou) in &self.segmentation {
                let _ = writeln!(text, "{class:<14}{:>8}", percent(Some(*iou)));
            }
            let _ = writeln!(text, "{:<14}{:>8}", "mean", percent(self.mean_iou));
        }
        text += &scene::table(&self.scene);
        let errors =
            [("detections with a score of at least 0.3", self.detection_error), ("pixels", self.segmentation_error)];
        for (what, error) in errors.into_iter().filter(|e| e.1.is_some()) {
            let _ = writeln!(text, "expected calibration error of {what}: {}", percent(error));
        }
        text
    }
}
