//! `[student]`: the classes, size and input of a student, as a training's TOML file declares them.

use serde::{Deserialize, Serialize};

use super::architecture::{Architecture, DetectionHead, Input, Neck, SegmentationHead};
use super::backbone::Backbone;
use super::classes::check_classes;
use super::presets::{Preset, Size};
use super::scene::{self, SceneHead};

/// Bins of each side's distance distribution where the head of an imported network is replaced: at
/// stride 32 they reach 480 pixels.
const NEW_BINS: usize = 16;

/// The table `[student]`. What it leaves out is the default student's, but for the heads: a table
/// that names the classes of some heads makes a student without the others.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StudentShape {
    /// `n`, `s`, `m` or `l`; default `s`, the default student's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Names of the classes to detect; empty for a student that does not detect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// Names of the classes to segment; empty for a student that does not segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Vec<String>>,
    /// Names of the classes of scenes, or a table of them by group (`[student.scene]`); empty for a
    /// student without a scene head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scene: Option<SceneHead>,
    /// Width and height of the input in pixels, multiples of 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<[usize; 2]>,
    /// The backbone in full, in place of the size's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Backbone>,
    /// The neck in full, in place of the size's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neck: Option<Neck>,
    /// The heads' shapes in full, in place of the size's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadShape>,
}

/// The shapes of both heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadShape {
    /// Separable convolutions of the detection head before its outputs, 0 to 8.
    pub convs: usize,
    /// Side of their depthwise kernels: 1, 3, 5 or 7.
    pub kernel: usize,
    /// Bins of each side's distance distribution, 2 to 64.
    pub bins: usize,
    /// Channels of the segmentation head, 1 to 2048.
    pub segmentation_channels: usize,
}

impl StudentShape {
    /// A new network: of `preset` where one is given (a teacher), else of the table's size.
    ///
    /// # Errors
    /// A sentence naming the key at fault.
    pub fn architecture(&self, preset: Option<Preset>) -> Result<Architecture, String> {
        let mut made = match (preset, self.size) {
            (Some(_), Some(_)) => return Err("student.size and backbone name two networks; leave one out".into()),
            (Some(preset), None) => preset.teacher(),
            (None, size) => size.unwrap_or_default().architecture(),
        };
        if let Some(backbone) = &self.backbone {
            if preset.is_some() {
                return Err("student.backbone and backbone name two networks; leave one out".into());
            }
            made.backbone.clone_from(backbone);
        }
        if let Some(neck) = &self.neck {
            made.neck.clone_from(neck);
        }
        if let Some(HeadShape { convs, kernel, bins, segmentation_channels }) = self.head {
            if let Some(head) = &mut made.detection {
                *head = DetectionHead { convs, kernel, bins, classes: std::mem::take(&mut head.classes) };
            }
            made.segmentation.iter_mut().for_each(|head| head.channels = segmentation_channels);
        }
        self.with_classes(made)
    }

    /// `package`'s network with this table's classes and input.
    ///
    /// # Errors
    /// A sentence naming the key at fault, or one that would change the network itself.
    pub fn of_package(&self, package: Architecture) -> Result<Architecture, String> {
        let others = [
            ("size", self.size.is_some()),
            ("backbone", self.backbone.is_some()),
            ("neck", self.neck.is_some()),
            ("head", self.head.is_some()),
        ];
        if let Some((key, _)) = others.into_iter().find(|(_, given)| *given) {
            return Err(format!("student.{key} is given, but the network is that of the package; leave it out"));
        }
        self.with_classes(package)
    }

    /// `made` with this table's input and classes. A head that it lacks and that the table asks for
    /// is the default student's.
    fn with_classes(&self, mut made: Architecture) -> Result<Architecture, String> {
        if let Some([width, height]) = self.input {
            (made.input.width, made.input.height) = (width, height);
        }
        let names_one = self.classes.is_some() || self.segmentation.is_some() || self.scene.is_some();
        let wanted = |own: &Option<Vec<String>>, field: &str| match own {
            Some(classes) if classes.is_empty() => Ok(Wanted::Nothing),
            Some(classes) => check_classes(field, classes).map(|()| Wanted::Classes(classes.clone())),
            None if names_one => Ok(Wanted::Nothing),
            None => Ok(Wanted::AsItIs),
        };
        let default = Architecture::default_student();
        if let Some(network) = made.imported.take() {
            // Losses are for distributions: a head of another form is replaced.
            let classes = match wanted(&self.classes, "student.classes")? {
                Wanted::AsItIs => network.head.classes.clone(),
                Wanted::Nothing => return Err("student.classes is empty, but an imported network detects".into()),
                Wanted::Classes(classes) => classes,
            };
            made.imported = Some(network.with_classes(&classes, NEW_BINS)?);
        }
        let imported = made.imported.is_some();
        match wanted(&self.classes, "student.classes")? {
            _ if imported => {}
            Wanted::AsItIs => {}
            Wanted::Nothing => made.detection = None,
            Wanted::Classes(classes) => {
                let head = made.detection.or(default.detection);
                made.detection = head.map(|head| DetectionHead { classes, ..head });
            }
        }
        match wanted(&self.segmentation, "student.segmentation")? {
            Wanted::AsItIs => {}
            Wanted::Nothing => made.segmentation = None,
            Wanted::Classes(classes) => {
                let head = made.segmentation.or(default.segmentation);
                made.segmentation = head.map(|head| SegmentationHead { classes, ..head });
            }
        }
        self.add_scene(&mut made, names_one)?;
        if !made.detects() && made.segmentation.is_none() {
            if made.scene.is_none() {
                return Err(
                    "student.classes, student.segmentation and student.scene are all empty; name the classes of \
                            one"
                    .into(),
                );
            }
            made.neck = Neck::default();
        } else if made.imported.is_none() && made.neck.is_empty() && self.neck.is_none() {
            made.neck = default.neck;
        }
        // Pruned widths of a head that is gone name no layer.
        let graph = Architecture { widths: Default::default(), ..made.clone() };
        graph.check()?;
        let graph = graph.graph(graph.input.width, graph.input.height);
        made.widths.retain(|name, _| graph.layers.iter().any(|layer| layer.name == *name));
        made.check()?;
        Ok(made)
    }
}

