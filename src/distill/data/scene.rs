//! Scene labels: what an image shows as a whole, for each group of a student's scene head.
//!
//! They come from `scene.csv` in the set's folder (a line for each image), else from the folders of
//! a set that has one for each class ([`class_folders`]), else from
//! `scene` in `dataset.toml`, which is about all images. An image may have labels of some groups
//! alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use peregrine_core::files::read_text_at_most;
use peregrine_student::SceneHead;
use serde::{Deserialize, Deserializer};

use super::config::{DatasetConfig, IGNORE};
use super::files::stem;
use super::layout::class_folders;
use super::{names, DataError, Skipped};

/// Name of the file with a line for each image.
pub const CSV_FILE: &str = "scene.csv";
/// Its column of images.
const IMAGE: &str = "image";
/// Its column of classes of any group.
const LABEL: &str = "label";
/// The largest such file in bytes.
const LARGEST: u64 = 256 << 20;

/// The scene labels of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SceneLabels {
    /// As they are labelled, by the names in `[scene_classes]` where it has them.
    pub names: Vec<String>,
    /// For each group of the student's head its class; empty without a head.
    pub classes: Vec<Option<usize>>,
}

impl SceneLabels {
    /// Whether there is a label of one of the head's groups.
    pub fn is_labelled(&self) -> bool {
        self.classes.iter().any(Option::is_some)
    }
}

/// One name or a list of names, as `scene` in `dataset.toml` may be written.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "scene must be a class, or a list with a class of each group")]
    enum Written {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Written::deserialize(from)? {
        Written::One(name) => vec![name],
        Written::Many(names) => names,
    })
}

/// For balanced sampling, the sum of the `scenes`' weights up to each: a weight is the mean, over the
/// groups in which the image is labelled, of 1 / (images of its class), so that each class of a group
/// is drawn as often; that of an image without a label is the mean of the others.
pub fn balance<'a>(scenes: impl Iterator<Item = &'a [Option<usize>]> + Clone) -> Vec<f64> {
    let mut counts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let places =
        |scene: &'a [Option<usize>]| scene.iter().enumerate().filter_map(|(group, class)| Some((group, (*class)?)));
    scenes.clone().flat_map(places).for_each(|place| *counts.entry(place).or_default() += 1);
    let weight = |scene: &'a [Option<usize>]| {
        let shares: Vec<f64> = places(scene).map(|place| 1.0 / counts[&place] as f64).collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    };
    let weights: Vec<Option<f64>> = scenes.map(weight).collect();
    let known = weights.iter().flatten().count();
    let mean = if known == 0 { 1.0 } else { weights.iter().flatten().sum::<f64>() / known as f64 };
    let mut sum = 0.0;
    let add = |weight: Option<f64>| {
        sum += weight.unwrap_or(mean);
        sum
    };
    weights.into_iter().map(add).collect()
}

/// Gives the images of a data set their scene labels.
pub struct SceneLabeller<'a> {
    head: Option<&'a SceneHead>,
    config: &'a DatasetConfig,
    /// Of `scene.csv`, by the image; `None` without the file.
    by_image: Option<BTreeMap<String, (SceneLabels, u64)>>,
    csv: PathBuf,
    of_folders: bool,
    of_set: SceneLabels,
}

