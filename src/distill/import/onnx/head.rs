//! Where a network's head is: the last convolutions before the outputs, sorted by level and by what
//! they say.
//!
//! What exporters put behind them (reshapes, sigmoids, the decoding of boxes, non-maximum
//! suppression) differs with every tool and version; the convolutions do not. So the head is found
//! from behind, and told by its numbers of channels.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{bail, ensure, Context};
use peregrine_engine::{ConvWeights, LayerId, Op};
use tracing::warn;

use super::convert::Converter;
use super::description::{DistanceUnit, NetworkDescription, NetworkFamily};
use super::model::{described, OnnxFile};
use super::network::Network;

/// A tensor of the head: the result of a convolution, or what elementwise nodes with constants make
/// of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HeadTensor {
    /// Result of the convolution.
    raw: String,
    /// What comes of it.
    scaled: String,
}

/// A level of the head, as layers of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundLevel {
    pub stride: usize,
    pub class: Part,
    pub boxes: Part,
    pub objectness: Option<Part>,
}

/// A part of a level: its layer, and where the file has the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub layer: LayerId,
    /// A tensor of the file.
    pub tensor: String,
    /// Its channels; `None`: all.
    pub rows: Option<Vec<usize>>,
    /// By which the layer is the tensor.
    pub factor: f32,
}

impl FoundLevel {
    /// Class, boxes and, if there is one, objectness.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        [&self.class, &self.boxes].into_iter().chain(&self.objectness)
    }
}

/// The tensors that the head may consist of.
#[derive(Debug)]
pub struct HeadTensors(Vec<HeadTensor>);

impl HeadTensors {
    /// Those of `file` that `d` names, or else all that are the last convolutions before its
    /// outputs.
    ///
    /// # Errors
    /// When one is named that there is not, or there is none.
    pub fn find(file: &OnnxFile, d: &NetworkDescription) -> anyhow::Result<Self> {
        let named: Vec<&String> =
            d.levels.iter().flat_map(|l| [Some(&l.class), Some(&l.boxes), l.objectness.as_ref()]).flatten().collect();
        for name in named.iter().copied().chain(&d.outputs) {
            let there = file.producers.contains_key(name);
            ensure!(there, "the network has no tensor {name:?}; its outputs are {}", file.outputs.join(", "));
        }
        let raw: BTreeSet<String> = if named.is_empty() {
            let outputs = if d.outputs.is_empty() { &file.outputs } else { &d.outputs };
            last_convolutions(file, outputs)
        } else {
            named.into_iter().cloned().collect()
        };
        ensure!(!raw.is_empty(), "no convolution leads to the outputs {}", file.outputs.join(", "));
        Ok(Self(raw.into_iter().map(|raw| HeadTensor { scaled: tail(file, &raw), raw }).collect()))
    }

    /// For each node, whether the head depends on it.
    pub fn needed(&self, file: &OnnxFile) -> Vec<bool> {
        let mut needed = vec![false; file.nodes.len()];
        let mut open: Vec<&str> = self.0.iter().map(|t| t.scaled.as_str()).collect();
        while let Some(tensor) = open.pop() {
            if let Some(&id) = file.producers.get(tensor) {
                if !std::mem::replace(&mut needed[id], true) {
                    open.extend(file.nodes[id].input.iter().map(String::as_str));
                }
            }
        }
        needed
    }

