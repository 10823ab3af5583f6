//! The description from which teacher, student and pruned student are built: one code, other
//! widths.
//!
//! A [`Backbone`], a feature pyramid (Lin et al. 2017), a detection head of the
//! generalized-focal-loss kind (Li et al. 2020: class logits, and a discrete distribution for the
//! distance to each side), a segmentation head, and a [scene head](super::scene).

use std::collections::BTreeMap;
use std::ops::Range;

use peregrine_engine::{Activation, Graph, Interpolation, LayerId, Shape};
use serde::{Deserialize, Serialize};

pub use super::backbone::MAX_STRIDE;
use super::backbone::{Backbone, BackboneFamily, BackboneStage};
use super::builder::{dense, NetworkBuilder};
use super::head::{BoxForm, HeadForm};
use super::imported::ImportedNetwork;
use super::scene::SceneHead;

/// What a student consists of; serialised in its manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    pub input: Input,
    /// Empty where the network is imported, as is the neck.
    #[serde(default, skip_serializing_if = "Backbone::is_empty")]
    pub backbone: Backbone,
    #[serde(default, skip_serializing_if = "Neck::is_empty")]
    pub neck: Neck,
    /// Instead of backbone, neck and detection head: a network out of an ONNX file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<ImportedNetwork>,
    /// `None` in a student that does not detect, or is imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection: Option<DetectionHead>,
    /// `None` in a student that does not segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<SegmentationHead>,
    /// `None` in a student that does not classify scenes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scene: Option<SceneHead>,
    /// Channels of the dense convolutions that pruning narrowed, by layer; the others have what the
    /// fields above say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub widths: BTreeMap<String, usize>,
}

/// Size and normalisation of the network's input: RGB, (value − mean) / std with values 0…255.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Pixels; a multiple of [`MAX_STRIDE`].
    pub width: usize,
    /// Pixels; a multiple of [`MAX_STRIDE`].
    pub height: usize,
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

/// The top-down feature pyramid over strides 8, 16 and 32.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neck {
    pub channels: usize,
}

impl Neck {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Separable convolutions, then class logits and box distributions, at each of strides 8, 16 and
/// 32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectionHead {
    pub classes: Vec<String>,
    /// Separable convolutions before the outputs.
    pub convs: usize,
    pub kernel: usize,
    /// Bins of each side's distance distribution; bin `i` stands for a distance of `i` strides.
    pub bins: usize,
}

/// Logits for each class at stride 4.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentationHead {
    pub classes: Vec<String>,
    pub channels: usize,
}

/// One level of the detection head: indices into the graph's *outputs*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetectionLevel {
    /// Input pixels for one cell.
    pub stride: usize,
    /// Output with class logits `[classes, h, w]`.
    pub class: usize,
    /// Output `[4·bins, h, w]`: for each side of the box, in the order left, top, right, bottom,
    /// the logits of the distribution of its distance from the cell (distribution focal loss, DFL).
    /// In an imported network of another [form](Architecture::head_form), what that says.
    pub box_distribution: usize,
    /// Output `[anchors, h, w]` with the logits of there being an object, in some imported networks.
    pub objectness: Option<usize>,
}

/// The strides of the detection head's levels, in the order of the graph's outputs.
pub const DETECTION_STRIDES: [usize; 3] = [8, 16, 32];

impl Architecture {
    /// The default student: EfficientNet-Lite0 without its last blocks, for 5 road users and
    /// CamVid's 11 classes.
    pub fn default_student() -> Self {
        let stage =
            |blocks, kernel, stride, expand, channels| BackboneStage { blocks, kernel, stride, expand, channels };
        let names = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
        Self {
            input: Input { width: 320, height: 256, mean: [127.0; 3], std: [128.0; 3] },
            backbone: Backbone {
                family: BackboneFamily::default(),
                stem: 32,
                stages: vec![
                    stage(1, 3, 1, 1, 16),
                    stage(2, 3, 2, 6, 24),
                    stage(2, 5, 2, 6, 40),
                    stage(3, 3, 2, 6, 80),
                    stage(3, 5, 1, 6, 112),
                    stage(1, 5, 2, 6, 192),
                ],
            },
            neck: Neck { channels: 64 },
            imported: None,
            detection: Some(DetectionHead {
                classes: names(&["person", "two-wheeler", "car", "bus", "truck"]),
                convs: 2,
                kernel: 5,
                bins: 8,
            }),
            segmentation: Some(SegmentationHead {
                classes: names(&[
                    "sky",
                    "building",
                    "pole",
                    "road",
                    "pavement",
                    "tree",
                    "sign",
                    "fence",
                    "car",
                    "pedestrian",
                    "bicyclist",
                ]),
                channels: 32,
            }),
            scene: None,
            widths: BTreeMap::new(),
        }
    }

