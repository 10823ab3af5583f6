//! Data sets in other tools' layouts: each written here as its tool writes it.

use std::fs;
use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};
use peregrine_core::BoundingBox;
use peregrine_distill::data::layout::splits;
use peregrine_distill::data::{DataError, Dataset, OnError, OpenOptions, Sample, VOID};
use tempfile::TempDir;

/// A folder with these text files, and a picture of 200×100 pixels for each name that ends as one.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if ["jpg", "png", "webp"].iter().any(|ending| name.ends_with(ending)) {
            RgbImage::from_pixel(200, 100, Rgb([90, 120, 30])).save(path).unwrap();
        } else {
            fs::write(path, text).unwrap();
        }
    }
    dir
}

fn options(on_error: OnError) -> OpenOptions {
    let classes = ["person", "car", "truck"].map(String::from).to_vec();
    OpenOptions { classes, segmentation: ["sky", "road"].map(String::from).to_vec(), on_error, ..Default::default() }
}

fn open(path: &Path) -> Result<Dataset, DataError> {
    Dataset::open_with(path, &options(OnError::Stop))
}

/// Class names and corners.
fn boxes(sample: &Sample) -> Vec<(&'static str, [f32; 4])> {
    let name = |class: usize| ["person", "car", "truck"][class];
    let boxes = sample.boxes.as_ref().expect("labelled");
    boxes.iter().map(|b| (name(b.class), corners(&b.bbox))).collect()
}

fn corners(b: &BoundingBox) -> [f32; 4] {
    [b.x_min, b.y_min, b.x_max, b.y_max]
}

const HALF: &str = "0 0.5 0.5 0.5 0.5\n";
const CENTRE: [f32; 4] = [50.0, 25.0, 150.0, 75.0];

#[test]
fn a_set_is_never_taken_for_another_by_its_folders_name() {
    let yaml = "train: ../train/images\nnc: 3\nnames: ['car', 'person', 'truck']\n";
    let dir = folder(&[
        ("vehicles/data.yaml", yaml),
        ("vehicles/train/images/a.jpg", ""),
        ("vehicles/train/labels/a.txt", HALF),
    ]);
    for path in ["vehicles", "vehicles/data.yaml", "vehicles/train", "vehicles:train"] {
        let set = open(&dir.path().join(path)).unwrap();
        assert_eq!(boxes(&set.samples[0]), [("car", CENTRE)], "{path}");
        assert_eq!(set.name, "vehicles/train", "{path}");
    }
    fs::remove_file(dir.path().join("vehicles/data.yaml")).unwrap();
    let message = open(&dir.path().join("vehicles/train")).unwrap_err().to_string();
    assert!(message.contains("data.yaml") && message.contains("builtin:vehicles"), "{message}");
    let chosen = dir.path().join("vehicles/train=builtin:vehicles");
    let ambulance = Dataset::open(&chosen, None).unwrap();
    assert_eq!(ambulance.objects[0].class, "ambulance");
}

#[test]
fn ultralytics_names_may_be_a_map_and_splits_folders_lists_or_files() {
    let yaml = "path: ../elsewhere\ntrain: [images/a, images/b]\nval: val.txt\ntest:\nnames:\n  0: car\n  1: person\n";
    let dir = folder(&[
        ("own.yaml", yaml),
        ("images/a/1.jpg", ""),
        ("images/b/1.jpg", ""),
        ("images/b/2.png", ""),
        ("labels/a/1.txt", HALF),
        ("labels/b/1.txt", "1 0.5 0.5 0.5 0.5"),
        ("val.txt", "./images/b/2.png\n\nimages/b/missing.png\n"),
    ]);
    let train = open(&dir.path().join("own.yaml:train")).unwrap();
    assert_eq!(train.samples.iter().map(|s| s.file_name()).collect::<Vec<_>>(), ["1.jpg", "2.png", "images/b/1.jpg"]);
    assert_eq!(boxes(&train.samples[0]), [("car", CENTRE)]);
    assert_eq!(train.samples[1].boxes, None);
    assert_eq!(boxes(&train.samples[2]), [("person", CENTRE)]);
    let val = open(&dir.path().join("own.yaml:val")).unwrap();
    assert_eq!((val.samples.len(), val.skipped.len()), (1, 1));
    assert!(val.skipped[0].reason.contains("val.txt"), "{:?}", val.skipped);
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("train, val") && message.contains(":train"), "{message}");
    assert_eq!(splits(dir.path()).unwrap().len(), 2);
}

