//! A folder for each class of scenes, with its images: `day/…`, `night/…`, as torchvision's
//! ImageFolder has it.

use std::fs;
use std::path::Path;

use super::super::files::{Files, IMAGES};
use super::super::{DataError, Skipped};
use super::{Entry, Labels, Listing, Request};

/// The layout's name.
pub const NAME: &str = "a folder for each class";
/// Folders that are no classes.
const OTHERS: [&str; 4] = ["images", "labels", "annotations", "masks"];

/// Whether `path` is such a set: folders, one of them with images, and none that other layouts have.
pub fn is(path: &Path) -> bool {
    let Ok(folders) = folders(path) else { return false };
    let is_other = |name: &String| OTHERS.contains(&name.to_lowercase().as_str());
    !folders.is_empty() && !folders.iter().any(is_other) && folders.iter().any(|name| has_image(&path.join(name)))
}

/// Reads the folder.
///
/// # Errors
/// When a folder cannot be read, or a class's folder holds no image.
pub fn read(request: &Request) -> Result<Listing, DataError> {
    let path = &request.path;
    let files = Files::under(path, &IMAGES)?;
    let (config, config_path) = request.config_or(&[], path);
    for name in folders(path)? {
        let within = format!("{name}/");
        if !files.found.keys().any(|image| image.starts_with(&within)) {
            let why = "holds no image that is read; put the images of this class there, or remove the folder".into();
            return Err(DataError::Config { path: path.join(name), why });
        }
    }
    let (classed, loose): (Vec<_>, Vec<_>) = files.found.into_iter().partition(|(name, _)| name.contains('/'));
    let entry = |(name, image)| Entry { name, image, size: None, labels: Ok(Labels::Unlabelled), label_file: None };
    let loose = loose.into_iter().map(|(_, path)| Skipped { path, reason: "lies in no class's folder".into() });
    let described = |file: &Skipped| file.path.extension().is_some_and(|ending| ending == "toml" || ending == "csv");
    let others = files.others.into_iter().filter(|file| !described(file));
    Ok(Listing {
        layout: NAME,
        config,
        config_path,
        entries: classed.into_iter().map(entry).collect(),
        skipped: loose.chain(others).collect(),
    })
}

/// Names of the folders in `path`, without hidden ones.
fn folders(path: &Path) -> Result<Vec<String>, DataError> {
    let at = |source| DataError::Io { path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(at)? {
        let entry = entry.map_err(at)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether an image lies directly in a folder.
fn has_image(folder: &Path) -> bool {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.into_iter().any(|file| super::super::files::has_ending(&file.path(), &IMAGES))
}
