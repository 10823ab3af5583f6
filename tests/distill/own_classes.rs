//! Students of a user's own classes: from `[student]` through every command that reads a package.

use std::fs;
use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};
use peregrine_student::Student;
use tempfile::TempDir;

use super::support::distill;

/// A warehouse: orange cones, yellow forklifts, and masks of floor and rack.
fn warehouse(folder: &Path) {
    for (split, images) in [("train", 6), ("val", 3)] {
        let data = folder.join(format!("boxes/{split}"));
        let masks = folder.join(format!("masks/{split}"));
        for path in [data.join("images"), data.join("labels"), masks.join("images"), masks.join("labels")] {
            fs::create_dir_all(path).unwrap();
        }
        for i in 0..images {
            let x = 10 + 7 * i;
            let inside = |px: u32, py: u32| (x..x + 20).contains(&px) && (24..44).contains(&py);
            let colour = if i % 2 == 0 { [250, 120, 0] } else { [240, 220, 30] };
            let image =
                RgbImage::from_fn(96, 64, |px, py| Rgb(if inside(px, py) { colour } else { [90, 90, py as u8 * 3] }));
            let line =
                format!("{} {} {} {} {}\n", i % 2, (x as f32 + 10.0) / 96.0, 34.0 / 64.0, 20.0 / 96.0, 20.0 / 64.0);
            image.save(data.join(format!("images/{i}.png"))).unwrap();
            fs::write(data.join(format!("labels/{i}.txt")), line).unwrap();
            image.save(masks.join(format!("images/{i}.png"))).unwrap();
            let mask = GrayImage::from_fn(96, 64, |_, py| Luma([u8::from(py < 24)]));
            mask.save(masks.join(format!("labels/{i}.png"))).unwrap();
        }
    }
    fs::write(folder.join("boxes/dataset.toml"), "name = 'boxes'\nclasses = ['cone', 'forklift']\n").unwrap();
    fs::write(folder.join("masks/dataset.toml"), "name = 'masks'\n[segmentation]\nclasses = ['floor', 'rack']\n")
        .unwrap();
}

/// Trains three steps with that table on those sets.
fn train(folder: &Path, name: &str, table: &str, sets: &[&str]) -> Result<String, String> {
    let data: String = sets.iter().map(|set| format!("[[data]]\nfolder = '{set}/train'\nshare = 1.0\n")).collect();
    let text = format!("name = '{name}'\nsteps = 3\nbatch = 2\nwarmup = 1\n[student]\n{table}\n{data}");
    fs::write(folder.join(format!("{name}.toml")), text).unwrap();
    distill(folder, &format!("student {name}.toml --run {name} --threads 1"))
}

#[test]
fn a_student_with_one_head_goes_through_every_command() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path();
    warehouse(folder);
    for (name, table, set, figure) in [
        (
            "detector",
            "size = 'n'\nclasses = ['cone', 'forklift']\nsegmentation = []\ninput = [96, 64]",
            "boxes",
            "AP50",
        ),
        ("segmenter", "size = 'n'\nclasses = []\nsegmentation = ['floor', 'rack']\ninput = [96, 64]", "masks", "mIoU"),
    ] {
        train(folder, name, table, &[set]).unwrap();
        let model = format!("--model {name}/student");
        let one_thread = "--threads 1";
        for line in [
            format!("evaluate {set}/val {model} --json {name}.json --record {one_thread}"),
            format!("evaluate {set}/val {model} --pictures {name}-mistakes {one_thread}"),
            format!("quantize {model} --data {set}/train --evaluate {set}/val --out {name}-int8 --max-drop 100"),
            format!("prune {model} --data {set}/train --keep 0.8 --out {name}-pruned --judge {set}/val"),
            format!("cluster {model} --bits 6 --out {name}-small --judge {set}/val"),
            format!("export {model} --out {name}.onnx"),
            format!("inspect {set}/train --student {name}.toml --json {name}-inspect.json"),
        ] {
            distill(folder, &line).unwrap_or_else(|said| panic!("{line}\n{said}"));
        }
        let figures: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join(format!("{name}.json"))).unwrap()).unwrap();
        assert!(figures[figure].is_number(), "{name}: {figures}");
        for package in ["/student", "-int8", "-pruned", "-small"] {
            let student = Student::load(&folder.join(format!("{name}{package}"))).unwrap();
            let architecture = student.manifest.architecture;
            assert_eq!(architecture.detection.is_some(), name == "detector", "{name}{package}");
            assert_eq!(architecture.segmentation.is_some(), name == "segmenter", "{name}{package}");
        }
    }
}

#[test]
fn soft_targets_and_a_second_student_are_of_the_same_classes() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path();
    warehouse(folder);
    let both = "size = 'n'\nclasses = ['cone', 'forklift']\nsegmentation = ['floor', 'rack']\ninput = [96, 64]";
    train(folder, "both", both, &["boxes", "masks"]).unwrap();
    distill(folder, "soften boxes/train --teacher both/student --student both.toml --out soft --threads 1").unwrap();
    let index = fs::read_to_string(folder.join("soft/index.json")).unwrap();
    assert!(index.contains("\"cone\"") && index.contains("\"forklift\""), "{index}");
    let next = |classes: &str| {
        let text = format!(
            "steps = 2\nbatch = 2\nwarmup = 1\ninit = 'both/student'\nsoft_targets = 'soft'\n[student]\nclasses = {classes}\n\
             [[data]]\nfolder = 'boxes/train'\nshare = 1.0\n"
        );
        fs::write(folder.join("next.toml"), text).unwrap();
        distill(folder, "student next.toml --run next --fresh --threads 1")
    };
    next("['cone', 'forklift']").unwrap();
    let student = Student::load(&folder.join("next/student")).unwrap();
    assert!(student.manifest.architecture.segmentation.is_none(), "the table names one head");
    let said = next("['cone']").unwrap_err();
    assert!(said.contains("soft_targets are of cone, forklift, but the student detects cone"), "{said}");
}

#[test]
fn classes_that_cannot_be_are_refused_in_one_sentence() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path();
    warehouse(folder);
    for (table, named) in [
        ("classes = ['cone', 'cone']", "student.classes names \"cone\" twice"),
        ("classes = []\nsegmentation = []", "student.segmentation and student.scene are all empty"),
        ("size = 'xl'\nclasses = ['cone']", "unknown variant `xl`"),
        ("classes = ['cone']\ninput = [100, 64]", "input.width is 100"),
        ("classes = ['cone']\n[student.backbone]\nstem = 8\nstages = []", "backbone.stages"),
    ] {
        let said = train(folder, "wrong", table, &["boxes"]).unwrap_err();
        assert!(said.contains(named), "{table}: {said}");
    }
}
