//! Ultralytics' and Roboflow's layout: a YAML file with `names`, and for each split a folder of
//! images, a list of folders, or a text file that lists images. The label file of
//! `…/images/…/a.jpg` is `…/labels/…/a.txt`; without a folder `images`, it lies beside the image.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::super::files::{Files, IMAGES};
use super::super::{names, DataError, Skipped};
use super::text::read_text;
use super::yolo::{self, Columns};
use super::{Entry, Labels, Listing, Request};

/// Splits by the key of the file; Roboflow's folder is `valid`, its key `val`.
const SPLITS: [&str; 3] = ["train", "val", "test"];
/// Most classes that a list may have.
const MOST_CLASSES: usize = 10_000;

/// The file, as far as it is read.
#[derive(Debug, Clone, Deserialize)]
struct Keys {
    path: Option<String>,
    train: Option<Paths>,
    val: Option<Paths>,
    valid: Option<Paths>,
    test: Option<Paths>,
    names: Option<Names>,
    nc: Option<usize>,
    kpt_shape: Option<Vec<usize>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Paths {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Names {
    List(Vec<Name>),
    Map(BTreeMap<usize, Name>),
}

/// A class may be called `1` or `yes`, which YAML takes for something else.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Whole(i64),
    Real(f64),
    Truth(bool),
}

/// A YAML file that describes a data set.
#[derive(Debug, Clone)]
pub struct DataYaml {
    pub path: PathBuf,
    keys: Keys,
    names: Vec<String>,
}

impl DataYaml {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, or `names` is missing or is no list of classes.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let at = |why: String| DataError::Config { path: path.to_owned(), why };
        let keys: Keys = serde_saphyr::from_str(&read_text(path)?)
            .map_err(|e| at(format!("invalid YAML: {}", e.to_string().lines().next().unwrap_or_default())))?;
        let names = match keys.names.clone() {
            None => return Err(at("has no names; add the classes there, as names: [car, person]".into())),
            Some(Names::List(list)) => list.into_iter().map(Name::text).collect(),
            Some(Names::Map(map)) => numbered(&map).map_err(at)?,
        };
        if names.is_empty() {
            return Err(at("names is empty; list the classes there".into()));
        }
        if let Some(nc) = keys.nc.filter(|nc| *nc != names.len()) {
            return Err(at(format!("nc is {nc}, but names has {} classes; correct one", names.len())));
        }
        if let Some(name) = names::doubled(&names) {
            return Err(at(format!("names has {name:?} twice; give each class a name of its own")));
        }
        Ok(Self { path: path.to_owned(), keys, names })
    }

    /// The classes by number.
    pub fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Numbers for keypoints in each line.
    pub fn keypoints(&self) -> usize {
        self.keys.kpt_shape.as_ref().map_or(0, |shape| shape.iter().fold(1, |a, b| usize::saturating_mul(a, *b)))
    }

    /// The splits that the file names and that are there.
    pub fn splits(&self) -> Vec<String> {
        let there = |split: &&&str| self.of(split).is_some_and(|paths| paths.iter().any(|p| self.find(p).is_some()));
        SPLITS.iter().filter(there).map(|split| (*split).to_owned()).collect()
    }

    /// Whether the file is about the images in `folder`: one of its splits lies there, or none lies
    /// anywhere, as after a move.
    pub fn is_about(&self, folder: &Path) -> bool {
        let paths = SPLITS.iter().filter_map(|split| self.of(split)).flatten();
        let found: Vec<PathBuf> = paths.filter_map(|path| self.find(&path)?.canonicalize().ok()).collect();
        found.is_empty() || found.iter().any(|path| path.starts_with(folder))
    }

    fn of(&self, split: &str) -> Option<Vec<String>> {
        let keys = &self.keys;
        let paths = match split {
            "train" => keys.train.as_ref(),
            "val" | "valid" => keys.val.as_ref().or(keys.valid.as_ref()),
            "test" => keys.test.as_ref(),
            _ => None,
        };
        match paths? {
            Paths::One(path) if path.is_empty() => None,
            Paths::One(path) => Some(vec![path.clone()]),
            Paths::Many(paths) => (!paths.is_empty()).then(|| paths.clone()),
        }
    }

    /// Where a path of the file leads: from `path`, or from the file's own folder where that leads
    /// nowhere (`path` is often that of another machine). Roboflow writes `../train/images` for
    /// what is `train/images`.
    fn find(&self, path: &str) -> Option<PathBuf> {
        let here = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let roots = self.keys.path.as_ref().map(|root| here.join(root)).into_iter().chain([here.to_owned()]);
        let paths = [Some(path), path.strip_prefix("../")];
        roots
            .flat_map(|root| paths.map(|path| path.map(|path| root.join(path))))
            .flatten()
            .find(|candidate| candidate.exists())
    }
}

impl Name {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Whole(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Truth(truth) => truth.to_string(),
        }
    }
}

/// The names of a map from numbers: none may be missing.
fn numbered(map: &BTreeMap<usize, Name>) -> Result<Vec<String>, String> {
    let last = map.keys().next_back().copied().unwrap_or_default();
    if last >= MOST_CLASSES {
        return Err(format!("names has the class {last}; up to {MOST_CLASSES} are read"));
    }
    let name = |i: usize| {
        let missing = || format!("names has no class {i}, though it has {last}; number them from 0 without a gap");
        map.get(&i).cloned().map(Name::text).ok_or_else(missing)
    };
    (0..map.len().max(last + 1)).map(name).collect()
}

