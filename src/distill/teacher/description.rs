//! The description of a teacher's tensors: a small TOML file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{ensure, Context};
use peregrine_core::files::{read_text_at_most, MAX_DESCRIPTION};
use serde::{Deserialize, Serialize};

use super::input_size::InputSize;

/// The layout of a teacher's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Outputs: heat map `[1, h, w, classes]` of probabilities, then distances `[1, h, w, 4]` to
    /// left, top, right, bottom in input pixels (Zhou et al. 2019, "Objects as Points").
    Centernet,
    /// Outputs for each stride, finest first: probabilities `[1, cells, classes]`, then side logits
    /// `[1, cells, 4·bins]` (generalized focal loss, Li et al. 2020).
    Gfl,
    /// One output `[1, 4 + classes, candidates]` (YOLOv8 and later, 1×84×8400 for COCO) or its
    /// transpose, centre x, centre y, width and height in input pixels, then probabilities; with
    /// `objectness` (YOLOv5, v7, YOLOX) a factor for them before the classes.
    Yolo,
    /// One output `[1, detections, 6]` of a network that selects its detections itself (YOLOv10,
    /// YOLO26, and exports with `nms=True`): left, top, right, bottom in input pixels, score and
    /// class number.
    EndToEnd,
    /// Outputs: class logits `[1, queries, classes (+ 1)]`, then centre x, centre y, width and
    /// height `[1, queries, 4]` in fractions of the input (Carion et al. 2020). With `scores =
    /// "softmax"`, as in DETR, the last logit means "no object"; with "sigmoid" (Deformable and
    /// RT-DETR) there is no such logit.
    Detr,
    /// One output `[1, classes]`: logits of the whole image; with `scores = "probability"`
    /// probabilities, as networks that end in a softmax have them.
    ClassLogits,
    /// One output `[1, classes, h, w]`, or `[1, h, w, classes]` with `layout = "nhwc"`: logits of
    /// each pixel or cell.
    PixelLogits,
}

/// How an image is scaled to the teacher's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Scaled to the whole input, without keeping the aspect ratio.
    Stretch,
    /// Scaled with its aspect ratio kept, and centred; the rest is grey.
    #[default]
    Letterbox,
}

/// How class scores become probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// They are probabilities already.
    Probability,
    /// Each class separately.
    Sigmoid,
    /// Over all classes of a query.
    Softmax,
}

/// What a box's four numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoxFormat {
    /// Centre x, centre y, width, height.
    Cxcywh,
    /// Left, top, right, bottom.
    Xyxy,
}

/// The unit of a box's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoxUnit {
    /// Input pixels.
    Pixels,
    /// Fractions of the input's width and height.
    Fractions,
}

/// The order of the input's dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    Nchw,
    Nhwc,
}

/// Order of the colour channels in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colours {
    Rgb,
    Bgr,
}

/// The description of a teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherDescription {
    pub name: String,
    pub family: Family,
    /// Name of the input tensor.
    pub input: String,
    /// Side of the square input in pixels, or its width and height.
    pub size: InputSize,
    /// How the image is scaled to it.
    #[serde(default)]
    pub fit: Fit,
    pub layout: Layout,
    pub colours: Colours,
    /// In the input's colour order, of values 0…255.
    pub mean: [f32; 3],
    pub std: [f32; 3],
    /// Names of the output tensors, in the family's order.
    pub outputs: Vec<String>,
    /// `centernet` and `gfl`: the stride of each level in input pixels.
    #[serde(default)]
    pub strides: Vec<usize>,
    /// `centernet` and `gfl`: the anchor point in a cell: 0 for the corner, 0.5 for the centre.
    #[serde(default)]
    pub center: f32,
    /// `yolo`: whether the fifth value of a candidate is its objectness.
    #[serde(default)]
    pub objectness: bool,
    /// How scores become probabilities; the default is what is usual for the family.
    #[serde(default)]
    pub scores: Option<Scores>,
    /// `yolo`, `end_to_end` and `detr`: what a box's numbers are; the family's order by default.
    // Keys that came later are not written while absent, so that soft targets from before them
    // remain valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub box_format: Option<BoxFormat>,
    /// `yolo`, `end_to_end` and `detr`: their unit; by default fractions for `detr`, else pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub box_unit: Option<BoxUnit>,
    /// Detections of a class with a larger IoU are one object when the teacher is evaluated. By
    /// default 0.6 for `yolo` and `gfl`; the other families need no such suppression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nms_iou: Option<f32>,
    /// For each of the student's classes (for `pixel_logits`, segmentation classes), the teacher's
    /// classes that are mapped to it.
    pub classes: BTreeMap<String, Vec<usize>>,
    /// The features that `distill soften` keeps: for layers of the student, such as `"neck.8.add"`,
    /// the output tensor that each is to learn from, `[1, channels, h, w]`, or `[1, h, w,
    /// channels]` with `layout = "nhwc"`. An inner tensor must be made an output of the ONNX file
    /// first.
    // Not written while empty, so that soft targets from before the key remain valid.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, String>,
}

