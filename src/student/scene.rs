//! The scene head: what the image as a whole shows, by day or by night, in rain or not.
//!
//! The mean of the backbone's last map over the image (global average pooling: Lin et al. 2013,
//! "Network in network", section 3.2), then for each group of classes a linear layer, whose softmax
//! is the probability of each class of the group.

use std::collections::BTreeMap;

use peregrine_engine::{Activation, Graph, LayerId, Op};
use serde::{Deserialize, Serialize};

use super::builder::{dense, NetworkBuilder};
use super::classes::check_classes;

/// The group of a head that is declared as a list of classes.
pub const ONLY_GROUP: &str = "scene";
/// The most groups.
const MAX_GROUPS: usize = 16;
/// The most bytes of a group's name, which is a part of a topic's.
const MAX_NAME: usize = 32;

/// The groups of classes, by name: exactly one class of each group holds for an image. Read from a
/// table of lists, or from one list, the group [`ONLY_GROUP`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "WrittenHead", into = "BTreeMap<String, Vec<String>>")]
pub struct SceneHead(pub BTreeMap<String, Vec<String>>);

/// How a head may be written.
#[derive(Deserialize)]
#[serde(untagged, expecting = "scene must be a list of classes, or a table of such lists by group")]
enum WrittenHead {
    OneGroup(Vec<String>),
    Groups(BTreeMap<String, Vec<String>>),
}

impl From<WrittenHead> for SceneHead {
    fn from(written: WrittenHead) -> Self {
        match written {
            WrittenHead::OneGroup(classes) if classes.is_empty() => Self::default(),
            WrittenHead::OneGroup(classes) => Self(BTreeMap::from([(ONLY_GROUP.to_owned(), classes)])),
            WrittenHead::Groups(groups) => Self(groups),
        }
    }
}

impl From<SceneHead> for BTreeMap<String, Vec<String>> {
    fn from(head: SceneHead) -> Self {
        head.0
    }
}

