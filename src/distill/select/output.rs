//! What a selection writes: a list, JSON, a folder of the frames, and COCO labels to correct.

use std::path::{Path, PathBuf};

use anyhow::Context;
use peregrine_core::files::write_atomically;
use peregrine_core::Detection;
use serde::Serialize;

use super::choose::Chosen;

/// One selected frame.
#[derive(Debug, Clone, Serialize)]
pub struct Selected {
    /// Its name in `images/`.
    pub file: String,
    /// Where it is from.
    pub path: PathBuf,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// About the number of objects that the teachers see and the student does not, or otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub student_disagreement: Option<f32>,
    /// The same between two teachers, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_disagreement: Option<f32>,
    /// The fraction of the frames that have no more disagreement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f32>,
    /// To the nearest frame that was selected before, in standard deviations of the features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<f32>,
    /// Frames of the pool that it is nearer to than all that were selected before it, about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearer: Option<usize>,
    pub reason: String,
    /// The teachers' objects, in pixels.
    pub objects: Vec<Detection>,
}

/// A selection, as `selected.json` has it.
#[derive(Debug, Clone, Serialize)]
pub struct Selection {
    pub strategy: String,
    pub seed: u64,
    pub budget: usize,
    /// Frames that were looked at.
    pub frames: usize,
    /// Near-copies of selected frames, which were passed over: each with that frame.
    pub near_copies: Vec<(String, String)>,
    /// Files that were left out, and why.
    pub skipped: Vec<(PathBuf, String)>,
    pub classes: Vec<String>,
    /// The most valuable first.
    pub selected: Vec<Selected>,
}

/// Why a frame was selected, from its scores.
pub fn reason(disagreements: [f32; 2], chosen: &Chosen) -> String {
    let [student, teachers] = disagreements;
    let mut parts = Vec::new();
    if student >= 0.25 {
        parts.push(format!("student and teachers disagree on about {student:.1} objects"));
    }
    if teachers >= 0.25 {
        parts.push(format!("the teachers disagree on about {teachers:.1}"));
    }
    match (chosen.nearer, chosen.distance) {
        (Some(frames), None) => parts.insert(0, format!("it stands best for all {frames} frames")),
        (Some(frames), Some(_)) => parts.insert(0, format!("about {frames} frames are more like it than those before")),
        (None, None) => parts.push("it has the most disagreement".into()),
        (None, Some(d)) if d >= 1.0 || parts.is_empty() => {
            parts.push(format!("it looks unlike the frames before it ({d:.1} standard deviations)"));
        }
        (None, Some(_)) => {}
    }
    parts.join("; ")
}

impl Selection {
    /// Writes `selected.txt`, `selected.json`, `images/` and `annotations.json` into `folder`.
    /// Objects from the score `label_score` on become labels.
    ///
    /// # Errors
    /// Names the file that cannot be read or written.
    pub fn write(&self, folder: &Path, label_score: f32) -> anyhow::Result<()> {
        let images = folder.join("images");
        // Of an earlier selection, only what this one has too may remain.
        if images.exists() {
            std::fs::remove_dir_all(&images).with_context(|| images.display().to_string())?;
        }
        std::fs::create_dir_all(&images).with_context(|| images.display().to_string())?;
        for frame in &self.selected {
            let to = images.join(&frame.file);
            std::fs::copy(&frame.path, &to).with_context(|| format!("{} to {}", frame.path.display(), to.display()))?;
        }
        let list: String = self.selected.iter().map(|frame| format!("{}\n", frame.path.display())).collect();
        write_atomically(&folder.join("selected.txt"), list.as_bytes())?;
        write_atomically(&folder.join("selected.json"), &serde_json::to_vec_pretty(self)?)?;
        let coco = serde_json::to_vec(&self.coco(label_score))?;
        Ok(write_atomically(&folder.join("annotations.json"), &coco)?)
    }

    /// The teachers' objects as a COCO data set, which CVAT and label tools like it import as "COCO
    /// 1.0".
    fn coco(&self, label_score: f32) -> Coco<'_> {
        let images = self.selected.iter().zip(1..).map(|(frame, id)| CocoImage {
            id,
            file_name: &frame.file,
            width: frame.size.0,
            height: frame.size.1,
        });
        let objects = self.selected.iter().zip(1..).flat_map(|(frame, image)| {
            frame.objects.iter().filter(|object| object.score >= label_score).map(move |object| (image, object))
        });
        let annotations = objects.zip(1..).map(|((image_id, object), id)| CocoAnnotation {
            id,
            image_id,
            category_id: object.class + 1,
            bbox: [object.bbox.x_min, object.bbox.y_min, object.bbox.width(), object.bbox.height()],
            area: object.bbox.area(),
            iscrowd: 0,
            segmentation: [],
            score: object.score,
        });
        Coco {
            images: images.collect(),
            annotations: annotations.collect(),
            categories: self.classes.iter().zip(1..).map(|(name, id)| CocoCategory { id, name }).collect(),
        }
    }
}

#[derive(Serialize)]
struct Coco<'a> {
    images: Vec<CocoImage<'a>>,
    annotations: Vec<CocoAnnotation>,
    categories: Vec<CocoCategory<'a>>,
}

#[derive(Serialize)]
struct CocoImage<'a> {
    id: usize,
    file_name: &'a str,
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct CocoAnnotation {
    id: usize,
    image_id: usize,
    /// From 1 on.
    category_id: usize,
    /// Left, top, width, height in pixels.
    bbox: [f32; 4],
    area: f32,
    iscrowd: u8,
    segmentation: [f32; 0],
    score: f32,
}

#[derive(Serialize)]
struct CocoCategory<'a> {
    id: usize,
    name: &'a str,
}
