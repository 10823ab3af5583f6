//! A Peregrine package as a teacher: run on whole images by our own engines, letterboxed as in
//! deployment.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use anyhow::{bail, ensure, Context};
use image::RgbImage;
use peregrine_core::files::sha256;
use peregrine_core::ImageView;
use peregrine_engine::{Engine, Graph, Shape};
use peregrine_student::Student;
use peregrine_vision::decode::head::logit;
use peregrine_vision::decode::mask::MaskDecoder;
use peregrine_vision::decode::HeadDecoder;
use peregrine_vision::preprocess::{Letterbox, Normalisation};

use super::candidates::{suppress, MIN_SCORE};
use super::logits::UNKNOWN_CLASS;
use super::{Compute, Feature, SoftMask, SoftTarget, UNKNOWN};

/// The student's classes for which a package is to be a teacher; none of a kind that is not wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    pub detection: &'a [String],
    pub segmentation: &'a [String],
    /// Of scenes, group by group.
    pub scene: &'a [String],
}

/// What a package makes of an image.
pub struct PackagePrediction {
    /// The objects, best first, in the image's pixels.
    pub boxes: Vec<SoftTarget>,
    /// The mask, where one is wanted and the package has one.
    pub mask: Option<SoftMask>,
    /// The logits of the scene, where they are wanted and the package has a head for them.
    pub scene: Option<Vec<f32>>,
    /// Features by layer.
    pub features: BTreeMap<String, Feature>,
}

/// The teacher, ready for images.
pub struct PackageTeacher {
    pub name: String,
    /// A hash of its weights, of its architecture, input included, of what it gives, and of its device.
    pub identity: String,
    engine: Box<dyn Engine>,
    input: (usize, usize),
    normalisation: Normalisation,
    head: HeadDecoder,
    /// For each of the student's detection classes its own class, where it has one; empty where it
    /// gives no boxes.
    rows: Vec<Option<usize>>,
    /// Where it gives masks.
    mask: Option<MaskOutput>,
    /// Indices of the logits of scenes among the engine's outputs.
    scene_outputs: Range<usize>,
    /// For each of the student's classes of scenes its own, of all groups; empty where it gives none.
    scene_rows: Vec<Option<usize>>,
    /// The layers whose features are kept: name, index among the engine's outputs, and shape.
    features: Vec<(String, usize, Shape)>,
}

/// The segmentation logits among a package's outputs.
struct MaskOutput {
    output: usize,
    shape: Shape,
    /// For each of the student's segmentation classes its own class, where it has one.
    rows: Vec<Option<usize>>,
}

impl PackageTeacher {
    /// Loads the package in `folder`, to be run at its own input size; it gives the layers
    /// `features` besides boxes and masks.
    ///
    /// # Errors
    /// When it cannot be read, knows none of the `wanted` classes, or lacks one of `features`.
    pub fn load(folder: &Path, wanted: Wanted, features: &[String], compute: Compute) -> anyhow::Result<Self> {
        let student = Student::load(folder)?;
        let architecture = &student.manifest.architecture;
        let (input, detected) = (&architecture.input, architecture.detection_classes());
        let rows = rows_of(wanted.detection, detected);
        let mask_rows = rows_of(wanted.segmentation, architecture.segmentation_classes());
        let scenes = architecture.scene.as_ref().map_or_else(Vec::new, |head| head.classes());
        let scene_rows = rows_of(wanted.scene, &scenes);
        ensure!(
            rows.is_some() || mask_rows.is_some() || scene_rows.is_some(),
            "{}: {}; of the student are {}: it knows none of its classes",
            folder.display(),
            classes_of(detected, architecture.segmentation_classes(), &scenes),
            classes_of(wanted.detection, wanted.segmentation, wanted.scene)
        );
        // Boxes alone are named as they were before there were masks, so that soft targets of then go on.
        let gives = match (&rows, &mask_rows) {
            (_, None) => "",
            (None, Some(_)) => " masks",
            (Some(_), Some(_)) => " boxes and masks",
        };
        let scenes = if scene_rows.is_some() { " scenes" } else { "" };
        let described = serde_json::to_string(&student.manifest.architecture).expect("an architecture is plain data");
        let mut graph = student.graph();
        let layers = features.iter().map(|name| layer(&graph, name)).collect::<anyhow::Result<Vec<_>>>();
        let layers = layers.with_context(|| folder.display().to_string())?;
        let shown = features.iter().zip(&layers).zip(graph.outputs.len()..);
        let shown = shown.map(|((name, &id), output)| (name.clone(), output, graph.layers[id].shape)).collect();
        let mask = mask_rows.zip(architecture.segmentation_output());
        let mask =
            mask.map(|(rows, output)| MaskOutput { output, shape: graph.layers[graph.outputs[output]].shape, rows });
        graph.outputs.extend(layers);
        let (engine, on_cuda) = compute.engine(&student, &graph)?;
        let device = if on_cuda { " cuda" } else { "" };
        let weights = &student.manifest.weights.sha256;
        let identity = sha256(format!("{weights} {described}{gives}{scenes}{device}").as_bytes());
        Ok(Self {
            engine,
            features: shown,
            input: (input.width, input.height),
            normalisation: Normalisation { mean: input.mean, std: input.std },
            head: HeadDecoder::new(architecture, input.width, input.height),
            rows: rows.unwrap_or_default(),
            mask,
            scene_outputs: architecture.scene_outputs(),
            scene_rows: scene_rows.unwrap_or_default(),
            name: student.manifest.name,
            identity,
        })
    }