impl SceneHead {
    /// Checks names and numbers; `field` is what the head is called in messages.
    ///
    /// # Errors
    /// A sentence naming the group or class at fault.
    pub fn check(&self, field: &str) -> Result<(), String> {
        if self.0.is_empty() || self.0.len() > MAX_GROUPS {
            return Err(format!("{field} counts {} groups; it must count 1 to {MAX_GROUPS}", self.0.len()));
        }
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (group, classes) in &self.0 {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let begins = group.starts_with(|c: char| c.is_ascii_lowercase());
            if !begins || group.len() > MAX_NAME || !group.chars().all(plain) {
                return Err(format!(
                    "{field} has the group {group:?}; a group is 1 to {MAX_NAME} of a to z, 0 to 9 and _, and begins with a \
                     letter"
                ));
            }
            check_classes(&format!("{field}.{group}"), classes)?;
            if classes.len() < 2 {
                return Err(format!("{field}.{group} has the class {:?} alone; a group has at least 2", classes[0]));
            }
            for class in classes {
                if let Some(other) = seen.insert(class, group) {
                    return Err(format!(
                        "{field} has the class {class:?} in {other} and in {group}; rename one of them"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Names of the groups, in the order of the network's outputs.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(group, classes)| (group.as_str(), classes.as_slice()))
    }

    /// Where a class stands: its group's number, and its own there.
    pub fn place_of(&self, class: &str) -> Option<(usize, usize)> {
        let in_group = |(at, (_, classes)): (usize, (&str, &[String]))| {
            Some((at, classes.iter().position(|known| known == class)?))
        };
        self.groups().enumerate().find_map(in_group)
    }

    /// All classes, group by group.
    pub fn classes(&self) -> Vec<String> {
        self.0.values().flatten().cloned().collect()
    }

    /// Adds the head to a map, the backbone's last: an output `[classes, 1, 1]` of logits for each
    /// group.
    pub(super) fn lower(&self, g: &mut NetworkBuilder, last: LayerId) {
        let mean = g.graph.global_average("scene.mean", last);
        for (group, classes) in self.groups() {
            let logits = g.dense(layer_of(group), mean, classes.len(), dense(1, 1, Activation::Identity));
            g.graph.outputs.push(logits);
        }
    }
}

/// The last map of an imported network's backbone, by name: the last of its coarsest maps before anything is upsampled,
/// as pyramids of features do after it; `None` for a network without layers.
pub(super) fn feature_of(graph: &Graph) -> Option<String> {
    let pixels = |&id: &LayerId| graph.layers[id].shape.pixels();
    let pyramid = graph.layers.iter().position(|layer| matches!(layer.op, Op::Upsample2x(_)));
    let maps = (1..pyramid.unwrap_or(graph.layers.len())).filter(|id| pixels(id) > 1 && !graph.outputs.contains(id));
    let coarsest = maps.clone().map(|id| pixels(&id)).min()?;
    maps.rev().find(|id| pixels(id) == coarsest).map(|id| graph.layers[id].name.clone())
}

/// The layer with the logits of a group.
pub fn layer_of(group: &str) -> String {
    format!("scene.class.{group}")
}

#[cfg(test)]
mod tests {
    use super::super::{Architecture, StudentShape};

    fn parsed(text: &str) -> Result<Architecture, String> {
        let shape: StudentShape = serde_json::from_str(text).map_err(|e| e.to_string())?;
        shape.architecture(None)
    }

    fn outputs(architecture: &Architecture) -> Vec<String> {
        let graph = architecture.graph(64, 64);
        graph.outputs.iter().map(|&id| format!("{} {}", graph.layers[id].name, graph.layers[id].shape)).collect()
    }

    #[test]
    fn a_list_makes_a_student_of_one_group_and_nothing_else() {
        let made = parsed(r#"{"scene": ["day", "night", "tunnel"]}"#).unwrap();
        assert_eq!(outputs(&made), ["scene.class.scene 3x1x1"]);
        assert_eq!(made.scene_outputs(), 0..1);
        let graph = made.graph(64, 64);
        assert!(graph.layers.iter().all(|layer| !layer.name.starts_with("neck")), "nothing reads a neck");
        let text = serde_json::to_string(&made).unwrap();
        assert!(text.contains(r#""scene":{"scene":["day","night","tunnel"]}"#) && !text.contains("neck"), "{text}");
        assert_eq!(serde_json::from_str::<Architecture>(&text).unwrap(), made);
    }

    #[test]
    fn groups_stand_between_boxes_and_mask() {
        let made = parsed(
            r#"{"classes": ["cone"], "segmentation": ["floor"],
                "scene": {"weather": ["dry", "rain"], "light": ["day", "night", "dusk"]}}"#,
        )
        .unwrap();
        let outputs = outputs(&made);
        assert_eq!(outputs[6..], ["scene.class.light 3x1x1", "scene.class.weather 2x1x1", "segment.class 1x16x16"]);
        assert_eq!((made.scene_outputs(), made.segmentation_output()), (6..8, Some(8)));
        assert_eq!(made.scene.unwrap().place_of("rain"), Some((1, 1)));
    }

    #[test]
    fn a_package_without_the_head_reads_and_writes_as_before() {
        let default = Architecture::default_student();
        let text = serde_json::to_string(&default).unwrap();
        assert!(default.scene.is_none() && !text.contains("scene"), "{text}");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_key() {
        for (scene, named) in [
            (r#"["day"]"#, "student.scene.scene has the class \"day\" alone"),
            (r#"["day", "day"]"#, "student.scene.scene names \"day\" twice"),
            (r#"{"Light": ["day", "night"]}"#, "the group \"Light\""),
            (r#"{"a": ["day", "night"], "b": ["day", "rain"]}"#, "\"day\" in a and in b"),
            ("3", "a list of classes, or a table"),
            (r#"{"a": []}"#, "student.scene.a counts 0"),
        ] {
            let error = parsed(&format!(r#"{{"scene": {scene}}}"#)).unwrap_err();
            assert!(error.contains(named), "{scene}: {error}");
        }
        let none = parsed(r#"{"classes": [], "scene": []}"#).unwrap_err();
        assert!(none.contains("student.scene are all empty"), "{none}");
    }
}
