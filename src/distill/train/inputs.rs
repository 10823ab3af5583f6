//! What a training reads besides its configuration, so that it can be taken to another machine.

use std::path::{Component, Path, PathBuf};

use anyhow::{ensure, Context};

use super::config::StudentConfig;
use crate::data::{Address, Dataset};
use crate::store;

/// How the name of a description that is in the program begins.
const BUILTIN: &str = "builtin:";

/// The files and folders that a training with `config` reads, as the configuration names them. Of a data set that is named
/// by a file it is the file's folder. Opens the data sets, so that what is wrong with their labels is told here.
///
/// # Errors
/// When something is missing, or a data set cannot be opened or has images elsewhere; names the field and the path.
pub fn inputs(config: &StudentConfig) -> anyhow::Result<Vec<PathBuf>> {
    let teacher = config.teacher.as_ref().and_then(|teacher| teacher.package.as_ref());
    let mut found = Vec::new();
    for (field, path) in [
        ("init", &config.init),
        ("quantized_as", &config.quantized_as),
        ("soft_targets", &config.soft_targets),
        ("package of [teacher]", &teacher.cloned()),
    ] {
        found.extend(path.as_deref().map(|path| present(field, path)).transpose()?);
    }
    let mut folders = Vec::new();
    for source in &config.data {
        let address = Address::parse(&source.folder);
        let path = present("folder of [[data]]", &address.path)?;
        let description = source.config.as_ref().or(address.config.as_ref());
        if let Some(path) = description.filter(|path| !path.to_string_lossy().starts_with(BUILTIN)) {
            found.push(present("config of [[data]]", path)?);
        }
        // The parent of a bare name is empty.
        let above =
            |path: &Path| path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")).to_owned();
        folders.push(if path.is_file() { above(&path) } else { path });
    }
    let datasets = config.open_data(&config.load_architecture()?)?;
    for (dataset, folder) in datasets.iter().zip(&folders).filter(|(_, folder)| !store::is_address(folder)) {
        refuse_elsewhere(dataset, folder)?;
    }
    found.extend(folders);
    Ok(found)
}

/// `path`, which `field` names, if there is such a file or folder, or it is in an object store.
fn present(field: &str, path: &Path) -> anyhow::Result<PathBuf> {
    ensure!(
        store::is_address(path) || path.exists(),
        "{field} = {:?}: there is no such file or folder; make it, or correct the path, which is from the folder in which \
         the command is started",
        path.display()
    );
    Ok(path.to_owned())
}

/// Refuses a data set that has an image or a mask outside of `folder`, of which nobody can tell what else belongs to it.
fn refuse_elsewhere(dataset: &Dataset, folder: &Path) -> anyhow::Result<()> {
    let whole = |path: &Path| path.canonicalize().with_context(|| path.display().to_string());
    let within = whole(folder)?;
    let files = dataset.samples.iter().flat_map(|sample| [Some(&sample.image), sample.mask.as_ref()]).flatten();
    // By name, since what is reached through a link within the folder is taken along.
    let below =
        |file: &Path| file.strip_prefix(folder).is_ok_and(|rest| !rest.components().any(|c| c == Component::ParentDir));
    for file in files.filter(|file| !below(file)) {
        ensure!(
            whole(file)?.starts_with(&within),
            "the data set {} has {} outside of {}: name the folder above both, or copy the set by distill import",
            dataset.name,
            file.display(),
            folder.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn image(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::new(8, 8).save(path).unwrap();
    }

    fn listed(folder: &Path, text: &str) -> Result<Vec<PathBuf>, String> {
        let config = StudentConfig::parse(&text.replace("DIR", folder.to_str().unwrap())).unwrap();
        inputs(&config).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn all_that_is_named_is_listed_once_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        image(&dir.path().join("set/images/a.png"));
        fs::write(dir.path().join("own.toml"), "name = 'own'\nclasses = ['car']").unwrap();
        let lite = peregrine_support::lite().display().to_string();
        let text = format!(
            "init = '{lite}'\nsoft_targets = 'DIR/soft'\n[teacher]\npackage = '{lite}'\n[[method]]\nkind = 'kd'\non = \
             'class'\nweight = 1.0\n[[data]]\nfolder = 'DIR/set'\nshare = 1.0\nconfig = 'DIR/own.toml'\n[[data]]\nfolder = \
             'DIR/set'\nshare = 1.0\nconfig = 'builtin:vehicles'"
        );
        let why = listed(dir.path(), &text).unwrap_err();
        assert!(why.contains("soft_targets = ") && why.contains("/soft\": there is no such"), "{why}");
        fs::create_dir(dir.path().join("soft")).unwrap();
        let at = |name: &str| dir.path().join(name);
        let package = PathBuf::from(&lite);
        let expected = [package.clone(), at("soft"), package, at("own.toml"), at("set"), at("set")];
        assert_eq!(listed(dir.path(), &text).unwrap(), expected);
        fs::remove_file(dir.path().join("own.toml")).unwrap();
        let why = listed(dir.path(), &text).unwrap_err();
        assert!(why.contains("config of [[data]] = ") && why.contains("own.toml"), "{why}");
    }

    #[test]
    fn of_a_file_it_is_the_folder_which_must_hold_the_images() {
        let dir = tempfile::tempdir().unwrap();
        image(&dir.path().join("set/a.jpg"));
        let json = |name: &str| {
            serde_json::json!({
                "images": [{ "id": 1, "file_name": name, "width": 8, "height": 8 }],
                "categories": [{ "id": 1, "name": "car" }],
                "annotations": [{ "id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "iscrowd": 0 }],
            })
        };
        let text = "[[data]]\nfolder = 'DIR/set/train.json'\nshare = 1.0";
        fs::write(dir.path().join("set/train.json"), json("a.jpg").to_string()).unwrap();
        assert_eq!(listed(dir.path(), text).unwrap(), [dir.path().join("set")]);
        image(&dir.path().join("images/b.jpg"));
        fs::write(dir.path().join("set/train.json"), json("../images/b.jpg").to_string()).unwrap();
        let why = listed(dir.path(), text).unwrap_err();
        assert!(why.contains("b.jpg") && why.contains("distill import"), "{why}");
    }
}