    /// An imported network for images of `input`.
    pub fn imported(input: Input, network: ImportedNetwork) -> Self {
        Self {
            input,
            backbone: Backbone::default(),
            neck: Neck::default(),
            imported: Some(network),
            detection: None,
            segmentation: None,
            scene: None,
            widths: BTreeMap::new(),
        }
    }

    /// The network for an input of `width` × `height` pixels (multiples of [`MAX_STRIDE`]).
    ///
    /// Outputs: with a detection head, for each of [`DETECTION_STRIDES`] the class logits and the
    /// box distribution; then, with a scene head, the logits of each group; then, with a
    /// segmentation head, its logits. Call [`check`](Self::check) first.
    ///
    /// # Panics
    /// When the network is imported and has no such size ([`try_graph`](Self::try_graph) says so).
    pub fn graph(&self, width: usize, height: usize) -> Graph {
        self.try_graph(width, height).expect("the size has been checked")
    }

    /// As [`graph`](Self::graph), for an input size that has not been checked.
    ///
    /// # Errors
    /// A sentence that names the layer that does not fit.
    pub fn try_graph(&self, width: usize, height: usize) -> Result<Graph, String> {
        let Some(network) = &self.imported else { return Ok(self.own_graph(width, height)) };
        let mut g = NetworkBuilder::of(network.graph(width, height, &self.widths)?, &self.widths);
        if let Some(head) = &self.scene {
            let last = network.scene_layer(&g.graph)?;
            head.lower(&mut g, last);
        }
        if let Some(head) = &self.segmentation {
            let [fine, coarse] = network.mask_layers(&g.graph)?;
            lower_segmentation(&mut g, head, fine, coarse);
        }
        Ok(g.graph)
    }

    pub(super) fn own_graph(&self, width: usize, height: usize) -> Graph {
        let mut g = NetworkBuilder::new(Shape::new(3, height, width), &self.widths);
        let [c4, c8, c16, c32] = self.backbone.lower(&mut g);
        let pyramid = self.has_neck().then(|| self.lower_neck(&mut g, [c8, c16, c32]));
        if let (Some(head), Some(levels)) = (&self.detection, pyramid) {
            for (level, stride) in levels.into_iter().zip(DETECTION_STRIDES) {
                self.lower_detection(&mut g, head, level, stride);
            }
        }
        if let Some(head) = &self.scene {
            head.lower(&mut g, c32);
        }
        // The last, so that a network can be cut before it.
        if let (Some(head), Some([p8, ..])) = (&self.segmentation, pyramid) {
            lower_segmentation(&mut g, head, c4, p8);
        }
        g.graph
    }

    /// Whether a head reads the pyramid.
    pub(super) fn has_neck(&self) -> bool {
        self.detection.is_some() || self.segmentation.is_some()
    }

    /// The names of the classes that it detects; none without a detection head.
    pub fn detection_classes(&self) -> &[String] {
        match (&self.imported, &self.detection) {
            (Some(network), _) => &network.head.classes,
            (None, Some(head)) => &head.classes,
            (None, None) => &[],
        }
    }

    /// Whether it detects.
    pub fn detects(&self) -> bool {
        self.imported.is_some() || self.detection.is_some()
    }

    /// The names of the classes that it segments; none without a segmentation head.
    pub fn segmentation_classes(&self) -> &[String] {
        self.segmentation.as_ref().map_or(&[], |head| &head.classes)
    }

    /// The levels of the detection head, as indices into the graph's outputs; none without a
    /// detection head.
    pub fn detection_levels(&self) -> Vec<DetectionLevel> {
        let mut next = 0..;
        let mut next = || next.next().expect("it has no end");
        let mut level = |stride: usize, objectness: bool| DetectionLevel {
            stride,
            class: next(),
            box_distribution: next(),
            objectness: objectness.then(&mut next),
        };
        match &self.imported {
            Some(network) => network.head.levels.iter().map(|l| level(l.stride, l.objectness.is_some())).collect(),
            None => self.detection.iter().flat_map(|_| DETECTION_STRIDES).map(|stride| level(stride, false)).collect(),
        }
    }

    /// How the detection head's values stand for boxes; `None` without one.
    pub fn head_form(&self) -> Option<HeadForm> {
        let own = self.detection.as_ref().map(|head| HeadForm::own(head.bins));
        self.imported.as_ref().map(|network| network.head.form.clone()).or(own)
    }

