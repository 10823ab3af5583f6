//! A network that was imported: its layers as data, in the manifest.
//!
//! Everything is checked before anything is made of it: a manifest may come from anywhere.

use std::collections::{BTreeMap, HashMap};

use peregrine_engine::{Conv, Graph, LayerId, Op, Shape};
use serde::{Deserialize, Serialize};

use super::head::{BoxForm, HeadForm};

/// The most layers.
const MAX_LAYERS: usize = 4096;
/// The most channels of a layer.
const MAX_CHANNELS: usize = 16_384;
/// The most values that the maps of all layers hold at the input's size.
const MAX_VALUES: usize = 1 << 29;
/// The most weights.
pub(crate) const MAX_WEIGHTS: usize = 1 << 28;
/// The largest side of a window: what every engine has.
const MAX_KERNEL: usize = 7;
/// The largest stride of a window.
const MAX_STRIDE: usize = 32;

/// An imported detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedNetwork {
    /// In an order in which each comes after its inputs.
    pub layers: Vec<ImportedLayer>,
    pub head: ImportedHead,
    /// The layers at strides 4 and 8 that a segmentation head can be put on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_features: Option<[String; 2]>,
    /// The layer that a [scene head](super::scene) is put on, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scene_feature: Option<String>,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedLayer {
    /// Unique; a convolution's weights go by it.
    pub name: String,
    pub op: Op,
    /// Names of earlier layers; the image is `input`.
    pub inputs: Vec<String>,
    /// Of its result.
    pub channels: usize,
}

/// Its detection head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedHead {
    pub classes: Vec<String>,
    pub form: HeadForm,
    /// Finest first.
    pub levels: Vec<ImportedLevel>,
}

/// A level of the head: names of layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedLevel {
    /// Input pixels for one cell.
    pub stride: usize,
    /// Class logits, `[anchors · classes, h, w]`.
    pub class: String,
    /// What the head's form says, `[anchors · n, h, w]`.
    pub boxes: String,
    /// Logits of there being an object, `[anchors, h, w]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objectness: Option<String>,
}

impl ImportedNetwork {
    /// The network for an input of `width` × `height` pixels, dense convolutions as narrow as
    /// `widths` says; its outputs are, for each level, class, boxes and, if there is one,
    /// objectness.
    ///
    /// # Errors
    /// A sentence that names the layer or level at fault.
    pub fn graph(&self, width: usize, height: usize, widths: &BTreeMap<String, usize>) -> Result<Graph, String> {
        if self.layers.is_empty() || self.layers.len() > MAX_LAYERS {
            return Err(format!("imported.layers counts {}; it must count 1 to {MAX_LAYERS}", self.layers.len()));
        }
        let mut graph = Graph::new(Shape::new(3, height, width));
        let mut ids: HashMap<&str, LayerId> = HashMap::from([("input", 0)]);
        let (mut values, mut weights) = (0usize, 0usize);
        for layer in &self.layers {
            let fault = |why: String| format!("imported layer {:?}: {why}", layer.name);
            let inputs = layer.inputs.iter().map(|name| ids.get(name.as_str()).copied().ok_or(name));
            let inputs: Vec<LayerId> = inputs
                .collect::<Result<_, _>>()
                .map_err(|name| fault(format!("its input {name:?} is no layer before it")))?;
            let channels = widths.get(&layer.name).copied().unwrap_or(layer.channels);
            check_layer(layer, channels).map_err(fault)?;
            let op = layer.op;
            let id = graph.append(layer.name.clone(), op, inputs, channels).map_err(|e| e.to_string())?;
            let shape = graph.layers[id].shape;
            if !widths.contains_key(&layer.name) && widths.is_empty() && shape.channels != layer.channels {
                return Err(fault(format!("it has {} channels, but its inputs make {shape}", layer.channels)));
            }
            values = values.saturating_add(shape.len());
            if let Op::Conv(conv) = op {
                let from = if conv.depthwise { 1 } else { graph.layers[graph.layers[id].inputs[0]].shape.channels };
                weights = weights.saturating_add(shape.channels * from * conv.kernel * conv.kernel);
            }
            if values > MAX_VALUES || weights > MAX_WEIGHTS {
                return Err(fault(format!(
                    "with it the network has {values} values and {weights} weights; at most {MAX_VALUES} and \
                     {MAX_WEIGHTS} are possible"
                )));
            }
            if ids.insert(&layer.name, id).is_some() {
                return Err(fault("its name is taken".into()));
            }
        }
        self.outputs(&mut graph, &ids)?;
        Ok(graph)
    }

