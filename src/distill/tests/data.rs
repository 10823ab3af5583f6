//! Data sets on disk: what is read, what is refused, and with which message.

use std::fs;
use std::path::PathBuf;

use image::{GrayImage, Luma, Rgb, RgbImage};
use peregrine_distill::data::dataset::VOID;
use peregrine_distill::data::{DataError, Dataset, OnError, OpenOptions};
use tempfile::TempDir;

const CONFIG: &str = r#"
name = "mine"
classes = ["lorry", "pedestrian", "crowd", "dog"]
[detection]
lorry = "truck"
pedestrian = "person"
crowd = "ignore"
"#;

const PERSON: usize = 0;
const TRUCK: usize = 4;

/// A folder with one 200×100 image for each of `labels`, in `images/` and `labels/`.
fn folder(config: &str, labels: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("images")).unwrap();
    fs::create_dir_all(dir.path().join("labels")).unwrap();
    fs::write(dir.path().join("dataset.toml"), config).unwrap();
    for (stem, text) in labels {
        RgbImage::from_pixel(200, 100, Rgb([9; 3])).save(image(&dir, stem)).unwrap();
        fs::write(dir.path().join(format!("labels/{stem}.txt")), text).unwrap();
    }
    dir
}

fn image(dir: &TempDir, stem: &str) -> PathBuf {
    dir.path().join(format!("images/{stem}.png"))
}

fn open(dir: &TempDir) -> Result<Dataset, DataError> {
    Dataset::open(dir.path(), None)
}

fn skipping(dir: &TempDir) -> Dataset {
    Dataset::open_with(dir.path(), &OpenOptions { on_error: OnError::Skip, ..Default::default() }).unwrap()
}

#[test]
fn labels_become_student_classes_in_source_pixels() {
    let dir = folder(CONFIG, &[("a", "0 0.5 0.5 0.5 0.2\n1 0.1 0.5 0.2 1")]);
    let boxes = open(&dir).unwrap().samples.remove(0).boxes.unwrap();
    let found: Vec<_> =
        boxes.iter().map(|b| (b.class, b.bbox.x_min, b.bbox.y_min, b.bbox.x_max, b.bbox.y_max)).collect();
    assert_eq!(found, [(TRUCK, 50.0, 40.0, 150.0, 60.0), (PERSON, 0.0, 0.0, 40.0, 100.0)]);
}

#[test]
fn ignored_classes_become_regions_and_unmapped_ones_background() {
    let dir = folder(CONFIG, &[("a", "2 0.5 0.5 1 1\n3 0.5 0.5 0.1 0.1\n")]);
    let sample = open(&dir).unwrap().samples.remove(0);
    assert_eq!((sample.boxes.unwrap().len(), sample.ignore.len()), (0, 1));
}

#[test]
fn classes_that_labels_never_name_count_as_unlabelled() {
    let dir = folder(CONFIG, &[("a", "")]);
    assert_eq!(open(&dir).unwrap().labelled, [true, false, false, false, true]);
}

#[test]
fn an_empty_label_file_is_an_empty_scene_a_missing_one_unlabelled() {
    let dir = folder(CONFIG, &[("a", ""), ("b", "")]);
    fs::remove_file(dir.path().join("labels/b.txt")).unwrap();
    let samples = open(&dir).unwrap().samples;
    assert_eq!(samples.iter().map(|s| s.boxes.as_ref().map(Vec::len)).collect::<Vec<_>>(), [Some(0), None]);
}

#[test]
fn samples_are_in_the_order_of_their_names() {
    let dir = folder(CONFIG, &[("b", ""), ("c", ""), ("a", "")]);
    let dataset = open(&dir).unwrap();
    assert_eq!(dataset.samples.iter().map(|s| s.file_name()).collect::<Vec<_>>(), ["a.png", "b.png", "c.png"]);
}

#[test]
fn a_box_slightly_over_the_edge_is_clipped() {
    let dir = folder(CONFIG, &[("a", "0 0.95 0.5 0.11 0.2")]);
    let boxes = open(&dir).unwrap().samples.remove(0).boxes.unwrap();
    assert_eq!(boxes[0].bbox.x_max, 200.0);
}

#[test]
fn an_invalid_label_is_reported_with_file_line_and_remedy() {
    let cases = [
        ("0 0.5 0.5 0.2 0.2\n0 1.5 0.5 0.2 0.2", ":2:", "outside the image"),
        ("4 0.5 0.5 0.2 0.2", ":1:", "class 4 is out of range"),
        ("0 0.5 0.5 0.2", ":1:", "3 numbers follow the class"),
        ("0 0.5 0.5 0.2 NaN", ":1:", "\"NaN\" is not a number"),
        ("0 0.5 0.5 0 0.2", ":1:", "must be positive"),
        ("car 0.5 0.5 0.1 0.2", ":1:", "\"car\" is not a whole number"),
        ("0 120 40 50 30", ":1:", "not pixels"),
    ];
    for (text, line, why) in cases {
        let message = open(&folder(CONFIG, &[("a", text)])).unwrap_err().to_string();
        for part in ["a.txt", line, why, "--skip-bad"] {
            assert!(message.contains(part), "{part:?} is missing from {message:?}");
        }
    }
}