impl StudentShape {
    /// Gives `made` this table's scene head; none if the table names other heads alone.
    fn add_scene(&self, made: &mut Architecture, names_one: bool) -> Result<(), String> {
        match &self.scene {
            None if names_one => made.scene = None,
            None => {}
            Some(head) if head.0.is_empty() => made.scene = None,
            Some(head) => {
                head.check("student.scene")?;
                made.scene = Some(head.clone());
                let (Input { width, height, .. }, widths) = (made.input.clone(), made.widths.clone());
                if let Some(network) = made.imported.as_mut().filter(|network| network.scene_feature.is_none()) {
                    network.scene_feature = scene::feature_of(&network.graph(width, height, &widths)?);
                }
            }
        }
        Ok(())
    }
}

/// What becomes of a head.
enum Wanted {
    AsItIs,
    Nothing,
    Classes(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Architecture, String> {
        let shape: StudentShape = serde_json::from_str(text).map_err(|e| e.to_string())?;
        shape.architecture(None)
    }

    #[test]
    fn an_empty_table_is_the_default_student() {
        assert_eq!(parsed("{}").unwrap(), Architecture::default_student());
        assert_eq!(parsed(r#"{"size": "s"}"#).unwrap(), Architecture::default_student());
    }

    #[test]
    fn a_table_of_one_head_makes_a_student_without_the_other() {
        let detector = parsed(r#"{"classes": ["cone", "forklift"]}"#).unwrap();
        assert_eq!(detector.detection_classes(), ["cone", "forklift"]);
        assert_eq!((detector.segmentation.is_none(), detector.segmentation_output()), (true, None));
        assert_eq!(detector.graph(64, 64).outputs.len(), 6);
        let segmenter = parsed(r#"{"classes": [], "segmentation": ["floor", "rack"], "input": [64, 96]}"#).unwrap();
        assert_eq!((segmenter.detection_classes().len(), segmenter.segmentation_output()), (0, Some(0)));
        assert_eq!((segmenter.input.width, segmenter.input.height), (64, 96));
        assert_eq!(segmenter.graph(64, 64).outputs.len(), 1);
    }

    #[test]
    fn sizes_differ_in_cost_as_they_are_ordered() {
        let cost = |size: Size| size.architecture().graph(320, 256).flops();
        let [n, s, m, l] = [Size::N, Size::S, Size::M, Size::L].map(cost);
        assert!(n * 5 < s * 2 && s < m && m <= 3 * s && m < l, "{n} {s} {m} {l}");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_its_key() {
        for (text, key) in [
            (r#"{"classes": ["a", "a"]}"#, "student.classes names \"a\" twice"),
            (r#"{"classes": [" a"]}"#, "student.classes"),
            (r#"{"classes": [], "segmentation": []}"#, "student.segmentation"),
            (r#"{"input": [100, 64]}"#, "input.width is 100"),
            (r#"{"size": "x"}"#, "unknown variant `x`"),
            (r#"{"colour": 1}"#, "unknown field `colour`"),
            (r#"{"neck": {"channels": 0}}"#, "neck.channels"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
        let many = (0..256).map(|i| format!("\"c{i}\"")).collect::<Vec<_>>().join(",");
        assert!(parsed(&format!(r#"{{"classes": [{many}]}}"#)).unwrap_err().contains("256"));
    }

    #[test]
    fn a_package_keeps_its_network_and_gets_the_classes() {
        let shape = StudentShape { classes: Some(vec!["cone".into()]), ..StudentShape::default() };
        let made = shape.of_package(Architecture::default_student()).unwrap();
        assert_eq!((made.detection_classes(), made.segmentation.is_none()), (&["cone".to_owned()][..], true));
        let sized = StudentShape { size: Some(Size::N), ..shape };
        assert!(sized.of_package(Architecture::default_student()).unwrap_err().contains("student.size"));
    }
}
