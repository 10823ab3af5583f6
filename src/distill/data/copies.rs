//! Duplicate images, byte for byte.

use std::collections::HashMap;
use std::path::Path;

use peregrine_core::files::sha256;

use super::{DataError, Dataset, Sample};

/// A sample whose file equals that of an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Index of the data set and of the sample in it: of the first occurrence, and of this one.
    pub first: (usize, usize),
    pub copy: (usize, usize),
    /// Whether both have the same labels. Data sets that label different classes are not compared.
    pub same_labels: bool,
}

/// The duplicates among the samples of `datasets`, in order.
///
/// # Errors
/// When an image cannot be read.
pub fn copies(datasets: &[&Dataset]) -> Result<Vec<Copy>, DataError> {
    let (mut first, mut copies) = (HashMap::new(), Vec::new());
    for (set, dataset) in datasets.iter().enumerate() {
        for (index, sample) in dataset.samples.iter().enumerate() {
            let path = &sample.image;
            let bytes = std::fs::read(path).map_err(|source| DataError::Io { path: path.clone(), source })?;
            let here = (set, index);
            let original = *first.entry(sha256(&bytes)).or_insert(here);
            if original != here {
                let other = datasets[original.0];
                let same_labels = same_labels((other, &other.samples[original.1]), (dataset, sample));
                copies.push(Copy { first: original, copy: here, same_labels });
            }
        }
    }
    Ok(copies)
}

fn same_labels((set, a): (&Dataset, &Sample), (other, b): (&Dataset, &Sample)) -> bool {
    if set.labelled != other.labelled || set.mask_names() != other.mask_names() {
        return true;
    }
    let same_mask = match (&a.mask, &b.mask) {
        // Two unreadable masks are reported elsewhere.
        (Some(a), Some(b)) => same_file(a, b) || set.load_mask(a).ok() == other.load_mask(b).ok(),
        (a, b) => a.is_some() == b.is_some(),
    };
    let same_scene = a.scene.names == b.scene.names || a.scene.names.is_empty() || b.scene.names.is_empty();
    a.boxes == b.boxes && same_mask && same_scene
}

fn same_file(a: &Path, b: &Path) -> bool {
    std::fs::read(a).ok() == std::fs::read(b).ok()
}