#[test]
fn a_data_yaml_of_another_set_in_the_folder_above_is_not_taken() {
    let dir = folder(&[
        ("data.yaml", "train: other/images\nnames: [person]\n"),
        ("other/images/a.jpg", ""),
        ("mine/images/a.jpg", ""),
        ("mine/labels/a.txt", HALF),
    ]);
    let message = open(&dir.path().join("mine")).unwrap_err().to_string();
    assert!(message.contains("no dataset.toml"), "{message}");
}

#[test]
fn dataset_toml_beside_data_yaml_maps_its_classes_and_keeps_its_splits() {
    let dir = folder(&[
        ("data.yaml", "train: images/train\nval: images/val\nnames: [lorry]\n"),
        ("dataset.toml", "name = 'mine'\n[detection]\nlorry = 'truck'\n"),
        ("images/train/a.jpg", ""),
        ("labels/train/a.txt", HALF),
        ("images/val/b.jpg", ""),
        ("labels/val/b.txt", HALF),
    ]);
    let train = open(Path::new(&format!("{}:train", dir.path().display()))).unwrap();
    assert_eq!((train.name.as_str(), train.samples.len()), ("mine/train", 1));
    assert_eq!(boxes(&train.samples[0]), [("truck", CENTRE)]);
}

#[test]
fn an_invalid_data_yaml_is_refused_with_its_key() {
    for (yaml, key) in [
        ("train: images\n", "has no names"),
        ("train: images\nnames: []\n", "names is empty"),
        ("train: images\nnc: 2\nnames: [car]\n", "nc is 2"),
        ("train: images\nnames: [car, car]\n", "\"car\" twice"),
        ("train: images\nnames: {0: car, 2: bus}\n", "no class 1"),
        ("train: images\nnames: {0: car, 99999999999: bus}\n", "99999999999"),
        ("train: images\nnames: [car\n", "invalid YAML"),
        ("train: nowhere\nnames: [car]\n", "train"),
        ("names: [car]\n", "names no train"),
    ] {
        let dir = folder(&[("data.yaml", yaml), ("images/a.jpg", "")]);
        let message = open(&dir.path().join("data.yaml")).unwrap_err().to_string();
        assert!(message.contains(key) && message.contains("data.yaml"), "{key}: {message}");
    }
}

#[test]
fn lists_of_classes_that_contradict_each_other_are_refused() {
    let yaml = "train: train/images\nnames: [car, person]\n";
    let dir = folder(&[
        ("data.yaml", yaml),
        ("dataset.toml", "name = 'x'\nclasses = ['person', 'car']\n"),
        ("train/images/a.jpg", ""),
        ("train/labels/a.txt", HALF),
    ]);
    let message = open(&dir.path().join("train")).unwrap_err().to_string();
    assert!(message.contains("person, car") && message.contains("car, person"), "{message}");
}

#[test]
fn yolo_lines_are_read_leniently_but_exactly() {
    let lines = "\u{feff}0.0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5 0.87\n2 0.25 0.25 0.75 0.25 0.5 0.75\n\
                 0 0.9 0.5 0.2042 1.0021\n";
    let yaml = "train: train/images\nnames: [car, person, truck]\n";
    let dir = folder(&[("data.yaml", yaml), ("train/images/a.jpg", ""), ("train/labels/a.txt", lines)]);
    let set = open(&dir.path().join("train")).unwrap();
    let found = boxes(&set.samples[0]);
    assert_eq!(found[..3], [("car", CENTRE), ("person", CENTRE), ("truck", CENTRE)]);
    assert_eq!(found[3].0, "car");
    let expected = [159.58, 0.0, 200.0, 100.0];
    assert!(found[3].1.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3), "{:?}", found[3]);
}

