//! Mean intersection over union of class masks.

/// Counts of (labelled class, predicted class).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
}

impl Confusion {
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts one pixel, unless a class is out of range (void); returns whether it was counted.
    pub fn add(&mut self, label: u8, predicted: u8) -> bool {
        let (label, predicted) = (usize::from(label), usize::from(predicted));
        let counts = label < self.classes && predicted < self.classes;
        if counts {
            self.counts[label * self.classes + predicted] += 1;
        }
        counts
    }

    /// TP / (TP + FP + FN) of a class; `None` if it is neither labelled nor predicted.
    pub fn iou(&self, class: usize) -> Option<f64> {
        let row: u64 = (0..self.classes).map(|p| self.counts[class * self.classes + p]).sum();
        let column: u64 = (0..self.classes).map(|l| self.counts[l * self.classes + class]).sum();
        let right = self.counts[class * self.classes + class];
        let union = row + column - right;
        (union > 0).then(|| right as f64 / union as f64)
    }

    /// Mean over the classes that have an IoU; `None` if none has.
    pub fn mean_iou(&self) -> Option<f64> {
        let ious: Vec<f64> = (0..self.classes).filter_map(|c| self.iou(c)).collect();
        (!ious.is_empty()).then(|| ious.iter().sum::<f64>() / ious.len() as f64)
    }
}

impl Confusion {
    /// Whether a pixel is labelled as this class.
    pub fn is_labelled(&self, class: usize) -> bool {
        (0..self.classes).any(|predicted| self.counts[class * self.classes + predicted] > 0)
    }

    /// Mean over the classes that are labelled. What a data set has not cannot be judged on it: a
    /// class that is predicted there instead counts as missing pixels of the class that is
    /// labelled.
    pub fn labelled_mean_iou(&self) -> Option<f64> {
        let ious: Vec<f64> = (0..self.classes).filter(|&c| self.is_labelled(c)).filter_map(|c| self.iou(c)).collect();
        (!ious.is_empty()).then(|| ious.iter().sum::<f64>() / ious.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Case {
        classes: usize,
        labels: Vec<u8>,
        predicted: Vec<u8>,
        /// For each class, from scikit-learn; `None` if it is neither labelled nor predicted.
        iou: Vec<Option<f64>>,
        mean: f64,
    }

    #[test]
    fn it_equals_scikit_learn_on_random_cases() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/reference/miou.json")).unwrap();
        let near = |a: Option<f64>, b: Option<f64>| a == b || a.zip(b).is_some_and(|(a, b)| (a - b).abs() < 1e-9);
        for case in &cases {
            let mut confusion = Confusion::new(case.classes);
            case.labels.iter().zip(&case.predicted).for_each(|(&label, &predicted)| {
                confusion.add(label, predicted);
            });
            for (class, expected) in case.iou.iter().enumerate() {
                let found = confusion.iou(class);
                assert!(near(found, *expected), "class {class}: {found:?} instead of {expected:?}");
            }
            assert!(near(confusion.mean_iou(), Some(case.mean)), "{:?}, not {}", confusion.mean_iou(), case.mean);
        }
    }

    #[test]
    fn it_equals_values_counted_by_hand() {
        let mut confusion = Confusion::new(4);
        for (label, predicted) in [(0, 0), (0, 0), (0, 1), (1, 1), (2, 0), (255, 1), (1, 255)] {
            confusion.add(label, predicted);
        }
        assert_eq!(confusion.iou(0), Some(2.0 / 4.0));
        assert_eq!(confusion.iou(1), Some(1.0 / 2.0));
        assert_eq!(confusion.iou(2), Some(0.0));
        assert_eq!(confusion.iou(3), None);
        assert_eq!(confusion.mean_iou(), Some(1.0 / 3.0));
    }

    #[test]
    fn classes_that_no_pixel_is_labelled_as_do_not_count_in_the_mean() {
        let mut confusion = Confusion::new(3);
        for (label, predicted, pixels) in [(1, 1, 90), (1, 0, 6), (1, 2, 4), (255, 0, 50)] {
            (0..pixels).for_each(|_| {
                confusion.add(label, predicted);
            });
        }
        assert_eq!(confusion.mean_iou(), Some(0.3));
        assert_eq!(confusion.labelled_mean_iou(), Some(0.9));
        assert_eq!(Confusion::new(3).labelled_mean_iou(), None);
    }
}