    /// The levels of the head, once the network is converted.
    ///
    /// # Errors
    /// When there are none whose channels fit the family and the number of classes; lists what there
    /// is.
    pub fn levels(&self, converter: &mut Converter, d: &NetworkDescription) -> anyhow::Result<Vec<FoundLevel>> {
        let mut by_size: BTreeMap<std::cmp::Reverse<usize>, Vec<(&HeadTensor, usize)>> = BTreeMap::new();
        let input = converter.network.shape(0);
        for tensor in &self.0 {
            let layer = converter.layer_of(&tensor.raw, 1.0)?;
            let shape = converter.network.shape(layer);
            by_size.entry(std::cmp::Reverse(shape.width)).or_default().push((tensor, shape.channels));
        }
        let mut levels = Vec::new();
        for (index, tensors) in by_size.into_values().enumerate() {
            let layer = converter.layer_of(&tensors[0].0.raw, 1.0)?;
            let shape = converter.network.shape(layer);
            // A map of an odd size, halved, is rounded up.
            let ratio = input.width.div_ceil(shape.width);
            let stride = if input.width.is_multiple_of(shape.width) { ratio } else { ratio.next_power_of_two() };
            let fits = [(input.width, shape.width), (input.height, shape.height)]
                .into_iter()
                .all(|(whole, cells)| whole.div_ceil(stride) == cells);
            let found = if d.levels.is_empty() { told_apart(d, &tensors) } else { named(d, &tensors) };
            let Some(roles) = found.filter(|_| fits) else {
                ensure!(d.levels.is_empty(), "the tensors of level {index} do not fit each other: {}", list(&tensors));
                warn!("left out, since it is no level of such a head: {}", list(&tensors));
                continue;
            };
            levels.push(roles.layers(converter, d, stride)?);
        }
        let strides: Vec<usize> = levels.iter().map(|level| level.stride).collect();
        ensure!(!levels.is_empty(), "{}", self.nothing_found(converter, d)?);
        ensure!(
            d.strides.is_empty() || d.strides == strides,
            "the head has levels of strides {strides:?}, but strides names {:?}",
            d.strides
        );
        ensure!(
            d.levels.is_empty() || d.levels.len() == levels.len(),
            "{} levels are named, of {} sizes of map",
            d.levels.len(),
            levels.len()
        );
        Ok(levels)
    }

    fn nothing_found(&self, converter: &mut Converter, d: &NetworkDescription) -> anyhow::Result<String> {
        let mut list = Vec::new();
        for tensor in self.0.iter().take(12) {
            let layer = converter.layer_of(&tensor.raw, 1.0)?;
            list.push(format!("{:?} {}", tensor.raw, converter.network.shape(layer)));
        }
        Ok(format!(
            "no head of this family with {} classes is found; the last convolutions before the outputs make {}. Is the \
             number of classes right? Otherwise name the head's tensors with [[level]] class = … boxes = …",
            d.classes.len(),
            list.join(", ")
        ))
    }
}

/// The results of the last convolutions before `outputs`.
fn last_convolutions(file: &OnnxFile, outputs: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = outputs.iter().map(String::as_str).collect();
    while let Some(tensor) = open.pop() {
        let Some(&id) = file.producers.get(tensor).filter(|_| seen.insert(tensor)) else { continue };
        let node = &file.nodes[id];
        match node.op_type.as_str() {
            // A shape depends on no values.
            "Shape" => {}
            "Conv" if !is_mean_of_bins(file, id) => {
                found.insert(tensor.to_owned());
            }
            _ => open.extend(node.input.iter().map(String::as_str)),
        }
    }
    found
}

/// Whether a convolution only weighs the bins of a distribution by their number, as YOLOv8's does.
fn is_mean_of_bins(file: &OnnxFile, node: usize) -> bool {
    let weight = file.nodes[node].input.get(1).and_then(|name| file.constants.get(name));
    weight.is_some_and(|w| w.dims.first() == Some(&1) && w.floats().iter().enumerate().all(|(i, &v)| v == i as f32))
}

/// What elementwise nodes with constants, and ReLU, make of a tensor that nothing else reads.
fn tail(file: &OnnxFile, raw: &str) -> String {
    let mut at = raw;
    while let [reader] = file.readers(at) {
        let node = &file.nodes[*reader];
        let by_constants = node.input.iter().all(|input| input == at || file.constants.contains_key(input));
        let elementwise = match node.op_type.as_str() {
            "Mul" | "Div" | "Add" | "Sub" => by_constants && node.input.len() == 2 && node.input[0] != node.input[1],
            "Relu" | "Identity" | "Cast" => true,
            _ => false,
        };
        if !elementwise {
            break;
        }
        at = &node.output[0];
    }
    at.to_owned()
}