#[test]
fn keypoints_behind_a_box_are_passed_over() {
    let yaml = "train: train/images\nkpt_shape: [2, 3]\nnames: [car]\n";
    let line = "0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.9 0.9 2";
    let dir = folder(&[("data.yaml", yaml), ("train/images/a.jpg", ""), ("train/labels/a.txt", line)]);
    assert_eq!(boxes(&open(&dir.path().join("train")).unwrap().samples[0]), [("car", CENTRE)]);
}

const COCO: &str = r#"{"info": {"year": 2026}, "licenses": [],
"images": [{"id": 7, "file_name": "b.jpg", "width": 200, "height": 100, "license": 1},
           {"id": 8, "file_name": "a.jpg", "width": 200, "height": 100},
           {"id": 9, "file_name": "gone.jpg", "width": 200, "height": 100}],
"annotations": [
 {"id": 1, "image_id": 7, "category_id": 3, "bbox": [50, 25, 100, 50], "area": 5000, "iscrowd": 0,
  "segmentation": [[50, 25, 150, 25, 150, 75]]},
 {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0.5, 1.5, 10, 20], "iscrowd": 1,
  "segmentation": {"counts": [10, 20], "size": [100, 200]}},
 {"id": 3, "image_id": 9, "category_id": 1, "bbox": [1, 1, 10, 20]},
 {"id": 4, "image_id": 7, "category_id": 1, "segmentation": [[0, 0, 20, 0, 20, 30]]}],
"categories": [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 3, "name": "car"}]}"#;

#[test]
fn coco_boxes_crowds_and_empty_scenes_are_read() {
    let dir = folder(&[
        ("annotations/instances_val2017.json", COCO),
        ("val2017/a.jpg", ""),
        ("val2017/b.jpg", ""),
        ("train2017/c.jpg", ""),
    ]);
    for path in ["annotations/instances_val2017.json", ""] {
        let set = open(&dir.path().join(path)).unwrap();
        assert_eq!(set.layout, "COCO JSON");
        let [a, b] = &set.samples[..] else { panic!("{:?}", set.samples) };
        assert_eq!((a.file_name(), boxes(a)), ("a.jpg", vec![]));
        assert_eq!(boxes(b), [("car", CENTRE), ("person", [0.0, 0.0, 20.0, 30.0])]);
        assert_eq!(b.ignore.iter().map(corners).collect::<Vec<_>>(), [[0.5, 1.5, 10.5, 21.5]]);
        assert_eq!(set.skipped.len(), 1);
        assert!(set.skipped[0].path.ends_with("gone.jpg"));
    }
}

#[test]
fn coco_takes_the_mapping_of_dataset_toml() {
    let config = "name = 'mine'\nclasses = ['bicycle']\n[detection]\nperson = 'truck'\n";
    let config = config.replace("['bicycle']", "['bicycle', 'person']");
    let dir =
        folder(&[("dataset.toml", &config), ("annotations/x.json", COCO), ("images/a.jpg", ""), ("images/b.jpg", "")]);
    let set = open(dir.path()).unwrap();
    assert_eq!(boxes(&set.samples[1]), [("truck", [0.0, 0.0, 20.0, 30.0])]);
    assert_eq!(set.unmapped.iter().map(|u| u.class.as_str()).collect::<Vec<_>>(), ["car"]);
}

