//! The description of a network to import: a small TOML file, a sibling of a teacher's.

use std::path::Path;

use anyhow::{ensure, Context};
use peregrine_core::files::{read_text_at_most, MAX_DESCRIPTION};
use serde::{Deserialize, Serialize};

use crate::teacher::description::Colours;

/// How a network's outputs say what is where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkFamily {
    /// NanoDet, NanoDet-Plus, PicoDet and others with generalized focal loss (Li et al. 2020): at
    /// each stride class logits and a distribution of the distance to each side, in strides.
    Gfl,
    /// YOLOv8 and later without attention: likewise.
    Yolov8,
    /// At each stride class logits and four distances, in strides or pixels, as they come out of the
    /// network (FCOS, Tian et al. 2019).
    Distances,
    /// YOLOX: class logits, objectness, and centre and logarithm of the size, in strides.
    Yolox,
    /// YOLOv5 and v7: three anchors at each stride, each with box, objectness and class logits.
    Yolov5,
    /// A heat map of centres and distances to the four sides (Zhou et al. 2019).
    Centernet,
}

/// The unit of distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DistanceUnit {
    /// Of the level's cells.
    #[default]
    Strides,
    /// Of the input.
    Pixels,
}

/// The description of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkDescription {
    /// Name of the package.
    pub name: String,
    pub family: NetworkFamily,
    /// The names of its classes, in the order of its outputs.
    pub classes: Vec<String>,
    /// Width and height that the package is to have; without it those of the file.
    #[serde(default)]
    pub input: Option<[usize; 2]>,
    pub colours: Colours,
    /// In the order of `colours`, of values 0…255.
    pub mean: [f32; 3],
    pub std: [f32; 3],
    /// The strides that its levels must have; without it whatever is found.
    #[serde(default)]
    pub strides: Vec<usize>,
    /// `gfl`, `distances` and `centernet`: the point of a cell that distances count from, 0 for its
    /// corner, 0.5 for its centre.
    #[serde(default)]
    pub center: Option<f32>,
    /// `distances` and `centernet`: their unit.
    #[serde(default)]
    pub unit: DistanceUnit,
    /// `yolov5`: width and height of the anchors of each level, in input pixels, finest level first.
    #[serde(default)]
    pub anchors: Vec<Vec<[f32; 2]>>,
    /// The outputs that the head is looked for behind; without it all.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// The head's tensors by name, finest level first, where they are not found.
    #[serde(default, rename = "level")]
    pub levels: Vec<LevelTensors>,
    /// Licences and credits of the network, for the package.
    #[serde(default)]
    pub notice: Vec<String>,
}

/// The tensors of a level: results of convolutions, before any sigmoid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelTensors {
    pub class: String,
    pub boxes: String,
    #[serde(default)]
    pub objectness: Option<String>,
}

impl NetworkDescription {
    /// Reads and checks a description.
    ///
    /// # Errors
    /// Names the file, and the field at fault.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = read_text_at_most(path, MAX_DESCRIPTION)?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// The description in `text`.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let d: Self = toml::from_str(text)?;
        peregrine_student::classes::check_classes("classes", &d.classes).map_err(anyhow::Error::msg)?;
        ensure!(d.std.iter().all(|&s| s > 0.0 && s.is_finite()), "std must be above 0");
        ensure!(d.mean.iter().all(|m| m.is_finite()), "mean must be finite");
        ensure!(d.strides.iter().all(|&s| s > 0), "strides must be above 0");
        let counts_from_a_point =
            matches!(d.family, NetworkFamily::Gfl | NetworkFamily::Distances | NetworkFamily::Centernet);
        ensure!(
            counts_from_a_point == d.center.is_some(),
            if counts_from_a_point {
                "center is missing: 0.5 if distances count from the centre of a cell (NanoDet, PicoDet), 0.0 if from its \
                 corner (NanoDet-Plus, CenterNet)"
            } else {
                "center is for gfl, distances and centernet; leave it out"
            }
        );
        ensure!(d.center.is_none_or(|c| (0.0..=1.0).contains(&c)), "center must be 0 to 1");
        let anchored = d.family == NetworkFamily::Yolov5;
        ensure!(
            anchored != d.anchors.is_empty(),
            if anchored {
                "anchors are missing: width and height of those of each level, in pixels"
            } else {
                "anchors are for yolov5; leave them out"
            }
        );
        ensure!(
            d.anchors.iter().flatten().flatten().all(|&side| side.is_finite() && side > 0.0),
            "anchors must be above 0"
        );
        ensure!(
            d.anchors.iter().all(|level| !level.is_empty() && level.len() == d.anchors[0].len()),
            "anchors must be equally many at each level"
        );
        let unit = matches!(d.family, NetworkFamily::Distances | NetworkFamily::Centernet);
        ensure!(unit || d.unit == DistanceUnit::Strides, "unit is for distances and centernet; leave it out");
        Ok(d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_does_not_fit_the_family_is_refused_by_name() {
        let of = |more: &str| {
            let text =
                format!("name='t'\nclasses=['car']\ncolours='rgb'\nmean=[0.0,0.0,0.0]\nstd=[1.0,1.0,1.0]\n{more}\n");
            NetworkDescription::parse(&text).map(drop).map_err(|e| e.to_string())
        };
        of("family='gfl'\ncenter=0.5").unwrap();
        of("family='yolov5'\nanchors=[[[10.0,13.0]],[[30.0,61.0]]]").unwrap();
        for (more, field) in [
            ("family='gfl'", "center"),
            ("family='yolox'\ncenter=0.5", "center"),
            ("family='centernet'\ncenter=2.0", "center"),
            ("family='yolov5'", "anchors"),
            ("family='yolov5'\nanchors=[[[10.0,13.0]],[]]", "anchors"),
            ("family='yolov5'\nanchors=[[[10.0,-13.0]]]", "anchors"),
            ("family='yolox'\nanchors=[[[10.0,13.0]]]", "anchors"),
            ("family='yolov8'\nunit='pixels'", "unit"),
            ("family='yolov8'\nstrides=[0]", "strides"),
            ("family='ssd'", "family"),
        ] {
            let error = of(more).unwrap_err();
            assert!(error.contains(field), "{more}: {error}");
        }
    }
}
