//! What a detection head's values mean: how boxes are written.

use serde::{Deserialize, Serialize};

/// The form of a detection head. A score is the sigmoid of a class logit, times that of the
/// objectness where there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadForm {
    pub boxes: BoxForm,
    /// Whether only a local maximum of its class's map, among the eight cells around it, is an
    /// object (Zhou et al. 2019, "Objects as Points").
    #[serde(default, skip_serializing_if = "is_false")]
    pub peaks: bool,
}

/// How the values of a cell (or of each of its anchors) stand for a box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BoxForm {
    /// 4·bins logits: for left, top, right and bottom the distribution of the side's distance in
    /// strides, whose mean it is (Li et al. 2020, "Generalized Focal Loss", section 3.2).
    Distribution {
        bins: usize,
        /// The point of a cell that distances count from: 0 its corner, 0.5 its centre.
        center: f32,
    },
    /// 4: the distances themselves, in strides.
    Distances {
        /// As above.
        center: f32,
    },
    /// 4: x and y of the centre from the cell's corner, and the logarithm of width and height, in
    /// strides (Ge et al. 2021, "YOLOX").
    CenterSize,
    /// 4 for each anchor: x and y of the centre, (2σ(v) − ½) strides from the cell's corner, and
    /// width and height, (2σ(v))² times the anchor's (YOLOv5).
    Anchors {
        /// Width and height in pixels, for each level, finest first.
        anchors: Vec<Vec<[f32; 2]>>,
    },
}

impl BoxForm {
    /// Boxes in each cell of a level.
    pub fn anchors(&self, level: usize) -> usize {
        match self {
            Self::Anchors { anchors } => anchors.get(level).map_or(0, Vec::len),
            _ => 1,
        }
    }

    /// Values of each box.
    pub fn values(&self) -> usize {
        match self {
            Self::Distribution { bins, .. } => 4 * bins,
            _ => 4,
        }
    }
}

impl HeadForm {
    /// Of our own students' heads.
    pub fn own(bins: usize) -> Self {
        Self { boxes: BoxForm::Distribution { bins, center: 0.5 }, peaks: false }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// A sentence naming the field at fault.
    pub fn check(&self, levels: usize) -> Result<(), String> {
        match &self.boxes {
            BoxForm::Distribution { bins, .. } if !(2..=64).contains(bins) => {
                Err(format!("a head's bins are {bins}; they must be 2 to 64"))
            }
            BoxForm::Distribution { center, .. } | BoxForm::Distances { center } if !(0.0..=1.0).contains(center) => {
                Err(format!("a head's center is {center}; it must be 0 to 1"))
            }
            BoxForm::Anchors { anchors } => {
                let usable = |side: &f32| side.is_finite() && *side > 0.0;
                let counted = anchors.len() == levels && anchors.iter().all(|a| (1..=16).contains(&a.len()));
                if counted && anchors.iter().flatten().flatten().all(usable) {
                    Ok(())
                } else {
                    Err(format!("a head's anchors must be 1 to 16 sizes above 0 for each of its {levels} levels"))
                }
            }
            _ => Ok(()),
        }
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}