#[test]
fn invalid_coco_is_refused_with_its_key() {
    for (from, to, why) in [
        ("\"category_id\": 3", "\"category_id\": 77", "category_id is 77"),
        ("\"image_id\": 7, \"category_id\": 3", "\"image_id\": 70, \"category_id\": 3", "image_id 70"),
        ("[50, 25, 100, 50]", "[50, 25, 100]", "3 numbers"),
        ("[50, 25, 100, 50]", "[50, 25, -100, 50]", "must be positive"),
        ("[50, 25, 100, 50]", "[500, 25, 100, 50]", "outside the image"),
        ("\"id\": 8", "\"id\": 7", "the id 7 twice"),
        ("\"name\": \"car\"", "\"name\": \"person\"", "\"person\" twice"),
        ("\"width\": 200, \"height\": 100, \"license\"", "\"width\": 100, \"height\": 200, \"license\"", "100×200"),
        ("\"annotations\": [", "\"annotations\": ", "x.json:"),
        ("a.jpg", "c.jpg", ""),
    ] {
        let dir = folder(&[("x.json", &COCO.replacen(from, to, 1)), ("images/a.jpg", ""), ("images/b.jpg", "")]);
        match open(&dir.path().join("x.json")) {
            Ok(set) => assert!(why.is_empty() && set.skipped.len() == 2, "{from}: {:?}", set.skipped),
            Err(e) => assert!(e.to_string().contains(why) && e.to_string().contains("x.json"), "{why}: {e}"),
        }
    }
    let dir = folder(&[("x.json", COCO)]);
    let message = open(&dir.path().join("x.json")).unwrap_err().to_string();
    assert!(message.contains("b.jpg") && message.contains("beside it"), "{message}");
}

fn voc(database: &str, object: &str) -> String {
    format!(
        "<annotation><folder>x</folder><filename>a.jpg</filename><source><database>{database}</database></source>\
         <size><width>200</width><height>100</height><depth>3</depth></size>\n{object}</annotation>"
    )
}

fn voc_object(name: &str, difficult: u8) -> String {
    format!(
        "<object><name>{name}</name><pose>Left</pose><difficult>{difficult}</difficult><bndbox><xmin>51</xmin>\
         <ymin>26</ymin><xmax>150</xmax><ymax>75</ymax></bndbox><part><name>head</name></part></object>\n"
    )
}

#[test]
fn voc_xml_is_read_beside_images_in_folders_and_under_labels() {
    let xml = voc("Unknown", &(voc_object("car", 0) + &voc_object("person", 1)));
    let own = "name = 'x'\nclasses = ['car', 'person']";
    for files in [
        vec![("JPEGImages/a.jpg", ""), ("Annotations/a.xml", xml.as_str())],
        vec![("a.jpg", ""), ("a.xml", xml.as_str())],
        vec![("images/a.jpg", ""), ("annotations.txt", ""), ("Annotations/a.xml", xml.as_str())],
        vec![("images/a.jpg", ""), ("labels/a.xml", xml.as_str()), ("dataset.toml", own)],
        vec![("images/a.jpg", ""), ("labels/a.xml", xml.as_str())],
    ] {
        let dir = folder(&files);
        let set = open(dir.path()).unwrap();
        assert_eq!(boxes(&set.samples[0]), [("car", [51.0, 26.0, 150.0, 75.0])], "{files:?}");
        assert_eq!(set.samples[0].ignore.len(), 1, "difficult: {files:?}");
    }
}

#[test]
fn the_original_voc_sets_count_pixels_from_one() {
    let xml = voc("The VOC2007 Database", &voc_object("car", 0));
    let dir = folder(&[
        ("JPEGImages/a.jpg", ""),
        ("JPEGImages/b.jpg", ""),
        ("Annotations/a.xml", &xml),
        ("Annotations/b.xml", &xml),
        ("ImageSets/Main/val.txt", "b\n"),
        ("ImageSets/Main/train.txt", "a -1\n"),
    ]);
    let set = open(&dir.path().join("")).unwrap();
    assert_eq!(set.samples.len(), 2);
    assert_eq!(boxes(&set.samples[0]), [("car", CENTRE)]);
    let val = open(Path::new(&format!("{}:val", dir.path().display()))).unwrap();
    assert_eq!(val.samples.iter().map(Sample::file_name).collect::<Vec<_>>(), ["b.jpg"]);
}