impl<'a> SceneLabeller<'a> {
    /// For the data set of `layout` in `folder`, which `config`, from `config_path`, describes.
    ///
    /// # Errors
    /// Names the file, and the line or key with a class that the head lacks.
    pub fn open(
        folder: &Path,
        layout: &str,
        (config, config_path): (&'a DatasetConfig, &Path),
        head: Option<&'a SceneHead>,
    ) -> Result<Self, DataError> {
        let csv = if folder.is_dir() { folder.join(CSV_FILE) } else { folder.with_file_name(CSV_FILE) };
        let mut labeller = Self {
            head,
            config,
            by_image: None,
            csv,
            of_folders: layout == class_folders::NAME,
            of_set: SceneLabels::default(),
        };
        let at_config = |why| DataError::Config { path: config_path.to_owned(), why };
        labeller.check_map().map_err(at_config)?;
        let mut of_set = SceneLabels::default();
        for name in &config.scene {
            labeller.add(&mut of_set, name, None).map_err(|why| at_config(format!("scene: {why}")))?;
        }
        labeller.of_set = of_set;
        if labeller.csv.is_file() {
            labeller.by_image = Some(labeller.read_csv()?);
        }
        Ok(labeller)
    }

    /// The labels of the image called `name` within the set; `image` is its file.
    ///
    /// # Errors
    /// When its folder is none of the head's classes.
    pub fn of(&mut self, name: &str, image: &Path) -> Result<SceneLabels, DataError> {
        if let Some(lines) = &mut self.by_image {
            let key = if lines.contains_key(name) { name } else { stem(name) };
            return Ok(lines.remove(key).map(|(labels, _)| labels).unwrap_or_else(|| self.of_set.clone()));
        }
        let folder = name.split_once('/').map(|(folder, _)| folder).filter(|_| self.of_folders);
        let Some(folder) = folder else { return Ok(self.of_set.clone()) };
        let mut labels = SceneLabels::default();
        self.add(&mut labels, folder, None).map_err(|why| {
            let depth = name.matches('/').count();
            let path = image.ancestors().nth(depth).unwrap_or(image).to_owned();
            DataError::Config { path, why }
        })?;
        Ok(labels)
    }

    /// The lines of `scene.csv` whose image is not in the set.
    pub fn left_over(self) -> Vec<Skipped> {
        let line = |(image, (_, line)): (String, (SceneLabels, u64))| Skipped {
            path: self.csv.clone(),
            reason: format!("line {line}: a label without an image: there is no {image:?}"),
        };
        self.by_image.into_iter().flatten().map(line).collect()
    }

    /// Checks that `[scene_classes]` leads to classes of the head.
    fn check_map(&self) -> Result<(), String> {
        let Some(head) = self.head else { return Ok(()) };
        let lost = |(_, to): &(&String, &String)| *to != IGNORE && head.place_of(to).is_none();
        match self.config.scene_classes.iter().find(lost) {
            Some((from, to)) => Err(format!(
                "scene_classes.{from:?} maps to {to:?}; the student's scenes are {} (or write \"{IGNORE}\"){}",
                head.classes().join(", "),
                names::did_you_mean(to, &head.classes())
            )),
            None => Ok(()),
        }
    }

    /// Adds the label `name`, which must be of `group` if one is given.
    fn add(&self, labels: &mut SceneLabels, name: &str, group: Option<usize>) -> Result<(), String> {
        let mapped = self.config.scene_classes.get(name).map_or(name, String::as_str);
        let Some(head) = self.head else {
            labels.names.push(mapped.to_owned());
            return Ok(());
        };
        labels.classes.resize(head.0.len(), None);
        if mapped == IGNORE {
            return Ok(());
        }
        let of_group = |(at, _): &(usize, usize)| group.is_none_or(|group| group == *at);
        let place = head.place_of(mapped).filter(of_group);
        let (at, class) = place.ok_or_else(|| unknown(head, mapped, group))?;
        match labels.classes[at].replace(class) {
            Some(other) if other != class => {
                let (group, classes) = head.groups().nth(at).unwrap_or_default();
                Err(format!("{:?} and {mapped:?} are both of the group {group}; leave one out", classes[other]))
            }
            _ => {
                labels.names.push(mapped.to_owned());
                Ok(())
            }
        }
    }

    fn read_csv(&self) -> Result<BTreeMap<String, (SceneLabels, u64)>, DataError> {
        let path = &self.csv;
        let at = |line: u64, why: String| DataError::Label { path: path.clone(), line: line as usize, why };
        let text = read_text_at_most(path, LARGEST).map_err(|e| DataError::Io { path: e.path, source: e.source })?;
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.trim_start_matches('\u{feff}').as_bytes());
        let fault = |e: csv::Error| at(e.position().map_or(1, |p| p.line()), e.to_string());
        let header = reader.headers().map_err(fault)?.clone();
        let columns = self.columns(&header).map_err(|why| at(1, why))?;
        let mut lines = BTreeMap::new();
        for record in reader.records() {
            let record = record.map_err(fault)?;
            let line = record.position().map_or(0, |p| p.line());
            let mut labels = SceneLabels { names: vec![], classes: vec![None; self.head.map_or(0, |h| h.0.len())] };
            for (value, group) in columns.labels.iter().map(|(column, group)| (&record[*column], *group)) {
                if !value.is_empty() {
                    self.add(&mut labels, value, group).map_err(|why| at(line, why))?;
                }
            }
            let image = record[columns.image].trim_start_matches("./").trim_start_matches("images/").to_owned();
            if let Some((_, other)) = lines.insert(image, (labels, line)) {
                return Err(at(line, format!("{} has a label in line {other} already", &record[columns.image])));
            }
        }
        Ok(lines)
    }

    fn columns(&self, header: &csv::StringRecord) -> Result<Columns, String> {
        let image = header.iter().position(|name| name == IMAGE);
        let image = image.ok_or_else(|| format!("the header has no column {IMAGE:?}"))?;
        let (mut labels, mut others) = (Vec::new(), Vec::new());
        for (column, name) in header.iter().enumerate().filter(|(column, _)| *column != image) {
            let group = self.head.and_then(|head| head.groups().position(|(group, _)| group == name));
            if group.is_some() || name == LABEL || self.head.is_none() {
                labels.push((column, group));
            } else {
                others.push(name);
            }
        }
        if labels.is_empty() {
            let groups: Vec<&str> = self.head.iter().flat_map(|head| head.groups()).map(|(group, _)| group).collect();
            return Err(format!(
                "the header has neither a column {LABEL:?} nor one of the student's groups of scenes ({})",
                groups.join(", ")
            ));
        }
        if !others.is_empty() {
            tracing::warn!("{}: columns that are not read: {}", self.csv.display(), others.join(", "));
        }
        Ok(Columns { image, labels })
    }
}

/// Says that `name` is no class of the head, or of one of its groups.
fn unknown(head: &SceneHead, name: &str, group: Option<usize>) -> String {
    let known = match group.and_then(|group| head.groups().nth(group)) {
        Some((group, classes)) => format!("{group}: {}", classes.join(", ")),
        None => head.classes().join(", "),
    };
    format!(
        "the scene {name:?} is no class of the student's ({known}); correct it, name it in student.scene, or map it in \
         [scene_classes] of dataset.toml, to a class or to \"{IGNORE}\"{}",
        names::did_you_mean(name, &head.classes())
    )
}

/// The columns of `scene.csv`.
struct Columns {
    image: usize,
    /// Of labels, with the group where the column is of one.
    labels: Vec<(usize, Option<usize>)>,
}
