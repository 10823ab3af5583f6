//! Scene labels: folders by class, `scene.csv`, and `dataset.toml`; and what is refused.

use std::fs;
use std::path::Path;

use image::RgbImage;
use peregrine_distill::data::scene::balance;
use peregrine_distill::data::{Dataset, OpenOptions};
use peregrine_student::SceneHead;
use tempfile::TempDir;

fn head() -> SceneHead {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    SceneHead([("light".into(), names(&["day", "night"])), ("weather".into(), names(&["dry", "rain"]))].into())
}

/// Small pictures with these names.
fn pictures(folder: &Path, names: &[&str]) {
    for name in names {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::new(8, 6).save(path).unwrap();
    }
}

fn open_for(folder: &Path, scene: Option<SceneHead>) -> Result<Dataset, String> {
    Dataset::open_with(folder, &OpenOptions { scene, ..OpenOptions::default() }).map_err(|e| e.to_string())
}

fn open(folder: &Path) -> Result<Dataset, String> {
    open_for(folder, Some(head()))
}

/// Name and classes of each sample.
fn labels(set: &Dataset) -> Vec<(&str, &[Option<usize>])> {
    set.samples.iter().map(|sample| (sample.file_name(), &sample.scene.classes[..])).collect()
}

#[test]
fn the_name_of_a_folder_is_the_class_of_its_images() {
    let dir = TempDir::new().unwrap();
    pictures(dir.path(), &["day/a.png", "night/deep/b.jpg", "night/c.png", "loose.png"]);
    let set = open(dir.path()).unwrap();
    let expected = [
        ("day/a.png", &[Some(0), None][..]),
        ("night/c.png", &[Some(1), None]),
        ("night/deep/b.jpg", &[Some(1), None]),
    ];
    assert_eq!((set.layout, labels(&set)), ("a folder for each class", expected.to_vec()));
    assert!(set.teaches() && set.is_labelled());
    assert_eq!(set.skipped.len(), 1);
    assert!(set.skipped[0].path.ends_with("loose.png") && set.skipped[0].reason.contains("no class's folder"));
    // Whoever has no scene head sees their names.
    let names: Vec<_> = open_for(dir.path(), None).unwrap().samples.iter().map(|s| s.scene.names.join("")).collect();
    assert_eq!(names, ["day", "night", "night"]);
}