    fn outputs(&self, graph: &mut Graph, ids: &HashMap<&str, LayerId>) -> Result<(), String> {
        let (classes, form) = (self.head.classes.len(), &self.head.form);
        if self.head.levels.is_empty() || self.head.levels.len() > 8 {
            return Err(format!("imported.head.levels counts {}; it must count 1 to 8", self.head.levels.len()));
        }
        form.check(self.head.levels.len())?;
        let input = graph.input_shape();
        for (index, level) in self.head.levels.iter().enumerate() {
            let anchors = form.boxes.anchors(index);
            let parts = [
                (Some(&level.class), anchors * classes, "class"),
                (Some(&level.boxes), anchors * form.boxes.values(), "boxes"),
                (level.objectness.as_ref(), anchors, "objectness"),
            ];
            for (name, channels, part) in parts {
                let Some(name) = name else { continue };
                let fault = |why: String| format!("imported.head.levels: {part} of stride {}: {why}", level.stride);
                let id = *ids.get(name.as_str()).ok_or_else(|| fault(format!("{name:?} is no layer")))?;
                let shape = graph.layers[id].shape;
                let cells = |size: usize| size.div_ceil(level.stride.max(1));
                let expected = Shape::new(channels, cells(input.height), cells(input.width));
                if level.stride == 0 || shape != expected || id == 0 {
                    return Err(fault(format!("{name:?} is {shape}; it must be {expected}")));
                }
                if graph.outputs.contains(&id) {
                    return Err(fault(format!("{name:?} has another part already")));
                }
                graph.outputs.push(id);
            }
        }
        Ok(())
    }

    /// The layers at strides 4 and 8 that a segmentation head is put on, in `graph`.
    ///
    /// # Errors
    /// When the network has none, or they are of another size.
    pub fn mask_layers(&self, graph: &Graph) -> Result<[LayerId; 2], String> {
        let names = self.mask_features.as_ref();
        let names = names.ok_or("imported.mask_features is missing: this network takes no segmentation head")?;
        let input = graph.input_shape();
        let mut found = [0; 2];
        for ((id, name), stride) in found.iter_mut().zip(names).zip([4, 8]) {
            let layer = graph.layers.iter().position(|layer| layer.name == *name);
            let shape = layer.map(|layer| graph.layers[layer].shape);
            let fits = shape.is_some_and(|s| (s.width * stride, s.height * stride) == (input.width, input.height));
            *id = layer
                .filter(|_| fits)
                .ok_or_else(|| format!("imported.mask_features: {name:?} is no layer of stride {stride}"))?;
        }
        Ok(found)
    }

    /// The layer that a scene head is put on, in `graph`.
    ///
    /// # Errors
    /// When the network names none.
    pub fn scene_layer(&self, graph: &Graph) -> Result<LayerId, String> {
        let name = self.scene_feature.as_ref();
        let name = name.ok_or("imported.scene_feature is missing, which names the layer that the scene head reads")?;
        let layer = graph.layers.iter().position(|layer| layer.name == *name);
        layer.ok_or_else(|| format!("imported.scene_feature: {name:?} is no layer"))
    }

    /// This network with a head for other `classes`: class layers of the new size, all else as it
    /// is. A head of another form than a distribution is replaced by one, of `bins`.
    ///
    /// # Errors
    /// A sentence that names the layer that is no convolution, and so has no other size.
    pub fn with_classes(&self, classes: &[String], bins: usize) -> Result<Self, String> {
        let mut network = self.clone();
        network.head.classes = classes.to_vec();
        let replaced = !matches!(self.head.form, HeadForm { boxes: BoxForm::Distribution { .. }, peaks: false })
            || self.head.levels.iter().any(|level| level.objectness.is_some());
        if replaced {
            network.head.form = HeadForm { boxes: BoxForm::Distribution { bins, center: 0.5 }, peaks: false };
        }
        for level in &mut network.head.levels {
            level.objectness = None;
            for (name, channels) in [(&level.class, classes.len()), (&level.boxes, 4 * bins)] {
                let is_class = *name == level.class;
                if !replaced && !is_class {
                    continue;
                }
                let layer = network.layers.iter_mut().find(|layer| layer.name == *name);
                let layer = layer.ok_or_else(|| format!("{name:?} is no layer"))?;
                match &mut layer.op {
                    Op::Conv(conv) if !conv.depthwise => {
                        if replaced {
                            conv.activation = peregrine_engine::Activation::Identity;
                        }
                        layer.channels = channels;
                    }
                    _ => {
                        return Err(format!(
                            "{name:?} is no dense convolution, so that it cannot be made for other classes"
                        ))
                    }
                }
            }
        }
        Ok(network.without_unread())
    }