#[test]
fn invalid_labels_and_images_can_be_skipped_and_are_counted() {
    let dir = folder(CONFIG, &[("a", ""), ("b", "9 0.5 0.5 0.2 0.2"), ("c", "")]);
    fs::write(image(&dir, "c"), b"not an image").unwrap();
    let dataset = skipping(&dir);
    assert_eq!(dataset.samples.len(), 1);
    assert_eq!(dataset.skipped.len(), 2);
    assert!(dataset.skipped[1].reason.contains("invalid image"));
}

#[test]
fn a_label_without_an_image_is_reported() {
    let dir = folder(CONFIG, &[("a", "")]);
    fs::write(dir.path().join("labels/z.txt"), "").unwrap();
    assert!(open(&dir).unwrap().skipped[0].path.ends_with("labels/z.txt"));
}

#[test]
fn an_empty_split_is_refused() {
    let message = open(&folder(CONFIG, &[])).unwrap_err().to_string();
    assert!(message.contains("no usable image"), "{message}");
}

#[test]
fn the_parent_of_a_split_points_to_the_split() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("train/images")).unwrap();
    let message = open(&dir).unwrap_err().to_string();
    assert!(message.contains("did you mean") && message.contains("train"), "{message}");
}

#[test]
fn a_folder_without_dataset_toml_lists_the_built_in_ones() {
    let dir = folder(CONFIG, &[("a", "")]);
    fs::remove_file(dir.path().join("dataset.toml")).unwrap();
    let message = open(&dir).unwrap_err().to_string();
    assert!(message.contains("dataset.toml") && message.contains("builtin:vehicles, builtin:street"), "{message}");
}

#[test]
fn an_invalid_key_of_dataset_toml_is_named() {
    for (config, key) in [
        (CONFIG.replace("truck", "tank"), "\"tank\""),
        (CONFIG.replace("crowd = ", "crwd = "), "\"crwd\""),
        (CONFIG.replace("name = \"mine\"", "nam = \"mine\""), "nam"),
    ] {
        let message = open(&folder(&config, &[("a", "")])).unwrap_err().to_string();
        assert!(message.contains(key) && message.contains("dataset.toml"), "{message}");
    }
}

#[test]
fn splits_share_their_parents_dataset_toml_and_have_both_names() {
    let dir = folder(CONFIG, &[("a", "")]);
    let split = dir.path().join("val");
    fs::create_dir_all(&split).unwrap();
    for part in ["images", "labels"] {
        fs::rename(dir.path().join(part), split.join(part)).unwrap();
    }
    assert_eq!(Dataset::open(&split, None).unwrap().name, "mine/val");
}

#[test]
fn masks_become_student_classes_with_void_for_the_rest() {
    let config = "name = \"s\"\n[segmentation]\nclasses = [\"road\", \"water\", \"sky\", \"none\"]\nvoid = 3\n";
    let dir = folder(config, &[("a", "")]);
    let path = dir.path().join("labels/a.png");
    GrayImage::from_fn(200, 100, |x, _| Luma([(x % 4) as u8])).save(&path).unwrap();
    let dataset = open(&dir).unwrap();
    let mask = dataset.load_mask(dataset.samples[0].mask.as_ref().unwrap()).unwrap();
    let (road, sky) = (3, 0);
    assert_eq!(mask.as_raw()[..4], [road, VOID, sky, VOID]);
}

#[test]
fn a_mask_with_an_unlisted_class_or_colours_is_refused() {
    let dir = folder("name = \"s\"\n[segmentation]\nclasses = [\"road\"]\n", &[("a", "")]);
    let path = dir.path().join("labels/a.png");
    GrayImage::from_pixel(200, 100, Luma([7])).save(&path).unwrap();
    let dataset = open(&dir).unwrap();
    assert!(dataset.load_mask(&path).unwrap_err().to_string().contains("class 7"));
    RgbImage::new(200, 100).save(&path).unwrap();
    assert!(dataset.load_mask(&path).unwrap_err().to_string().contains("greyscale"));
}

#[test]
fn the_built_in_descriptions_fit_the_shared_data_sets() {
    let Some(root) = peregrine_support::shared("data") else { return };
    for (split, images, boxes) in
        [("vehicles/train", 878, 1676), ("street/val", 31, 339), ("camvid/val", 101, 0), ("coco128", 128, 330)]
    {
        let name = split.split('/').next().unwrap();
        let config = PathBuf::from(format!("builtin:{name}"));
        let dataset = Dataset::open(&root.join(split), Some(&config)).unwrap();
        assert_eq!(dataset.name, split);
        assert_eq!(dataset.samples.len(), images);
        assert_eq!(dataset.samples.iter().flat_map(|s| s.boxes.iter().flatten()).count(), boxes, "{split}");
    }
}
