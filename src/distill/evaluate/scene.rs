//! Accuracy of the scene head: how often the most probable class of a group is the labelled one.

use std::collections::BTreeMap;
use std::fmt::Write;

use peregrine_student::SceneHead;
use serde::Serialize;

use crate::metrics::Calibration;

/// The accuracy in one group of scenes; fractions of one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SceneAccuracy {
    /// Images with a label of the group.
    pub images: u64,
    pub accuracy: f64,
    /// Mean over the labelled classes of the share of their images that is classified as them.
    pub balanced_accuracy: f64,
    /// Expected calibration error of the most probable class.
    #[serde(rename = "ECE")]
    pub calibration_error: f64,
    pub classes: Vec<String>,
    /// Images by labelled class (row) and most probable one (column).
    pub confusion: Vec<Vec<u64>>,
}

/// Counts of the images of a data set.
#[derive(Debug, Clone)]
pub struct SceneCounts {
    groups: Vec<GroupCounts>,
}

#[derive(Debug, Clone)]
struct GroupCounts {
    name: String,
    classes: Vec<String>,
    confusion: Vec<Vec<u64>>,
    calibration: Calibration,
}

impl SceneCounts {
    /// For the groups of a student's head; without one nothing is counted.
    pub fn new(head: Option<&SceneHead>) -> Self {
        let group = |(name, classes): (&str, &[String])| GroupCounts {
            name: name.to_owned(),
            classes: classes.to_vec(),
            confusion: vec![vec![0; classes.len()]; classes.len()],
            calibration: Calibration::default(),
        };
        Self { groups: head.into_iter().flat_map(SceneHead::groups).map(group).collect() }
    }

    /// Counts an image with the `labels` of each group and the `probabilities` of all their classes.
    pub fn add(&mut self, labels: &[Option<usize>], probabilities: &[f32]) {
        let mut rest = probabilities;
        for (group, label) in self.groups.iter_mut().zip(labels) {
            let (own, others) = rest.split_at(group.classes.len().min(rest.len()));
            rest = others;
            let best = own.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
            if let (Some(label), Some((predicted, confidence))) = (*label, best) {
                group.confusion[label][predicted] += 1;
                group.calibration.add(confidence, label == predicted);
            }
        }
    }

    /// By group, without those that no image is labelled in.
    pub fn accuracies(&self) -> BTreeMap<String, SceneAccuracy> {
        self.groups.iter().filter_map(|group| Some((group.name.clone(), group.accuracy()?))).collect()
    }
}

impl GroupCounts {
    fn accuracy(&self) -> Option<SceneAccuracy> {
        let images: u64 = self.confusion.iter().flatten().sum();
        let right: u64 = self.confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
        let recalls: Vec<f64> = (0..self.classes.len()).filter_map(|class| recall(&self.confusion, class)).collect();
        Some(SceneAccuracy {
            images,
            accuracy: right as f64 / images as f64,
            balanced_accuracy: recalls.iter().sum::<f64>() / recalls.len() as f64,
            calibration_error: self.calibration.error()?,
            classes: self.classes.clone(),
            confusion: self.confusion.clone(),
        })
    }
}

/// The share of a class's images that is classified as it; `None` without such an image.
fn recall(confusion: &[Vec<u64>], class: usize) -> Option<f64> {
    let images: u64 = confusion[class].iter().sum();
    (images > 0).then(|| confusion[class][class] as f64 / images as f64)
}

/// The mean accuracy over the groups; `None` without one.
pub fn mean_accuracy(groups: &BTreeMap<String, SceneAccuracy>) -> Option<f64> {
    (!groups.is_empty()).then(|| groups.values().map(|group| group.accuracy).sum::<f64>() / groups.len() as f64)
}

/// The figures of the groups, and their tables of confusion.
pub fn table(groups: &BTreeMap<String, SceneAccuracy>) -> String {
    let percent = |v: f64| format!("{:.1}", 100.0 * v);
    let mut text = String::new();
    for (group, scene) in groups {
        let _ = writeln!(
            text,
            "{group}: accuracy {}, balanced {}, expected calibration error {}, on {} images",
            percent(scene.accuracy),
            percent(scene.balanced_accuracy),
            percent(scene.calibration_error),
            scene.images
        );
        let cells = |values: Vec<String>| values.iter().map(|v| format!("{v:>12}")).collect::<String>();
        let _ = writeln!(text, "{:<14}{}{:>12}", "labelled", cells(scene.classes.clone()), "recall");
        for (class, row) in scene.classes.iter().zip(&scene.confusion).enumerate().map(|(i, r)| ((i, r.0), r.1)) {
            let recall = recall(&scene.confusion, class.0).map_or("-".into(), percent);
            let counts = cells(row.iter().map(u64::to_string).collect());
            let _ = writeln!(text, "{:<14}{counts}{recall:>12}", class.1);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> SceneHead {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        SceneHead(
            [("light".into(), names(&["day", "night"])), ("weather".into(), names(&["dry", "rain", "snow"]))].into(),
        )
    }

    /// Values of scikit-learn 1.5: accuracy_score, balanced_accuracy_score and confusion_matrix of
    /// the labels [0, 0, 0, 1] and the predictions [0, 0, 1, 1].
    #[test]
    fn each_group_is_judged_on_the_images_that_are_labelled_in_it() {
        let mut counts = SceneCounts::new(Some(&head()));
        for (labels, probabilities) in [
            ([Some(0), None], [0.9, 0.1, 0.2, 0.3, 0.5]),
            ([Some(0), Some(2)], [0.8, 0.2, 0.2, 0.3, 0.5]),
            ([Some(0), None], [0.3, 0.7, 0.4, 0.3, 0.3]),
            ([Some(1), None], [0.2, 0.8, 0.4, 0.3, 0.3]),
        ] {
            counts.add(&labels, &probabilities);
        }
        let found = counts.accuracies();
        let light = &found["light"];
        assert_eq!((light.images, light.accuracy), (4, 0.75));
        assert!((light.balanced_accuracy - 0.8333333333333333).abs() < 1e-12);
        assert_eq!(light.confusion, [[2, 1], [0, 1]]);
        // |1 − 0.9|, |1 − 0.8| twice, |0 − 0.7|, each a quarter: bins of 1/15 part 0.7, 0.8 and 0.9.
        assert!((light.calibration_error - (0.1 + 0.2 + 0.2 + 0.7) / 4.0).abs() < 1e-6, "{}", light.calibration_error);
        let weather = &found["weather"];
        assert_eq!((weather.images, weather.accuracy, weather.balanced_accuracy), (1, 1.0, 1.0));
        assert_eq!(mean_accuracy(&found), Some(0.875));
        let text = table(&found);
        assert!(text.contains("light: accuracy 75.0, balanced 83.3") && text.contains("66.7"), "{text}");
    }

    #[test]
    fn without_labels_or_head_there_is_no_figure() {
        assert!(SceneCounts::new(Some(&head())).accuracies().is_empty());
        assert_eq!(mean_accuracy(&SceneCounts::new(None).accuracies()), None);
    }
}