    /// Without the layers that neither the head nor a segmentation head reads.
    fn without_unread(mut self) -> Self {
        let features = self.mask_features.iter().flatten().chain(&self.scene_feature);
        let mut read: std::collections::HashSet<String> = features.cloned().collect();
        for level in &self.head.levels {
            read.extend(
                [Some(&level.class), Some(&level.boxes), level.objectness.as_ref()].into_iter().flatten().cloned(),
            );
        }
        for layer in self.layers.iter().rev() {
            if read.contains(&layer.name) {
                read.extend(layer.inputs.iter().cloned());
            }
        }
        self.layers.retain(|layer| read.contains(&layer.name));
        self
    }
}

/// What can be told of a layer by itself.
fn check_layer(layer: &ImportedLayer, channels: usize) -> Result<(), String> {
    if layer.name.is_empty() || layer.name.len() > 200 || layer.name.chars().any(char::is_control) {
        return Err("a name is 1 to 200 bytes".into());
    }
    if channels == 0 || channels > MAX_CHANNELS || channels > layer.channels {
        return Err(format!("it has {channels} channels; 1 to {MAX_CHANNELS} are possible"));
    }
    let window = match layer.op {
        Op::Input => return Err("only the first layer is the input".into()),
        Op::Conv(Conv { kernel, stride, .. }) => Some((kernel, stride)),
        Op::MaxPool(window) | Op::AveragePool(window) => Some((window.kernel, window.stride)),
        _ => None,
    };
    match window {
        Some((kernel, stride)) if !(1..=MAX_KERNEL).contains(&kernel) || !(1..=MAX_STRIDE).contains(&stride) => Err(
            format!("its kernel is {kernel} and its stride {stride}; up to {MAX_KERNEL} and {MAX_STRIDE} are possible"),
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use peregrine_engine::{Activation, Padding};

    use super::super::architecture::{Architecture, Input, SegmentationHead};
    use super::super::StudentShape;
    use super::*;

    fn layer(name: &str, op: Op, inputs: &[&str], channels: usize) -> ImportedLayer {
        let inputs = inputs.iter().map(|name| name.to_string()).collect();
        ImportedLayer { name: name.into(), op, inputs, channels }
    }

    fn conv(kernel: usize, stride: usize) -> Op {
        let (depthwise, activation, padding) = (false, Activation::Identity, Padding::Even);
        Op::Conv(Conv { kernel, stride, depthwise, activation, padding })
    }

    /// Two classes, and boxes as YOLOX has them, at stride 8.
    fn network() -> ImportedNetwork {
        ImportedNetwork {
            layers: vec![
                layer("stem", conv(3, 4), &["input"], 8),
                layer("body", conv(3, 2), &["stem"], 8),
                layer("class", conv(1, 1), &["body"], 2),
                layer("boxes", conv(1, 1), &["body"], 4),
                layer("there", conv(1, 1), &["body"], 1),
            ],
            head: ImportedHead {
                classes: vec!["cone".into(), "person".into()],
                form: HeadForm { boxes: BoxForm::CenterSize, peaks: false },
                levels: vec![ImportedLevel {
                    stride: 8,
                    class: "class".into(),
                    boxes: "boxes".into(),
                    objectness: Some("there".into()),
                }],
            },
            mask_features: Some(["stem".into(), "body".into()]),
            scene_feature: None,
        }
    }

    fn architecture(network: ImportedNetwork) -> Architecture {
        Architecture::imported(Input { width: 64, height: 32, mean: [0.0; 3], std: [1.0; 3] }, network)
    }

    #[test]
    fn outputs_come_by_level_and_the_mask_last() {
        let mut made = architecture(network());
        made.segmentation = Some(SegmentationHead { classes: vec!["floor".into()], channels: 4 });
        made.check().unwrap();
        let graph = made.graph(64, 32);
        let shapes: Vec<String> = graph.outputs.iter().map(|&id| graph.layers[id].shape.to_string()).collect();
        assert_eq!(shapes, ["2x4x8", "4x4x8", "1x4x8", "1x8x16"]);
        assert_eq!((made.scene_outputs(), made.segmentation_output()), (3..3, Some(3)));
        let level = made.detection_levels()[0];
        assert_eq!((level.class, level.box_distribution, level.objectness), (0, 1, Some(2)));
    }

    #[test]
    fn a_scene_head_reads_the_backbone_s_last_map() {
        let mut pyramid = network();
        let up = Op::Upsample2x(peregrine_engine::Interpolation::Nearest);
        pyramid.layers.insert(2, layer("deep", conv(3, 2), &["body"], 16));
        pyramid.layers.insert(3, layer("up", up, &["deep"], 16));
        pyramid.layers[4].inputs = vec!["up".into()];
        let shape: StudentShape = serde_json::from_str(
            r#"{"classes": ["cone", "person"], "segmentation": ["floor"], "scene": {"light": ["day", "night"]}}"#,
        )
        .unwrap();
        let made = shape.of_package(architecture(pyramid)).unwrap();
        let graph = made.graph(64, 32);
        let mean = graph.layers.iter().position(|layer| layer.name == "scene.mean").unwrap();
        assert_eq!(graph.layers[graph.layers[mean].inputs[0]].name, "deep");
        assert_eq!((made.scene_outputs(), made.segmentation_output()), (2..3, Some(3)));
        let text = serde_json::to_string(&made).unwrap();
        assert_eq!(serde_json::from_str::<Architecture>(&text).unwrap(), made);
        let mut unnamed = made;
        unnamed.imported.as_mut().unwrap().scene_feature = None;
        assert!(unnamed.check().unwrap_err().contains("imported.scene_feature is missing"));
    }

    #[test]
    fn other_classes_change_the_class_layers_and_a_head_of_another_form() {
        let classes: Vec<String> = ["cone", "forklift", "rack"].map(String::from).to_vec();
        let made = architecture(network().with_classes(&classes, 8).unwrap());
        made.check().unwrap();
        assert_eq!((made.bins(), made.detection_classes()), (8, &classes[..]));
        let graph = made.graph(64, 32);
        let names: Vec<&str> = graph.layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["input", "stem", "body", "class", "boxes"]);
        assert_eq!(graph.layers[4].shape.channels, 32);
    }

    #[test]
    fn pruned_widths_narrow_an_imported_layer() {
        let mut made = architecture(network());
        made.widths.insert("body".into(), 3);
        made.check().unwrap();
        assert_eq!(made.graph(64, 32).layers[2].shape.channels, 3);
        for (name, width) in [("class", 1), ("body", 9), ("body", 0), ("nothing", 1)] {
            let widths = BTreeMap::from([(name.to_owned(), width)]);
            let error = Architecture { widths, ..made.clone() }.check().unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn what_a_hostile_manifest_asks_for_is_refused_before_it_is_made() {
        type Change = fn(&mut ImportedNetwork);
        let changes: [(Change, &str); 13] = [
            (|n| n.layers[0].channels = 1 << 40, "channels"),
            (|n| n.layers[0].op = conv(usize::MAX, 1), "kernel"),
            (|n| n.layers[0].op = conv(3, 0), "stride"),
            (|n| n.layers[1].inputs = vec!["class".into()], "no layer before it"),
            (|n| n.layers[1].inputs = vec![], "operands"),
            (|n| n.layers[1].name = "stem".into(), "taken"),
            (|n| n.layers[1].op = Op::Input, "input"),
            (|n| n.layers.clear(), "layers"),
            (|n| n.head.levels[0].class = "body".into(), "must be 2x4x8"),
            (|n| n.head.levels[0].stride = 0, "stride 0"),
            (|n| n.head.levels[0].boxes = "class".into(), "must be 4x4x8"),
            (|n| n.head.form.boxes = BoxForm::Anchors { anchors: vec![vec![]] }, "anchors"),
            (|n| n.head.classes.clear(), "classes"),
        ];
        for (change, expected) in changes {
            let mut changed = network();
            change(&mut changed);
            let error = architecture(changed).check().unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        // Doubled over and over, a map would soon have terabytes.
        let mut grown = network();
        for i in 0..40 {
            let before = if i == 0 { "stem".to_owned() } else { format!("up{}", i - 1) };
            let up = Op::Upsample2x(peregrine_engine::Interpolation::Nearest);
            grown.layers.push(layer(&format!("up{i}"), up, &[&before], 8));
        }
        assert!(architecture(grown).check().unwrap_err().contains("values"));
    }
}