#[test]
fn a_folder_that_is_empty_or_of_no_class_is_named_with_the_remedy() {
    let dir = TempDir::new().unwrap();
    pictures(dir.path(), &["day/a.png"]);
    fs::create_dir(dir.path().join("night")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(error.contains("night: holds no image") && error.contains("remove the folder"), "{error}");
    fs::remove_dir(dir.path().join("night")).unwrap();
    pictures(dir.path(), &["nigth/b.png"]);
    let error = open(dir.path()).unwrap_err();
    assert!(
        error.contains("nigth: the scene \"nigth\" is no class") && error.contains("did you mean \"night\""),
        "{error}"
    );
    fs::write(dir.path().join("dataset.toml"), "name = 'x'\n[scene_classes]\nnigth = 'night'\n").unwrap();
    assert_eq!(labels(&open(dir.path()).unwrap())[1], ("nigth/b.png", &[Some(1), None][..]));
    fs::write(dir.path().join("dataset.toml"), "name = 'x'\n[scene_classes]\nnigth = 'ignore'\n").unwrap();
    assert!(!open(dir.path()).unwrap().samples[1].scene.is_labelled());
}

#[test]
fn splits_of_class_folders_are_chosen_by_name() {
    let dir = TempDir::new().unwrap();
    pictures(dir.path(), &["train/day/a.png", "train/night/b.png", "val/day/c.png"]);
    let error = open(dir.path()).unwrap_err();
    assert!(error.contains("did you mean") && error.contains("train"), "{error}");
    assert_eq!(labels(&open(&dir.path().join("val")).unwrap()), [("day/c.png", &[Some(0), None][..])]);
}

#[test]
fn a_line_of_the_csv_labels_an_image_in_some_groups() {
    let dir = TempDir::new().unwrap();
    pictures(dir.path(), &["images/a.png", "images/b.png", "images/c.png", "images/sub/d.png"]);
    fs::write(dir.path().join("dataset.toml"), "name = 'x'\nclasses = ['car']\n").unwrap();
    let csv = dir.path().join("scene.csv");
    let text = "\u{feff}image,light,weather,temperature\nimages/a.png, night ,rain,3\n\"b\",day,,\nsub/d.png,,dry,\n\
                z.png,day,,\n";
    fs::write(&csv, text).unwrap();
    let set = open(dir.path()).unwrap();
    let expected = [
        ("a.png", &[Some(1), Some(1)][..]),
        ("b.png", &[Some(0), None]),
        ("c.png", &[]),
        ("sub/d.png", &[None, Some(0)]),
    ];
    assert_eq!(labels(&set), expected);
    let left: Vec<_> = set.skipped.iter().filter(|file| file.path == csv).map(|file| &file.reason).collect();
    assert_eq!(left, ["line 5: a label without an image: there is no \"z.png\""]);
    fs::write(&csv, "image,label\na.png,rain\nb.png,night\n").unwrap();
    assert_eq!(labels(&open(dir.path()).unwrap())[..2], [("a.png", &[None, Some(1)][..]), ("b.png", &[Some(1), None])]);
}

#[test]
fn a_csv_that_cannot_be_meant_is_refused_by_its_line() {
    let dir = TempDir::new().unwrap();
    pictures(dir.path(), &["images/a.png"]);
    fs::write(dir.path().join("dataset.toml"), "name = 'x'\nclasses = ['car']\n").unwrap();
    for (text, named) in [
        ("image,light\na.png,fog\n", "scene.csv:2: the scene \"fog\" is no class of the student's (light: day, night)"),
        ("image,weather\na.png,night\n", "(weather: dry, rain)"),
        ("image,label\na.png,day\na,night\n", ""),
        ("image,label\na.png,day\na.png,night\n", "scene.csv:3: a.png has a label in line 2 already"),
        ("file,label\na.png,day\n", "scene.csv:1: the header has no column \"image\""),
        ("image,time\na.png,3\n", "groups of scenes (light, weather)"),
        ("image,label\na.png\n", "scene.csv:2"),
        ("", "no column \"image\""),
    ] {
        fs::write(dir.path().join("scene.csv"), text).unwrap();
        match open(dir.path()) {
            Err(error) => assert!(!named.is_empty() && error.contains(named), "{text:?}: {error}"),
            Ok(_) => assert!(named.is_empty(), "{text:?} is read"),
        }
    }
}

#[test]
fn dataset_toml_gives_all_images_a_class_of_each_group() {
    let dir = TempDir::new().unwrap();
    pictures(dir.path(), &["images/a.png", "images/b.png"]);
    let with = |scene: &str| {
        fs::write(dir.path().join("dataset.toml"), format!("name = 'x'\nclasses = ['car']\nscene = {scene}\n"))
            .unwrap();
        open(dir.path()).map(|set| set.samples[1].scene.classes.clone())
    };
    assert_eq!(with("'night'"), Ok(vec![Some(1), None]));
    assert_eq!(with("['rain', 'day']"), Ok(vec![Some(0), Some(1)]));
    assert!(with("['day', 'night']").unwrap_err().contains("both of the group light"));
    assert!(with("'fog'").unwrap_err().contains("dataset.toml: scene: the scene \"fog\" is no class"));
    assert!(with("3").unwrap_err().contains("a class, or a list"));
    // What the file with a line for each image does not name is as all others.
    fs::write(dir.path().join("scene.csv"), "image,label\na.png,day\n").unwrap();
    assert_eq!(with("'night'"), Ok(vec![Some(1), None]));
    assert_eq!(labels(&open(dir.path()).unwrap())[0], ("a.png", &[Some(0), None][..]));
}

#[test]
fn balanced_weights_draw_each_class_as_often() {
    let scenes: Vec<Vec<Option<usize>>> =
        [Some(0), Some(0), Some(0), Some(1)].map(|class| vec![class]).into_iter().chain([vec![None]]).collect();
    let sums = balance(scenes.iter().map(Vec::as_slice));
    let weights: Vec<f64> = sums.iter().scan(0.0, |last, sum| Some(sum - std::mem::replace(last, *sum))).collect();
    let expected = [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 1.0, 0.5];
    assert!(weights.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{weights:?}");
    assert_eq!(balance([&[][..], &[]].into_iter()), [1.0, 2.0], "without labels all are drawn as often");
}