    /// For each of the student's detection classes, whether it knows it; `None` if it gives no boxes.
    pub fn knows_boxes(&self) -> Option<Vec<bool>> {
        (!self.rows.is_empty()).then(|| self.rows.iter().map(Option::is_some).collect())
    }

    /// For each of the student's segmentation classes, whether it knows it; `None` if it gives no
    /// masks.
    pub fn knows_masks(&self) -> Option<Vec<bool>> {
        self.mask.as_ref().map(|mask| mask.rows.iter().map(Option::is_some).collect())
    }

    /// For each of the student's classes of scenes, whether it knows it; `None` if it gives none.
    pub fn knows_scenes(&self) -> Option<Vec<bool>> {
        (!self.scene_rows.is_empty()).then(|| self.scene_rows.iter().map(Option::is_some).collect())
    }

    /// The objects in `image`, its mask, its scene and its features.
    ///
    /// # Errors
    /// When the image is empty or the engine fails.
    pub fn infer(&mut self, image: &RgbImage) -> anyhow::Result<PackagePrediction> {
        let (width, height) = image.dimensions();
        let view = ImageView::new("rgb8", width, height, 3 * width, image.as_raw()).context("an unusable image")?;
        let letterbox = Letterbox::new(view.size(), self.input);
        letterbox.apply(&view, &self.normalisation, self.engine.input());
        self.engine.run()?;
        let boxes = if self.rows.is_empty() { Vec::new() } else { self.boxes(&letterbox) };
        let mask = self.mask.as_ref().map(|mask| self.soft_mask(mask, &letterbox));
        let own: Vec<f32> = self.scene_outputs.clone().flat_map(|output| self.engine.output(output)).copied().collect();
        let logits = |row: &Option<usize>| row.map_or(UNKNOWN_CLASS, |class| own[class]);
        let scene = (!self.scene_rows.is_empty()).then(|| self.scene_rows.iter().map(logits).collect());
        Ok(PackagePrediction { boxes, mask, scene, features: self.features(&letterbox) })
    }

    /// The objects in the image that the engine ran on last, which was placed by `letterbox`.
    fn boxes(&self, letterbox: &Letterbox) -> Vec<SoftTarget> {
        let mut found = Vec::new();
        self.head.anchors(
            |i| self.engine.output(i),
            logit(MIN_SCORE),
            |bbox, own| {
                let logits: Vec<f32> = self.rows.iter().map(|row| row.map_or(UNKNOWN, |c| own[c])).collect();
                let bbox = letterbox.to_source(bbox);
                let seen = logits.iter().any(|&l| l > logit(MIN_SCORE));
                if seen && bbox.width() > 1.0 && bbox.height() > 1.0 {
                    found.push(SoftTarget { bbox, logits });
                }
            },
        );
        suppress(found)
    }

    /// Its mask's logits, in the cells that the pipeline decides.
    fn soft_mask(&self, mask: &MaskOutput, letterbox: &Letterbox) -> SoftMask {
        let MaskOutput { output, shape, rows } = mask;
        let (decoder, values) = (MaskDecoder::new(letterbox), self.engine.output(*output));
        let (columns, lines) = decoder.cells();
        let mut logits = Vec::with_capacity(rows.len() * lines.len() * columns.len());
        for row in rows {
            for y in lines {
                let at = |x: &usize| row.map_or(UNKNOWN_CLASS, |c| values[(c * shape.height + y) * shape.width + x]);
                logits.extend(columns.iter().map(at));
            }
        }
        SoftMask { width: columns.len(), height: lines.len(), logits }
    }

    /// Its features, likewise.
    fn features(&self, letterbox: &Letterbox) -> BTreeMap<String, Feature> {
        let ((left, top), (width, height)) = (letterbox.pad(), letterbox.content());
        let feature = |(name, output, shape): &(String, usize, Shape)| {
            let values = self.engine.output(*output);
            let x = |v: usize| v as f32 / self.input.0 as f32 * shape.width as f32;
            let y = |v: usize| v as f32 / self.input.1 as f32 * shape.height as f32;
            let at = |c: usize, y: usize, x: usize| values[(c * shape.height + y) * shape.width + x];
            let place = [x(left), y(top), x(left + width), y(top + height)];
            (name.clone(), Feature::cut((shape.channels, shape.height, shape.width), place, at))
        };
        self.features.iter().map(feature).collect()
    }
}