#[test]
fn invalid_voc_xml_is_refused_with_its_line() {
    for (xml, why) in [
        (voc("", &voc_object("", 0)), "a.xml:2: an <object> without <name>"),
        (voc("", &voc_object("car", 0).replace("<xmin>51</xmin>", "")), "without <xmin>"),
        (voc("", &voc_object("car", 0).replace("51", "fifty")), "\"fifty\", not a number"),
        (voc("", &voc_object("car", 0).replace("51", "151")), "no area"),
        (voc("", &voc_object("car", 0)).replace("<width>200", "<width>300"), "300×100"),
        ("<annotation><object>".into(), "a.xml:1"),
        ("<other/>".into(), "<other>"),
        ("<!DOCTYPE a [<!ENTITY b 'x'>]><annotation>&b;</annotation>".into(), "a.xml:1"),
    ] {
        let dir = folder(&[("JPEGImages/a.jpg", ""), ("Annotations/a.xml", &xml)]);
        let message = open(dir.path()).unwrap_err().to_string();
        assert!(message.contains(why) && message.contains("a.xml"), "{why}: {message}");
    }
}

const KITTI: &str = "car 0.00 0 1.85 50.00 25.00 150.00 75.00 1.67 1.87 3.69 -16.53 2.39 58.49 1.57\n\
                     DontCare -1 -1 -10 1.5 2.5 20 30 -1 -1 -1 -1000 -1000 -1000 -10\n";

#[test]
fn kitti_is_read_and_dont_care_ignored() {
    for files in [
        [("training/image_2/0.png", ""), ("training/label_2/0.txt", KITTI)],
        [("image_2/0.png", ""), ("label_2/0.txt", KITTI)],
        [("images/0.png", ""), ("labels/0.txt", KITTI)],
    ] {
        let dir = folder(&files);
        fs::write(dir.path().join("dataset.toml"), "name = 'k'\n").unwrap();
        let set = open(dir.path()).unwrap();
        assert_eq!(boxes(&set.samples[0]), [("car", CENTRE)], "{files:?}");
        assert_eq!(set.samples[0].ignore.iter().map(corners).collect::<Vec<_>>(), [[1.5, 2.5, 20.0, 30.0]]);
    }
    let dir = folder(&[("image_2/0.png", ""), ("label_2/0.txt", &(KITTI.to_owned() + "car 0 0 1 2 3"))]);
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("0.txt:3: 6 fields"), "{message}");
}

#[test]
fn bdd100k_is_read_in_both_of_its_forms() {
    let label = |c: &str| {
        format!(
            r#"{{"id": "1", "category": "{c}", "attributes": {{"occluded": true, "crowd": false}},
            "box2d": {{"x1": 50, "y1": 25, "x2": 150, "y2": 75}}}}"#
        )
    };
    let lane = r#"{"category": "lane", "poly2d": [{"vertices": [[1, 2], [3, 4]]}], "attributes": {"laneTypes": "x"}}"#;
    let set = format!(
        r#"[{{"name": "a.jpg", "attributes": {{"weather": "clear"}}, "labels": [{}, {lane}]}}, {{"name": "b.jpg"}}]"#,
        label("car")
    );
    let image = format!(r#"{{"name": "a", "frames": [{{"timestamp": 10000, "objects": [{}]}}]}}"#, label("person"));
    let dir = folder(&[
        ("labels/det_20/det_val.json", &set),
        ("labels/100k/val/a.json", &image),
        ("images/100k/val/a.jpg", ""),
        ("images/100k/val/b.jpg", ""),
    ]);
    let found = open(&dir.path().join("labels/det_20/det_val.json")).unwrap();
    assert_eq!(found.layout, "BDD100K JSON");
    assert_eq!(boxes(&found.samples[0]), [("car", CENTRE)]);
    assert_eq!(boxes(&found.samples[1]), []);
    let found = open(&dir.path().join("labels/100k/val/a.json")).unwrap();
    assert_eq!(boxes(&found.samples[0]), [("person", CENTRE)]);
}

