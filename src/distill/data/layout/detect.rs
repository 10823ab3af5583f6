//! Which layout a folder or file has.

use std::path::{Path, PathBuf};

use super::super::address::Address;
use super::super::config::DatasetConfig;
use super::super::DataError;
use super::ultralytics::{self, DataYaml};
use super::{bdd, cityscapes, class_folders, coco, cvat, kitti, labelme, near, own, voc, Listing, Request};

/// A layout, and the file that describes the set.
#[derive(Debug)]
pub enum Layout {
    Own,
    Ultralytics(Box<DataYaml>),
    /// The files by split.
    Coco(Vec<(String, PathBuf)>),
    Voc,
    Kitti,
    Bdd(PathBuf),
    Cityscapes,
    LabelMe,
    Cvat(PathBuf),
    /// A folder for each class of scenes.
    ClassFolders,
    /// A folder of splits, each a folder of its own.
    Splits(Vec<String>),
}

impl Layout {
    /// Looks into a folder or file.
    ///
    /// # Errors
    /// When a file that describes it is invalid.
    pub fn of(path: &Path) -> Result<Self, DataError> {
        if path.is_file() {
            return Self::of_file(path);
        }
        let images = path.join("images").is_dir();
        let labels = path.join("labels").is_dir();
        if let Some(yaml) = ultralytics::find(path)?.filter(|yaml| !yaml.splits().is_empty()) {
            return Ok(Self::Ultralytics(Box::new(yaml)));
        }
        if images && labels {
            return Ok(Self::Own);
        }
        if cityscapes::is(path) {
            return Ok(Self::Cityscapes);
        }
        if kitti::is_folder(path) {
            return Ok(Self::Kitti);
        }
        if voc::is(path) {
            return Ok(Self::Voc);
        }
        let annotations = path.join(cvat::FILE);
        if annotations.is_file() && cvat::is(&near::beginning(&annotations)) {
            return Ok(Self::Cvat(annotations));
        }
        let files = coco::files(path);
        if !files.is_empty() {
            return Ok(Self::Coco(files));
        }
        if labelme::is(path) {
            return Ok(Self::LabelMe);
        }
        let split = |split: &&&str| {
            let folder = path.join(**split);
            folder.join("images").is_dir() || class_folders::is(&folder)
        };
        let splits: Vec<String> =
            ["train", "val", "valid", "test"].iter().filter(split).map(|s| (*s).to_owned()).collect();
        if !images && !splits.is_empty() {
            return Ok(Self::Splits(splits));
        }
        if !images && class_folders::is(path) {
            return Ok(Self::ClassFolders);
        }
        Ok(Self::Own)
    }

    fn of_file(path: &Path) -> Result<Self, DataError> {
        let beginning = near::beginning(path);
        if ultralytics::is_yaml(path) {
            return DataYaml::read(path).map(|yaml| Self::Ultralytics(Box::new(yaml)));
        }
        if cvat::is(&beginning) {
            return Ok(Self::Cvat(path.to_owned()));
        }
        if bdd::is(&beginning) {
            return Ok(Self::Bdd(path.to_owned()));
        }
        if coco::is(&beginning) {
            return Ok(Self::Coco(vec![(String::new(), path.to_owned())]));
        }
        let hint = "; as a file, data.yaml, COCO or BDD100K JSON and CVAT XML are read".to_owned();
        Err(DataError::Layout { folder: path.to_owned(), hint })
    }

    /// The splits among which to choose.
    pub fn splits(&self, path: &Path) -> Vec<String> {
        match self {
            Self::Ultralytics(yaml) => yaml.splits(),
            Self::Coco(files) => files.iter().map(|(split, _)| split.clone()).filter(|s| !s.is_empty()).collect(),
            Self::Voc => voc::splits(path),
            Self::Cityscapes => cityscapes::splits(path),
            Self::Splits(splits) => splits.clone(),
            Self::Own | Self::Kitti | Self::Bdd(_) | Self::LabelMe | Self::Cvat(_) | Self::ClassFolders => Vec::new(),
        }
    }

    /// Reads a split.
    ///
    /// # Errors
    /// When the layout is unusable. Single files at fault are in the listing.
    pub fn read(&self, request: &Request) -> Result<Listing, DataError> {
        match self {
            Self::Own | Self::Splits(_) => own::read(request),
            Self::Ultralytics(yaml) => ultralytics::read(request, yaml),
            Self::Coco(files) => {
                let chosen = files.iter().find(|(split, _)| request.split.as_ref().is_none_or(|s| s == split));
                let (_, file) = chosen.ok_or_else(|| DataError::Layout {
                    folder: request.path.clone(),
                    hint: ", nor a JSON file of that split".into(),
                })?;
                coco::read(request, file)
            }
            Self::Voc => voc::read(request),
            Self::Kitti => kitti::read(request),
            Self::Bdd(file) => bdd::read(request, file),
            Self::Cityscapes => cityscapes::read(request),
            Self::LabelMe => labelme::read(request),
            Self::Cvat(file) => cvat::read(request, file),
            Self::ClassFolders => class_folders::read(request),
        }
    }
}

/// The splits of the data set, each as a name that can be opened; `name` itself where there is
/// nothing to choose.
///
/// # Errors
/// When a file that describes it is invalid, or it cannot be copied from an object store.
pub fn splits(name: &Path) -> Result<Vec<PathBuf>, DataError> {
    let address = Address::parse(name).here()?;
    if address.split.is_some() {
        return Ok(vec![name.to_owned()]);
    }
    let layout = Layout::of(&address.path)?;
    let splits = layout.splits(&address.path);
    if splits.is_empty() || matches!(layout, Layout::Voc) {
        return Ok(vec![name.to_owned()]);
    }
    Ok(splits.iter().map(|split| of_split(&address, &layout, split)).collect())
}

fn of_split(address: &Address, layout: &Layout, split: &str) -> PathBuf {
    match layout {
        Layout::Splits(_) => address.of_folder(&address.path.join(split)),
        _ => address.of_split(split),
    }
}

/// Reads a data set, and says which split it is.
///
/// # Errors
/// When it cannot be read, or has several splits and none is chosen.
pub fn read(
    address: &Address,
    given: Option<(DatasetConfig, PathBuf)>,
    outlines: bool,
) -> Result<(Listing, Option<String>), DataError> {
    let layout = Layout::of(&address.path)?;
    let splits = layout.splits(&address.path);
    let path = address.path.clone();
    let at = |why| DataError::Config { path: path.clone(), why };
    let mut chosen = address.split.clone();
    match &chosen {
        Some(split) if !splits.contains(split) => {
            let has = if splits.is_empty() { "no splits".to_owned() } else { splits.join(", ") };
            return Err(at(format!("has no split {split:?}; it has {has}")));
        }
        Some(split) if matches!(layout, Layout::Splits(_)) => {
            let folder = Address { path: path.join(split), split: None, config: None };
            return read(&folder, given, outlines);
        }
        None if matches!(layout, Layout::Voc | Layout::Splits(_)) => {}
        None if splits.len() == 1 => chosen = splits.first().cloned(),
        None if splits.len() > 1 => {
            let names: Vec<String> =
                splits.iter().map(|split| of_split(address, &layout, split).display().to_string()).collect();
            return Err(at(format!("has the splits {}; name one, as {}", splits.join(", "), names.join(" or "))));
        }
        _ => {}
    }
    let request = Request { path: path.clone(), split: chosen.clone(), given, outlines };
    layout.read(&request).map(|listing| (listing, chosen))
}
