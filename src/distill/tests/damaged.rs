//! Label files that are damaged in any way: a sentence or a data set, and never a panic.

use std::fs;
use std::path::Path;

use image::RgbImage;
use peregrine_distill::data::{Dataset, OnError, OpenOptions};
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

/// For each layout: the files beside an image `a.png`, the one that is damaged first, and what is
/// opened.
const LAYOUTS: [(&str, &[(&str, &str)]); 10] = [
    ("", &[("labels/a.txt", "0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.4 0.1 0.4 0.4\n"), ("dataset.toml", "name = 'x'\nclasses = ['car', 'bus']\n")]),
    ("data.yaml", &[("data.yaml", "path: .\ntrain: images\nnames:\n  0: car\n  1: bus\nkpt_shape: [2, 3]\n"), ("labels/a.txt", "0 0.5 0.5 0.1 0.1")]),
    ("x.json", &[("x.json", r#"{"images":[{"id":1,"file_name":"a.png","width":8,"height":6}],"annotations":[{"image_id":1,"category_id":2,"bbox":[1,1,2,3],"iscrowd":0,"segmentation":[[1,1,3,1,3,4]]}],"categories":[{"id":2,"name":"car"}]}"#)]),
    ("", &[("Annotations/a.xml", "<annotation><size><width>8</width><height>6</height></size><object><name>car</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>5</ymax></bndbox></object></annotation>")]),
    ("", &[("labels/a.txt", "Car 0.00 0 -1.57 1.0 1.0 4.0 5.0 1 1 1 1 1 1 1\nDontCare -1 -1 -10 1 1 3 3 -1 -1 -1 -1 -1 -1 -1\n"), ("dataset.toml", "name = 'x'\n")]),
    ("x.json", &[("x.json", r#"[{"name":"a.png","labels":[{"category":"car","attributes":{"crowd":false},"box2d":{"x1":1,"y1":1,"x2":4,"y2":5}}]}]"#)]),
    ("", &[("labels/a.json", r#"{"version":"5.0","flags":{},"shapes":[{"label":"car","points":[[1,1],[4,1],[4,5]],"shape_type":"polygon"}],"imageWidth":8,"imageHeight":6}"#)]),
    ("x.xml", &[("x.xml", r#"<annotations><image name="a.png" width="8" height="6"><box label="car" xtl="1" ytl="1" xbr="4" ybr="5"/><polygon label="car" points="1,1;4,1;4,5"/></image></annotations>"#)]),
    ("", &[("dataset.toml", "name = 'x'\nclasses = ['car']\nlabelled = ['car']\n[detection]\ncar = 'car'\n"), ("labels/a.txt", "0 0.5 0.5 0.25 0.25")]),
    ("", &[("labels/classes.txt", "car\nbus\n"), ("labels/a.txt", "1 0.5 0.5 0.25 0.25")]),
];

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::create_dir_all(dir.join("images")).unwrap();
    RgbImage::new(8, 6).save(dir.join("images/a.png")).unwrap();
}

fn open(path: &Path, on_error: OnError) -> Result<Dataset, String> {
    Dataset::open_with(path, &OpenOptions { on_error, ..Default::default() }).map_err(|e| e.to_string())
}

#[test]
fn the_undamaged_files_are_read() {
    for (path, files) in LAYOUTS {
        let dir = TempDir::new().unwrap();
        write(dir.path(), files);
        let set = open(&dir.path().join(path), OnError::Stop).unwrap_or_else(|e| panic!("{files:?}: {e}"));
        assert!(
            set.samples[0].boxes.as_ref().is_some_and(|boxes| !boxes.is_empty() || set.unmapped.len() == 1),
            "{files:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damage_anywhere_is_a_sentence_and_never_a_panic(
        layout in any::<Index>(),
        edits in proptest::collection::vec((any::<Index>(), 0..12usize, prop_oneof![
            "\\PC{0,8}".prop_map(String::into_bytes),
            "(-|1e999|NaN|-1|0|99999999999999999999|\"|<|>|\\{|\\[|\\]|null|\n| |:|&a;|#|'){1,3}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..6),
        ]), 1..4),
    ) {
        let (path, files) = *layout.get(&LAYOUTS);
        let dir = TempDir::new().unwrap();
        write(dir.path(), files);
        let (damaged, text) = files[0];
        let mut bytes = text.as_bytes().to_vec();
        for (at, length, with) in edits {
            let start = at.index(bytes.len() + 1);
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, with);
        }
        fs::write(dir.path().join(damaged), &bytes).unwrap();
        for on_error in [OnError::Stop, OnError::Skip] {
            match open(&dir.path().join(path), on_error) {
                Ok(set) => for sample in &set.samples {
                    for b in sample.boxes.iter().flatten().map(|b| b.bbox).chain(sample.ignore.iter().copied()) {
                        prop_assert!(b.x_min >= 0.0 && b.y_min >= 0.0 && b.x_max <= 8.0 && b.y_max <= 6.0 && b.area() > 0.0);
                    }
                },
                Err(e) => prop_assert!(!e.is_empty() && e.lines().count() <= 12, "{}", e),
            }
        }
    }

    #[test]
    fn any_bytes_as_a_label_file_are_a_sentence_and_never_a_panic(
        layout in any::<Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let (path, files) = *layout.get(&LAYOUTS);
        let dir = TempDir::new().unwrap();
        write(dir.path(), files);
        fs::write(dir.path().join(files[0].0), &bytes).unwrap();
        if let Err(e) = open(&dir.path().join(path), OnError::Stop) {
            prop_assert!(!e.is_empty());
        }
    }
}