#[test]
fn cityscapes_masks_are_read_by_their_ids() {
    let (frame, mask) = ("bonn/bonn_0_0_leftImg8bit.png", "bonn/bonn_0_0_gtFine_labelIds.png");
    let dir = folder(&[(&format!("leftImg8bit/val/{frame}"), ""), ("gtFine/val/bonn/x.txt", "")]);
    let ids = [7, 23, 26, 255];
    let ids = GrayImage::from_fn(200, 100, |x, _| Luma([ids[x as usize % 4]]));
    ids.save(dir.path().join("gtFine/val").join(mask)).unwrap();
    let set = open(dir.path()).unwrap();
    assert_eq!(set.layout, "Cityscapes");
    let mask = set.load_mask(set.samples[0].mask.as_ref().unwrap()).unwrap();
    let (sky, road) = (0, 1);
    assert_eq!(mask.as_raw()[..4], [road, sky, VOID, VOID]);
}

#[test]
fn labelme_shapes_become_the_boxes_round_them() {
    let json = r#"{"version": "5.2.1", "flags": {}, "shapes": [
        {"label": "car", "points": [[50, 25], [150, 30], [60, 75]], "group_id": null, "shape_type": "polygon", "flags": {}},
        {"label": "person", "points": [[150, 75], [50, 25]], "shape_type": "rectangle"},
        {"label": "truck", "points": [[100, 50], [130, 90]], "shape_type": "circle"}],
        "imagePath": "a.jpg", "imageData": null, "imageHeight": 100, "imageWidth": 200}"#;
    let dir = folder(&[("a.jpg", ""), ("a.json", json)]);
    let set = open(dir.path()).unwrap();
    assert_eq!(set.layout, "labelme JSON");
    let found = boxes(&set.samples[0]);
    assert_eq!(found, [("car", CENTRE), ("person", CENTRE), ("truck", [50.0, 0.0, 150.0, 100.0])]);
    fs::write(dir.path().join("a.json"), json.replace("\"circle\"", "\"point\"")).unwrap();
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("a.json") && message.contains("shapes[2]") && message.contains("point"), "{message}");
}

#[test]
fn cvat_shapes_become_the_boxes_round_them() {
    let xml = r#"<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>t</name></task></meta>
 <image id="0" name="a.jpg" width="200" height="100">
  <box label="car" source="manual" occluded="0" xtl="50" ytl="25" xbr="150" ybr="75" z_order="0"/>
  <box label="truck" xtl="90" ytl="0" xbr="110" ybr="100" rotation="90.0"/>
  <polygon label="person" points="50.00,25.00;150.00,75.00;60.00,70.00" z_order="0"/>
  <tag label="car"/>
 </image></annotations>"#;
    let dir = folder(&[("images/a.jpg", ""), ("annotations.xml", xml)]);
    let set = open(dir.path()).unwrap();
    assert_eq!(set.layout, "CVAT XML");
    let found = boxes(&set.samples[0]);
    assert_eq!((found[0], found[2]), (("car", CENTRE), ("person", CENTRE)));
    assert!(found[1].1.iter().zip([50.0, 40.0, 150.0, 60.0]).all(|(a, b)| (a - b).abs() < 1e-3), "{found:?}");
    fs::write(dir.path().join("annotations.xml"), xml.replace("points=\"50.00", "points=\"fifty")).unwrap();
    let message = open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("annotations.xml:6"), "{message}");
}