    /// Bins of each side's distance distribution; 0 without a detection head, or with one of
    /// another form.
    pub fn bins(&self) -> usize {
        match self.head_form() {
            Some(HeadForm { boxes: BoxForm::Distribution { bins, .. }, .. }) => bins,
            _ => 0,
        }
    }

    /// Indices of the logits `[classes, 1, 1]` of each group of scenes in the graph's outputs; empty
    /// without a scene head.
    pub fn scene_outputs(&self) -> Range<usize> {
        let outputs = |level: DetectionLevel| 2 + usize::from(level.objectness.is_some());
        let first = self.detection_levels().into_iter().map(outputs).sum();
        first..first + self.scene.as_ref().map_or(0, |head| head.0.len())
    }

    /// Index of the segmentation logits `[classes, height / 4, width / 4]` in the graph's outputs,
    /// the last; `None` without a segmentation head.
    pub fn segmentation_output(&self) -> Option<usize> {
        self.segmentation.as_ref().map(|_| self.scene_outputs().end)
    }

    fn lower_neck(&self, g: &mut NetworkBuilder, [c8, c16, c32]: [LayerId; 3]) -> [LayerId; 3] {
        let channels = self.neck.channels;
        let p32 = g.dense("neck.32".into(), c32, channels, dense(1, 1, Activation::Identity));
        let p16 = top_down(g, "neck.16", c16, p32, channels);
        let p8 = top_down(g, "neck.8", c8, p16, channels);
        [p8, p16, p32]
    }

    fn lower_detection(&self, g: &mut NetworkBuilder, head: &DetectionHead, level: LayerId, stride: usize) {
        let mut x = level;
        for i in 0..head.convs {
            x = separable(g, &format!("detect.{stride}.{i}"), x, self.neck.channels, head.kernel);
        }
        let output = dense(1, 1, Activation::Identity);
        let class = g.dense(format!("detect.{stride}.class"), x, head.classes.len(), output);
        let distribution = g.dense(format!("detect.{stride}.sides"), x, 4 * head.bins, output);
        g.graph.outputs.extend([class, distribution]);
    }
}

fn lower_segmentation(g: &mut NetworkBuilder, head: &SegmentationHead, c4: LayerId, p8: LayerId) {
    let reduced = g.dense("segment.reduce".into(), p8, head.channels, dense(1, 1, Activation::Identity));
    let p4 = top_down(g, "segment.4", c4, reduced, head.channels);
    let x = separable(g, "segment.0", p4, head.channels, 3);
    let out = g.dense("segment.class".into(), x, head.classes.len(), dense(1, 1, Activation::Identity));
    g.graph.outputs.push(out);
}

/// A pyramid level: the backbone's map brought to `channels`, plus the upsampled coarser level.
fn top_down(g: &mut NetworkBuilder, name: &str, fine: LayerId, coarse: LayerId, channels: usize) -> LayerId {
    let lateral = g.dense(name.into(), fine, channels, dense(1, 1, Activation::Identity));
    let up = g.graph.upsample2x(format!("{name}.up"), coarse, Interpolation::Nearest);
    g.graph.add(format!("{name}.add"), lateral, up)
}

/// Depthwise, then 1×1, each with its activation.
fn separable(g: &mut NetworkBuilder, name: &str, input: LayerId, channels: usize, kernel: usize) -> LayerId {
    let x = g.depthwise(format!("{name}.depthwise"), input, (kernel, 1), Activation::Relu6);
    g.dense(format!("{name}.pointwise"), x, channels, dense(1, 1, Activation::Relu6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_student_keeps_its_budget() {
        let architecture = Architecture::default_student();
        architecture.check().unwrap();
        let graph = architecture.graph(architecture.input.width, architecture.input.height);
        assert!(graph.parameters() < 2_000_000, "{} parameters", graph.parameters());
        assert!(graph.flops() < 1_000_000_000, "{} FLOPs", graph.flops());
    }

    #[test]
    fn outputs_have_the_documented_shapes() {
        let architecture = Architecture::default_student();
        let graph = architecture.graph(64, 96);
        let shapes: Vec<_> = graph.outputs.iter().map(|&i| graph.layers[i].shape).collect();
        for level in architecture.detection_levels() {
            let (h, w) = (96 / level.stride, 64 / level.stride);
            assert_eq!(shapes[level.class], Shape::new(5, h, w));
            assert_eq!(shapes[level.box_distribution], Shape::new(32, h, w));
        }
        assert_eq!(shapes[architecture.segmentation_output().unwrap()], Shape::new(11, 24, 16));
    }
}
