//! `distill import` of data sets: what it writes means the same as what it read.

use std::fs;
use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};
use peregrine_distill::data::{Dataset, OpenOptions, Sample};
use peregrine_distill::import::data::{import, DataArgs};
use tempfile::TempDir;

const COCO: &str = r#"{
"images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 100}, {"id": 2, "file_name": "day/b.png"},
           {"id": 3, "file_name": "gone.jpg"}, {"id": 4, "file_name": "a.png"}],
"annotations": [
 {"id": 1, "image_id": 1, "category_id": 1, "bbox": [33.25, 25.5, 101.125, 50]},
 {"id": 2, "image_id": 1, "category_id": 5, "bbox": [1, 2, 30, 40], "iscrowd": 1},
 {"id": 3, "image_id": 4, "category_id": 5, "bbox": [0, 0, 200, 100],
  "segmentation": [[0, 0, 100, 0, 100, 100, 0, 100]]}],
"categories": [{"id": 1, "name": "cone"}, {"id": 5, "name": "fork lift"}]}"#;

fn source(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if name.ends_with("jpg") || name.ends_with("png") {
            RgbImage::from_fn(200, 100, |x, y| Rgb([x as u8, y as u8, 30])).save(path).unwrap();
        } else {
            fs::write(path, text).unwrap();
        }
    }
    dir
}

fn coco() -> TempDir {
    source(&[("x.json", COCO), ("images/a.jpg", ""), ("images/a.png", ""), ("images/day/b.png", "")])
}

fn open(path: &Path) -> Dataset {
    let classes = ["cone", "fork lift"].map(String::from).to_vec();
    Dataset::open_with(path, &OpenOptions { classes, ..Default::default() }).unwrap()
}

/// Whether two samples have the same labels, to a ten-thousandth of a pixel.
fn assert_same(a: &Sample, b: &Sample) {
    let all = |s: &Sample| {
        let boxes = s.boxes.iter().flatten().map(|b| (Some(b.class), b.bbox));
        boxes.chain(s.ignore.iter().map(|b| (None, *b))).collect::<Vec<_>>()
    };
    assert_eq!(a.boxes.is_some(), b.boxes.is_some());
    assert_eq!(all(a).len(), all(b).len(), "{} and {}", a.name, b.name);
    for ((class, p), (other, q)) in all(a).into_iter().zip(all(b)) {
        assert_eq!(class, other);
        let sides = [p.x_min - q.x_min, p.y_min - q.y_min, p.x_max - q.x_max, p.y_max - q.y_max];
        assert!(sides.iter().all(|d| d.abs() < 1e-4), "{p:?} and {q:?}");
    }
}

#[test]
fn an_imported_set_means_what_the_original_meant() {
    let (from, out) = (coco(), TempDir::new().unwrap());
    import(&from.path().join("x.json"), out.path(), &DataArgs::default()).unwrap();
    let (original, written) = (open(&from.path().join("x.json")), open(out.path()));
    let names: Vec<&str> = written.samples.iter().map(Sample::file_name).collect();
    // Two names that differ in their ending alone would share a label.
    assert_eq!(names, ["a.jpg", "a_png.png", "day/b.png"]);
    assert_eq!(written.config.classes, ["cone", "fork lift", "ignore"]);
    for (a, b) in original.samples.iter().zip(&written.samples) {
        assert_same(a, b);
        assert_eq!(fs::read(&a.image).unwrap(), fs::read(&b.image).unwrap());
    }
    let left_out = fs::read_to_string(out.path().join("left-out.txt")).unwrap();
    assert!(left_out.lines().count() == 1 && left_out.contains("gone.jpg"), "{left_out}");
}

#[test]
fn splits_become_folders_with_one_list_of_classes() {
    let voc = |class: &str| {
        format!("<annotation><object><name>{class}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>")
    };
    let yaml = "train: ../train/images\nval: ../valid/images\nnames: [cone, fork lift]\n";
    let (line, cone, lift) = ("1 0.5 0.5 0.5 0.5", voc("cone"), voc("fork lift"));
    for files in [
        vec![
            ("data.yaml", yaml),
            ("train/images/a.jpg", ""),
            ("train/labels/a.txt", "0 0.5 0.5 0.5 0.5"),
            ("valid/images/b.jpg", ""),
            ("valid/labels/b.txt", line),
        ],
        vec![
            ("train/images/a.jpg", ""),
            ("train/labels/a.xml", &cone),
            ("valid/images/b.jpg", ""),
            ("valid/labels/b.xml", &lift),
        ],
    ] {
        let (from, out) = (source(&files), TempDir::new().unwrap());
        import(from.path(), out.path(), &DataArgs::default()).unwrap();
        let val = ["val", "valid"].map(|split| out.path().join(split)).into_iter().find(|p| p.exists()).unwrap();
        let (train, val) = (open(&out.path().join("train")), open(&val));
        assert_eq!(train.config, val.config);
        assert_eq!(train.config.classes, ["cone", "fork lift"]);
        let class = |set: &Dataset| set.samples[0].boxes.as_ref().unwrap()[0].class;
        assert_eq!((class(&train), class(&val)), (0, 1));
    }
}