/// What the tensors of one level are: each a tensor and, where several share one, its rows.
struct Roles<'t> {
    class: Role<'t>,
    boxes: Role<'t>,
    objectness: Option<Role<'t>>,
}

struct Role<'t> {
    tensor: &'t HeadTensor,
    /// `None`: all.
    rows: Option<Vec<usize>>,
}

impl Roles<'_> {
    fn layers(&self, converter: &mut Converter, d: &NetworkDescription, stride: usize) -> anyhow::Result<FoundLevel> {
        let per_stride = if d.unit == DistanceUnit::Pixels { 1.0 / stride as f32 } else { 1.0 };
        Ok(FoundLevel {
            stride,
            class: self.class.part(converter, "class", 1.0)?,
            boxes: self.boxes.part(converter, "boxes", per_stride)?,
            objectness: self.objectness.as_ref().map(|role| role.part(converter, "objectness", 1.0)).transpose()?,
        })
    }
}

impl Role<'_> {
    fn part(&self, converter: &mut Converter, part: &str, factor: f32) -> anyhow::Result<Part> {
        let HeadTensor { raw, scaled } = self.tensor;
        let (tensor, rows) = (scaled.clone(), self.rows.clone());
        let Some(some) = &self.rows else {
            return Ok(Part { layer: converter.layer_of(scaled, factor)?, tensor, rows, factor });
        };
        ensure!(raw == scaled && factor == 1.0, "what follows the shared tensor {raw:?} of a level is not supported");
        let layer = converter.layer_of(raw, 1.0)?;
        Ok(Part { layer: rows_of(&mut converter.network, layer, some, part)?, tensor, rows, factor })
    }
}

/// A convolution of some of the filters of another.
fn rows_of(network: &mut Network, layer: LayerId, rows: &[usize], part: &str) -> anyhow::Result<LayerId> {
    let whole = network.graph.layers[layer].clone();
    let Op::Conv(conv) = whole.op else { bail!("{} is no convolution", whole.name) };
    let all = network.weights.of(&whole.name);
    let per_row = all.weight.len() / all.bias.len();
    let weight = rows.iter().flat_map(|&row| &all.weight[row * per_row..][..per_row]).copied().collect();
    let bias = rows.iter().map(|&row| all.bias[row]).collect();
    network.conv(&format!("{}.{part}", whole.name), whole.inputs[0], conv, ConvWeights { weight, bias })
}

/// The roles of tensors that the description names.
fn named<'t>(d: &NetworkDescription, tensors: &[(&'t HeadTensor, usize)]) -> Option<Roles<'t>> {
    let tensor = |name: &str| tensors.iter().find(|(tensor, _)| tensor.raw == name).map(|(tensor, _)| *tensor);
    let all = |tensor| Role { tensor, rows: None };
    d.levels.iter().find_map(|level| {
        let objectness = level.objectness.as_deref().map(tensor);
        if objectness.is_some_and(|found| found.is_none()) {
            return None;
        }
        Some(Roles {
            class: all(tensor(&level.class)?),
            boxes: all(tensor(&level.boxes)?),
            objectness: objectness.flatten().map(all),
        })
    })
}