impl TeacherDescription {
    /// Reads and checks a description.
    ///
    /// # Errors
    /// Names the file, and the field at fault.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = read_text_at_most(path, MAX_DESCRIPTION)?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let description: Self = toml::from_str(text)?;
        let InputSize { width, height } = description.size;
        ensure!([width, height].iter().all(|side| (32..=4096).contains(side)), "size must be 32 to 4096");
        ensure!(description.std.iter().all(|&s| s > 0.0), "std must be above 0");
        let (family, outputs) = (description.family, description.outputs.len());
        if matches!(family, Family::Centernet | Family::Gfl) {
            ensure!(!description.strides.is_empty(), "strides must name at least one level");
            ensure!(description.strides.iter().all(|&s| s > 0), "strides must be above 0");
        } else {
            ensure!(description.strides.is_empty(), "strides are for centernet and gfl; leave them out");
        }
        let (expected, which) = match family {
            Family::Centernet | Family::Gfl => (2 * description.strides.len(), "two tensors for each of strides"),
            Family::Detr => (2, "two tensors: logits, then boxes"),
            Family::Yolo | Family::EndToEnd | Family::ClassLogits | Family::PixelLogits => (1, "one tensor"),
        };
        ensure!(outputs == expected, "outputs names {outputs} tensors, but must name {which}");
        ensure!(
            family == Family::Detr || description.scores != Some(Scores::Softmax),
            "scores = \"softmax\" is for detr; write \"probability\" or \"sigmoid\""
        );
        ensure!(family == Family::Yolo || !description.objectness, "objectness is for yolo; leave it out");
        let has_boxes = matches!(family, Family::Yolo | Family::EndToEnd | Family::Detr);
        ensure!(
            has_boxes || (description.box_format.is_none() && description.box_unit.is_none()),
            "box_format and box_unit are for yolo, end_to_end and detr; leave them out"
        );
        ensure!(description.nms_iou.is_none_or(|iou| iou > 0.0 && iou <= 1.0), "nms_iou must be above 0, up to 1");
        ensure!(!description.classes.is_empty(), "classes must map at least one of the student's classes");
        Ok(description)
    }

    /// How scores become probabilities.
    pub fn scores(&self) -> Scores {
        self.scores.unwrap_or(if self.family == Family::Detr { Scores::Softmax } else { Scores::Probability })
    }

    /// What a box's numbers are.
    pub fn box_format(&self) -> BoxFormat {
        let usual = if self.family == Family::EndToEnd { BoxFormat::Xyxy } else { BoxFormat::Cxcywh };
        self.box_format.unwrap_or(usual)
    }

    /// The unit of a box's numbers.
    pub fn box_unit(&self) -> BoxUnit {
        let usual = if self.family == Family::Detr { BoxUnit::Fractions } else { BoxUnit::Pixels };
        self.box_unit.unwrap_or(usual)
    }

    /// The IoU of non-maximum suppression when the teacher is evaluated; `None` without it.
    pub fn nms_iou(&self) -> Option<f32> {
        self.nms_iou.or(matches!(self.family, Family::Yolo | Family::Gfl).then_some(0.6))
    }

    /// The teacher's classes for each of the student's, in the student's order; empty for a class
    /// that the teacher does not know.
    pub fn groups(&self, student: &[String]) -> Vec<Vec<usize>> {
        student.iter().map(|class| self.classes.get(class).cloned().unwrap_or_default()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_descriptions_know_all_classes_of_the_default_student() {
        let student = peregrine_student::Architecture::default_student();
        let classes = student.detection_classes();
        for text in [
            include_str!("../../../models/teachers/centernet_mb3_512.toml"),
            include_str!("../../../models/teachers/nanodet_416.toml"),
        ] {
            let description = TeacherDescription::parse(text).unwrap();
            assert!(description.groups(classes).iter().all(|group| !group.is_empty()));
        }
    }

    #[test]
    fn a_field_that_does_not_fit_the_family_is_refused_by_name() {
        let of = |more: &str| {
            let text = format!(
                "name='t'\ninput='x'\nsize=64\nlayout='nchw'\ncolours='rgb'\nmean=[0.0,0.0,0.0]\nstd=[1.0,1.0,1.0]\n\
                 {more}\n[classes]\ncar=[0]\n"
            );
            TeacherDescription::parse(&text).map_err(|e| e.to_string())
        };
        let usual = of("family='yolo'\noutputs=['a']").unwrap();
        assert_eq!((usual.fit, usual.size), (Fit::Letterbox, InputSize::square(64)));
        for (more, field) in [
            ("family='yolo'\noutputs=['a', 'b']", "outputs"),
            ("family='yolo'\noutputs=['a']\nstrides=[8]", "strides"),
            ("family='yolo'\noutputs=['a']\nscores='softmax'", "scores"),
            ("family='detr'\noutputs=['a']", "outputs"),
            ("family='gfl'\noutputs=['a', 'b']", "strides"),
            ("family='end_to_end'\noutputs=['a']\nobjectness=true", "objectness"),
            ("family='centernet'\noutputs=['a', 'b']\nstrides=[4]\nbox_unit='fractions'", "box_unit"),
            ("family='yolo'\noutputs=['a']\nnms_iou=1.5", "nms_iou"),
        ] {
            let error = of(more).unwrap_err();
            assert!(error.contains(field), "{error}");
        }
    }
}