#[test]
fn masks_become_eight_bit_indices() {
    let config = "name = 'x'\n[segmentation]\nclasses = ['sky', 'road']\ncolours = [[128, 128, 128], [128, 64, 128]]\n";
    let (from, out) = (source(&[("dataset.toml", config), ("images/a.png", "")]), TempDir::new().unwrap());
    fs::create_dir(from.path().join("labels")).unwrap();
    let colour = |x: u32| if x < 50 { Rgb([128, 64, 128]) } else { Rgb([128; 3]) };
    RgbImage::from_fn(200, 100, |x, _| colour(x)).save(from.path().join("labels/a.png")).unwrap();
    import(from.path(), out.path(), &DataArgs::default()).unwrap();
    let [original, written] = [from.path(), out.path()].map(|path| {
        let set = Dataset::open(path, None).unwrap();
        set.load_mask(set.samples[0].mask.as_ref().unwrap()).unwrap()
    });
    assert_eq!(original, written);
    let stored = image::open(out.path().join("labels/a.png")).unwrap();
    assert_eq!((stored.color(), stored.to_luma8().get_pixel(0, 0).0), (image::ColorType::L8, [1]));
}

#[test]
fn outlines_become_masks_where_they_are_asked_for() {
    let (from, out) = (coco(), TempDir::new().unwrap());
    import(&from.path().join("x.json"), out.path(), &DataArgs { masks: true, ..Default::default() }).unwrap();
    let mask = image::open(out.path().join("labels/a_png.png")).unwrap().to_luma8();
    assert_eq!((mask.get_pixel(99, 50).0, mask.get_pixel(100, 50).0), ([1], [255]));
    let toml = fs::read_to_string(out.path().join("dataset.toml")).unwrap();
    assert!(toml.contains("[segmentation]") && toml.contains("fork lift"), "{toml}");
}

#[test]
fn an_interrupted_import_is_resumed_and_another_refused() {
    let (from, out) = (coco(), TempDir::new().unwrap());
    let json = from.path().join("x.json");
    import(&json, out.path(), &DataArgs::default()).unwrap();
    let kept = fs::metadata(out.path().join("images/a.jpg")).unwrap().modified().unwrap();
    fs::remove_file(out.path().join("images/day/b.png")).unwrap();
    fs::write(out.path().join("labels/a.txt"), "half a li").unwrap();
    fs::write(out.path().join("images/a_png.png"), "half an image").unwrap();
    import(&json, out.path(), &DataArgs::default()).unwrap();
    let (original, written) = (open(&json), open(out.path()));
    original.samples.iter().zip(&written.samples).for_each(|(a, b)| assert_same(a, b));
    assert_eq!(fs::metadata(out.path().join("images/a.jpg")).unwrap().modified().unwrap(), kept);
    let other = coco();
    for (source, args) in
        [(other.path().join("x.json"), DataArgs::default()), (json, DataArgs { masks: true, ..Default::default() })]
    {
        let message = import(&source, out.path(), &args).unwrap_err().to_string();
        assert!(message.contains("another --out"), "{message}");
    }
    let foreign = source(&[("notes.txt", "mine")]);
    let message = import(&other.path().join("x.json"), foreign.path(), &DataArgs::default()).unwrap_err().to_string();
    assert!(message.contains("notes.txt"), "{message}");
}

#[test]
fn a_name_that_leads_out_of_the_folder_is_left_out() {
    let escaped = COCO.replace("day/b.png", "../outside.png");
    let from = source(&[
        ("set/x.json", &escaped),
        ("set/images/a.jpg", ""),
        ("set/images/a.png", ""),
        ("set/outside.png", ""),
    ]);
    let out = TempDir::new().unwrap();
    let into = out.path().join("new");
    import(&from.path().join("set/x.json"), &into, &DataArgs::default()).unwrap();
    let left_out = fs::read_to_string(into.join("left-out.txt")).unwrap();
    assert!(left_out.contains("leads out of the folder"), "{left_out}");
    assert!(!out.path().join("new/outside.png").exists());
}

#[test]
fn an_image_whose_labels_are_of_another_size_is_left_out() {
    let wrong = COCO.replace("\"width\": 200, \"height\": 100", "\"width\": 100, \"height\": 200");
    let from = source(&[("x.json", &wrong), ("images/a.jpg", ""), ("images/a.png", "")]);
    let out = TempDir::new().unwrap();
    import(&from.path().join("x.json"), out.path(), &DataArgs::default()).unwrap();
    let left_out = fs::read_to_string(out.path().join("left-out.txt")).unwrap();
    assert!(left_out.contains("a.jpg") && left_out.contains("100×200"), "{left_out}");
    assert!(!out.path().join("images/a.jpg").exists());
}

#[test]
fn a_mask_that_is_damaged_is_left_out_with_its_image() {
    let config = "name = 'x'\n[segmentation]\nclasses = ['sky', 'road']\n";
    let from = source(&[("dataset.toml", config), ("images/a.png", ""), ("images/b.png", ""), ("labels/a.txt", "")]);
    GrayImage::from_pixel(200, 100, Luma([7])).save(from.path().join("labels/a.png")).unwrap();
    GrayImage::from_pixel(200, 100, Luma([1])).save(from.path().join("labels/b.png")).unwrap();
    let out = TempDir::new().unwrap();
    import(from.path(), out.path(), &DataArgs::default()).unwrap();
    assert_eq!(Dataset::open(out.path(), None).unwrap().samples.len(), 1);
    assert!(fs::read_to_string(out.path().join("left-out.txt")).unwrap().contains("holds class 7"));
}