/// The roles of a level's tensors by their numbers of channels.
fn told_apart<'t>(d: &NetworkDescription, tensors: &[(&'t HeadTensor, usize)]) -> Option<Roles<'t>> {
    let classes = d.classes.len();
    let only = |wanted: &dyn Fn(usize) -> bool| {
        let mut fitting = tensors.iter().filter(|(_, channels)| wanted(*channels));
        fitting.next().filter(|_| fitting.next().is_none()).map(|(tensor, _)| *tensor)
    };
    let all = |tensor| Role { tensor, rows: None };
    let of = |tensor, rows: Vec<usize>| Role { tensor, rows: Some(rows) };
    let sides = |channels: usize| match d.family {
        NetworkFamily::Gfl | NetworkFamily::Yolov8 => channels.is_multiple_of(4) && (8..=256).contains(&channels),
        _ => channels == 4,
    };
    match (d.family, tensors) {
        (NetworkFamily::Yolov5, [(tensor, channels)]) => {
            let anchors = d.anchors[0].len();
            let each = 5 + classes;
            (*channels == anchors * each).then(|| {
                let rows = |from: usize, count: usize| {
                    (0..anchors).flat_map(|a| (0..count).map(move |i| a * each + from + i)).collect()
                };
                Roles {
                    class: of(tensor, rows(5, classes)),
                    boxes: of(tensor, rows(0, 4)),
                    objectness: Some(of(tensor, rows(4, 1))),
                }
            })
        }
        (NetworkFamily::Yolov5, _) => None,
        (NetworkFamily::Yolox, [(tensor, channels)]) => (*channels == 5 + classes).then(|| Roles {
            class: of(tensor, (5..5 + classes).collect()),
            boxes: of(tensor, (0..4).collect()),
            objectness: Some(of(tensor, vec![4])),
        }),
        (NetworkFamily::Yolox, _) => Some(Roles {
            class: all(only(&|c| c == classes)?),
            boxes: all(only(&|c| c == 4)?),
            objectness: Some(all(only(&|c| c == 1)?)),
        }),
        (_, [(tensor, channels)]) => channels.checked_sub(classes).filter(|&rest| sides(rest)).map(|_| Roles {
            class: of(tensor, (0..classes).collect()),
            boxes: of(tensor, (classes..*channels).collect()),
            objectness: None,
        }),
        (_, [_, _]) => {
            let class = only(&|c| c == classes)?;
            let boxes = tensors.iter().find(|(tensor, channels)| *tensor != class && sides(*channels))?;
            Some(Roles { class: all(class), boxes: all(boxes.0), objectness: None })
        }
        _ => None,
    }
}

fn list(tensors: &[(&HeadTensor, usize)]) -> String {
    let each = tensors.iter().map(|(tensor, channels)| format!("{:?} of {channels} channels", tensor.raw));
    each.collect::<Vec<_>>().join(", ")
}

/// Refuses class scores that compete with each other.
///
/// # Errors
/// Names the node that makes them so.
pub fn check_scores(file: &OnnxFile, tensors: &HeadTensors, d: &NetworkDescription) -> anyhow::Result<()> {
    for tensor in &tensors.0 {
        let made_by = &file.nodes[file.producers[&tensor.raw]];
        let weight = made_by.input.get(1).and_then(|name| file.constants.get(name));
        if weight.and_then(|w| w.dims.first()) != Some(&d.classes.len()) && made_by.op_type == "Conv" {
            continue;
        }
        let mut open = vec![tensor.raw.as_str()];
        let mut steps = 0;
        while let Some(at) = open.pop().filter(|_| steps < 64) {
            steps += 1;
            for &reader in file.readers(at) {
                let node = &file.nodes[reader];
                match node.op_type.as_str() {
                    "Softmax" if d.classes.len() > 1 => bail!(
                        "{} makes the classes of a place compete; only heads with a sigmoid for each class are supported",
                        described(node)
                    ),
                    "Reshape" | "Transpose" | "Mul" | "Add" | "Identity" | "Cast" => {
                        open.extend(node.output.first().map(String::as_str));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// The bins of each side's distribution: a fourth of the box layer's channels.
///
/// # Errors
/// When the levels differ.
pub fn bins(network: &Network, levels: &[FoundLevel]) -> anyhow::Result<usize> {
    let channels = |level: &FoundLevel| network.shape(level.boxes.layer).channels;
    let first = levels.first().map(channels).context("no level")?;
    ensure!(levels.iter().all(|level| channels(level) == first), "the levels have distributions of different length");
    ensure!(first.is_multiple_of(4) && (8..=256).contains(&first), "{first} channels are not four distributions");
    Ok(first / 4)
}