/// For each of `classes` its place among `own`; `None` if it has none of them.
fn rows_of(classes: &[String], own: &[String]) -> Option<Vec<Option<usize>>> {
    let rows: Vec<_> = classes.iter().map(|class| own.iter().position(|known| known == class)).collect();
    rows.iter().any(Option::is_some).then_some(rows)
}

/// What a network or a student knows, in words.
fn classes_of(detection: &[String], segmentation: &[String], scene: &[String]) -> String {
    let kinds = [("boxes", detection), ("masks", segmentation), ("scenes", scene)];
    let named = kinds.iter().filter(|(_, classes)| !classes.is_empty());
    let named: Vec<_> = named.map(|(kind, classes)| format!("{kind} of {}", classes.join(", "))).collect();
    if named.is_empty() {
        "nothing".to_owned()
    } else {
        named.join(" and ")
    }
}

/// The layer called `name`.
///
/// # Errors
/// If there is none; names some that there are.
pub fn layer(graph: &Graph, name: &str) -> anyhow::Result<usize> {
    match graph.layers.iter().position(|l| l.name == name) {
        Some(id) => Ok(id),
        None => {
            let some: Vec<_> = graph.layers.iter().map(|l| l.name.as_str()).filter(|n| n.ends_with(".add")).collect();
            bail!("has no layer {name:?}; among those it has are {}", some.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::load_image;
    use peregrine_pipeline::{Pipeline, PipelineOptions};

    #[test]
    fn its_mask_is_the_one_that_the_pipeline_decides() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let image = load_image(&root.join("models/frames/street-20.jpg")).unwrap();
        let student = Student::embedded();
        // One of its classes, one that it lacks, and another of its own: in the order that is wanted.
        let own = student.manifest.architecture.segmentation_classes().to_vec();
        let wanted = [own[3].clone(), "lava".into(), own[0].clone()];
        let load = |segmentation: &[String]| {
            let wanted = Wanted { segmentation, ..Wanted::default() };
            PackageTeacher::load(&root.join("models/peregrine-s"), wanted, &[], Compute::cpu(1))
        };
        let all = load(&own).unwrap().infer(&image).unwrap();
        let mut pipeline = Pipeline::new(&student, PipelineOptions { threads: 1, ..Default::default() }).unwrap();
        let (width, height) = image.dimensions();
        let view = ImageView::new("rgb8", width, height, 3 * width, image.as_raw()).unwrap();
        let mask = all.mask.unwrap();
        assert_eq!(mask.decided().0, pipeline.process(&view).unwrap().mask);
        assert!(all.boxes.is_empty(), "boxes were not wanted");

        let mut teacher = load(&wanted).unwrap();
        assert_eq!((teacher.knows_boxes(), teacher.knows_masks()), (None, Some(vec![true, false, true])));
        let some = teacher.infer(&image).unwrap().mask.unwrap();
        let plane = |mask: &SoftMask, c: usize| {
            let cells = mask.width * mask.height;
            mask.logits[c * cells..][..cells].to_vec()
        };
        assert_eq!(plane(&some, 0), plane(&mask, 3));
        assert_eq!(plane(&some, 2), plane(&mask, 0));
        assert!(plane(&some, 1).iter().all(|&v| v == UNKNOWN_CLASS));
        let error = load(&wanted[1..2]).err().unwrap().to_string();
        assert!(error.contains("lava") && error.contains("person"), "{error}");
    }

    #[test]
    fn it_detects_the_objects_that_the_pipeline_does() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let image = load_image(&root.join("models/frames/highway-12.jpg")).unwrap();
        let student = Student::embedded();
        let wanted = Wanted { detection: student.manifest.architecture.detection_classes(), ..Wanted::default() };
        let mut teacher = PackageTeacher::load(&root.join("models/peregrine-s"), wanted, &[], Compute::cpu(1)).unwrap();
        let found_by_teacher = teacher.infer(&image).unwrap().boxes;
        let options = PipelineOptions { score_threshold: 0.3, threads: 1, ..Default::default() };
        let mut pipeline = Pipeline::new(&student, options).unwrap();
        let (width, height) = image.dimensions();
        let view = ImageView::new("rgb8", width, height, 3 * width, image.as_raw()).unwrap();
        let found = pipeline.process(&view).unwrap().detections.clone();
        assert!(!found.is_empty());
        for (i, detection) in found.iter().enumerate() {
            // The pipeline may detect one object as two classes; the teacher keeps the likelier,
            // with all logits.
            if found[..i].iter().any(|d| d.bbox.iou(&detection.bbox) > 0.5) {
                continue;
            }
            let twin =
                found_by_teacher.iter().find(|s| s.best().0 == detection.class && s.bbox.iou(&detection.bbox) > 0.99);
            assert!((twin.unwrap().score() - detection.score).abs() < 1e-4);
        }
    }
}
