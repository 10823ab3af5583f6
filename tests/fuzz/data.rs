//! Data sets: labels in every layout, and the descriptions of sets.

use std::io::Cursor;

use image::{ImageFormat, RgbImage};
use peregrine_distill::data::{Dataset, OnError, OpenOptions};

use crate::scratch::Scratch;

/// A set in some layout: what is opened, the file that is fuzzed, and what lies beside it.
struct Layout {
    opened: &'static str,
    file: &'static str,
    text: &'static str,
    beside: &'static [(&'static str, &'static [u8])],
}

const LAYOUTS: [Layout; 10] = [
    Layout {
        opened: "",
        file: "labels/a.txt",
        text: "0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.4 0.1 0.4 0.4\n",
        beside: &[("dataset.toml", b"name = 'x'\nclasses = ['car', 'bus']\n")],
    },
    Layout {
        opened: "data.yaml",
        file: "data.yaml",
        text: "path: .\ntrain: images\nnames:\n  0: car\n  1: bus\nkpt_shape: [2, 3]\n",
        beside: &[("labels/a.txt", b"0 0.5 0.5 0.1 0.1")],
    },
    Layout {
        opened: "x.json",
        file: "x.json",
        text: r#"{"images":[{"id":1,"file_name":"a.png","width":8,"height":6}],"annotations":[{"image_id":1,"category_id":2,"bbox":[1,1,2,3],"iscrowd":0,"segmentation":[[1,1,3,1,3,4]]}],"categories":[{"id":2,"name":"car"}]}"#,
        beside: &[],
    },
    Layout {
        opened: "",
        file: "Annotations/a.xml",
        text: "<annotation><size><width>8</width><height>6</height></size><object><name>car</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>5</ymax></bndbox></object></annotation>",
        beside: &[],
    },
    Layout {
        opened: "",
        file: "labels/a.txt",
        text: "Car 0.00 0 -1.57 1.0 1.0 4.0 5.0 1 1 1 1 1 1 1\nDontCare -1 -1 -10 1 1 3 3 -1 -1 -1 -1 -1 -1 -1\n",
        beside: &[("dataset.toml", b"name = 'x'\n")],
    },
    Layout {
        opened: "x.json",
        file: "x.json",
        text: r#"[{"name":"a.png","labels":[{"category":"car","attributes":{"crowd":false},"box2d":{"x1":1,"y1":1,"x2":4,"y2":5}}]}]"#,
        beside: &[],
    },
    Layout {
        opened: "",
        file: "labels/a.json",
        text: r#"{"version":"5.0","flags":{},"shapes":[{"label":"car","points":[[1,1],[4,1],[4,5]],"shape_type":"polygon"}],"imageWidth":8,"imageHeight":6}"#,
        beside: &[],
    },
    Layout {
        opened: "x.xml",
        file: "x.xml",
        text: r#"<annotations><image name="a.png" width="8" height="6"><box label="car" xtl="1" ytl="1" xbr="4" ybr="5"/><polygon label="car" points="1,1;4,1;4,5"/></image></annotations>"#,
        beside: &[],
    },
    Layout { opened: "", file: "labels/classes.txt", text: "car\nbus\n", beside: &[("labels/a.txt", b"1 0.5 0.5 0.25 0.25")] },
    DESCRIBED,
];

const DESCRIBED: Layout = Layout {
    opened: "",
    file: "dataset.toml",
    text: "name = 'x'\nclasses = ['car']\nlabelled = ['car']\n[detection]\ncar = 'car'\n",
    beside: &[("labels/a.txt", b"0 0.5 0.5 0.25 0.25")],
};

impl Layout {
    fn folder(&self) -> Scratch {
        let mut png = Cursor::new(Vec::new());
        RgbImage::new(8, 6).write_to(&mut png, ImageFormat::Png).expect("it is written to memory");
        let folder = Scratch::new(self.beside);
        folder.write("images/a.png", png.get_ref());
        folder
    }

    fn open(&self, folder: &Scratch, data: &[u8]) {
        folder.write(self.file, data);
        let options = OpenOptions { on_error: OnError::Skip, ..Default::default() };
        let Ok(set) = Dataset::open_with(&folder.path().join(self.opened), &options) else { return };
        for sample in &set.samples {
            for b in sample.boxes.iter().flatten().map(|b| b.bbox).chain(sample.ignore.iter().copied()) {
                let inside = b.x_min >= 0.0 && b.y_min >= 0.0 && b.x_max <= 8.0 && b.y_max <= 6.0;
                assert!(inside && b.area() > 0.0, "{b:?}");
            }
        }
    }
}

/// `[layout]` and a file of labels in it.
pub fn labels(data: &[u8]) {
    thread_local!(static FOLDERS: Vec<Scratch> = LAYOUTS.iter().map(Layout::folder).collect());
    let Some((&layout, data)) = data.split_first() else { return };
    let layout = usize::from(layout) % LAYOUTS.len();
    FOLDERS.with(|folders| LAYOUTS[layout].open(&folders[layout], data));
}

/// One of each layout.
pub fn labels_seeds() -> Vec<Vec<u8>> {
    LAYOUTS.iter().enumerate().map(|(i, layout)| [&[i as u8][..], layout.text.as_bytes()].concat()).collect()
}

/// A `dataset.toml`.
pub fn dataset_toml(data: &[u8]) {
    thread_local!(static FOLDER: Scratch = DESCRIBED.folder());
    FOLDER.with(|folder| DESCRIBED.open(folder, data));
}

/// Of one's own, and with masks.
pub fn dataset_toml_seeds() -> Vec<Vec<u8>> {
    let masks = "name = 'x'\n[segmentation]\nclasses = ['road']\nvoid = [255]\ncolours = [[0, 0, 0], [1, 2, 3]]\n";
    vec![DESCRIBED.text.into(), masks.into()]
}