/// The YAML file of a folder that describes a data set; `None` without one.
///
/// # Errors
/// When `data.yaml` is invalid, or several others describe one.
pub fn find(folder: &Path) -> Result<Option<DataYaml>, DataError> {
    for name in ["data.yaml", "data.yml"] {
        if folder.join(name).is_file() {
            return DataYaml::read(&folder.join(name)).map(Some);
        }
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(None) };
    let paths = entries.flatten().map(|entry| entry.path()).filter(|p| is_yaml(p) && p.is_file());
    let mut found: Vec<DataYaml> = paths.filter_map(|path| DataYaml::read(&path).ok()).collect();
    found.retain(|yaml| SPLITS.iter().any(|split| yaml.of(split).is_some()));
    if found.len() > 1 {
        found.sort_by(|a, b| a.path.cmp(&b.path));
        let why = format!("{} describes a data set too; name the one that is meant", found[1].path.display());
        return Err(DataError::Config { path: found[0].path.clone(), why });
    }
    Ok(found.pop())
}

/// Whether a file is called a YAML file.
pub fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"))
}

/// Reads a split.
///
/// # Errors
/// When the file is invalid, or names no such split, or it leads nowhere.
pub fn read(request: &Request, yaml: &DataYaml) -> Result<Listing, DataError> {
    let at = |why: String| DataError::Config { path: yaml.path.clone(), why };
    let split = request.split.as_deref().unwrap_or("train");
    let paths = yaml.of(split).ok_or_else(|| at(format!("names no {split}; it has {}", yaml.splits().join(", "))))?;
    let (config, config_path) = request.numbered_config(&yaml.names, &yaml.path)?;
    let (mut images, mut skipped) = (BTreeMap::new(), Vec::new());
    for path in &paths {
        let found = yaml.find(path).ok_or_else(|| {
            at(format!("{split} is {path:?}, which is not there; correct the path, relative to this file"))
        })?;
        let listed = if found.is_dir() { Files::under(&found, &IMAGES)? } else { list(&found)? };
        for (name, image) in listed.found {
            // Two folders may have images of the same name.
            let name = if images.contains_key(&name) { format!("{path}/{name}") } else { name };
            images.insert(name, image);
        }
        skipped.extend(listed.others.into_iter().filter(|file| !is_beside(&file.path)));
    }
    let columns = Columns { classes: yaml.names.len(), keypoints: yaml.keypoints(), outlines: request.outlines };
    let entry = |(name, image): (String, PathBuf)| {
        let label_file = Some(label_of(&image)).filter(|path| path.is_file());
        let labels = match &label_file {
            None => Ok(Labels::Unlabelled),
            Some(path) => yolo::read(path, columns).map(Labels::Objects),
        };
        Entry { name, image, size: None, labels, label_file }
    };
    let entries: Vec<Entry> = images.into_iter().map(entry).collect();
    // A list may name some of a folder's images, whose other labels are no orphans.
    if paths.iter().all(|path| yaml.find(path).is_some_and(|found| found.is_dir())) {
        skipped.extend(orphans(&entries)?);
    }
    Ok(Listing { layout: "Ultralytics YAML", config, config_path, entries, skipped })
}

/// Labels and caches that lie beside the images.
fn is_beside(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "txt" || e == "cache")
}

/// Label files without an image, in the label folders of `entries`.
fn orphans(entries: &[Entry]) -> Result<Vec<Skipped>, DataError> {
    let used: std::collections::HashSet<PathBuf> = entries.iter().filter_map(|e| e.label_file.clone()).collect();
    let folder = |entry: &Entry| Some(label_of(&entry.image).parent()?.to_owned());
    let folders: std::collections::BTreeSet<PathBuf> = entries.iter().filter_map(folder).collect();
    let mut skipped = Vec::new();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let files = std::fs::read_dir(folder).map_err(|source| DataError::Io { path: folder.clone(), source })?;
        let mut files: Vec<PathBuf> = files.flatten().map(|file| file.path()).filter(|path| path.is_file()).collect();
        files.sort();
        for path in files.into_iter().filter(|path| !used.contains(path)) {
            let image = IMAGES.contains(&path.extension().and_then(|e| e.to_str()).unwrap_or_default());
            let known = path.extension().is_some_and(|e| e == "cache") || path.ends_with("classes.txt") || image;
            if !known {
                let text = path.extension().is_some_and(|e| e == "txt");
                let reason = if text { "a label without an image" } else { "not read: labels are .txt here" };
                skipped.push(Skipped { path, reason: reason.into() });
            }
        }
    }
    Ok(skipped)
}

/// The images that a text file lists, one a line, relative to it.
fn list(path: &Path) -> Result<Files, DataError> {
    let here = path.parent().unwrap_or(Path::new("."));
    let mut files = Files::default();
    let text = read_text(path)?;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let candidates = [here.join(line), PathBuf::from(line), here.join(line.trim_start_matches("data/"))];
        match candidates.iter().find(|p| p.is_file()) {
            Some(image) => {
                files.found.insert(line.trim_start_matches("./").to_owned(), image.clone());
            }
            None => {
                let reason = format!("listed in {}, but not there", path.display());
                files.others.push(Skipped { path: here.join(line), reason });
            }
        }
    }
    Ok(files)
}

/// Ultralytics' rule: the last folder `images` becomes `labels`, the ending `.txt`.
fn label_of(image: &Path) -> PathBuf {
    let parts: Vec<Component> = image.components().collect();
    let last = parts.len().saturating_sub(1);
    let images = parts[..last].iter().rposition(|part| part.as_os_str() == "images");
    let replaced = parts.iter().enumerate().map(|(i, part)| match images {
        Some(at) if at == i => Path::new("labels").as_os_str(),
        _ => part.as_os_str(),
    });
    replaced.collect::<PathBuf>().with_extension("txt")
}
