//! A student of a user's own classes, from its images to the node's messages.

use std::fs;
use std::path::Path;
use std::process::Command;

use image::{Rgb, RgbImage};
use tempfile::TempDir;

use crate::support::*;

/// Runs `distill` in `folder`; what it prints.
fn distill(folder: &Path, line: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    let output = command.current_dir(folder).args(line.split(' ')).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}\n{said}");
    said
}

/// A set on which classes can be learnt: cones are orange and pointed, forklifts yellow and broad,
/// anywhere in the picture.
fn yard(folder: &Path) {
    let mut state = 7u32;
    let mut below = |n: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % n
    };
    for (split, images) in [("train", 48), ("val", 16)] {
        let data = folder.join(format!("yard/{split}"));
        fs::create_dir_all(data.join("images")).unwrap();
        fs::create_dir_all(data.join("labels")).unwrap();
        for i in 0..images {
            let (class, side) = (i % 2, 20 + below(12));
            let (x, y, grey) = (below(96 - side), below(64 - side), 60 + below(80) as u8);
            let image = RgbImage::from_fn(96, 64, |px, py| {
                let (dx, dy) = (px.wrapping_sub(x), py.wrapping_sub(y));
                let inside = dx < side && dy < side;
                let pointed = inside && (2 * dx).abs_diff(side) <= dy;
                match class {
                    0 if pointed => Rgb([250, 110, 10]),
                    1 if inside && (dy > side / 3 || dx < side / 2) => Rgb([235, 215, 40]),
                    _ => Rgb([grey, grey + (px % 8) as u8, grey + (py % 8) as u8]),
                }
            });
            image.save(data.join(format!("images/{i}.png"))).unwrap();
            let part = |at: u32, whole: f32| (at as f32 + side as f32 / 2.0) / whole;
            let (cx, cy, w, h) = (part(x, 96.0), part(y, 64.0), side as f32 / 96.0, side as f32 / 64.0);
            fs::write(data.join(format!("labels/{i}.txt")), format!("{class} {cx} {cy} {w} {h}\n")).unwrap();
        }
    }
    fs::write(folder.join("yard/dataset.toml"), "name = 'yard'\nclasses = ['cone', 'forklift']\n").unwrap();
}

#[test]
fn a_student_of_cones_and_forklifts_is_trained_and_served() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path();
    yard(folder);
    let text = "name = 'yard'\nsteps = 150\nbatch = 8\nwarmup = 10\nlearning_rate = 4e-3\nema = 0.9\n\
                [augment]\nscale = [0.9, 1.1]\naspect = 1.0\ncolour = 0.1\n\
                [student]\nsize = 'n'\nclasses = ['cone', 'forklift']\ninput = [96, 64]\n\
                [[data]]\nfolder = 'yard/train'\nshare = 1.0\n";
    fs::write(folder.join("yard.toml"), text).unwrap();
    distill(folder, "student yard.toml --run run");
    let said = distill(folder, "evaluate yard/val --model run/student --json out.json");
    let figures: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("out.json")).unwrap()).unwrap();
    assert!(figures["AP50"].as_f64().unwrap() > 0.6, "{said}");

    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let model = format!("model:={}", folder.join("run/student").display());
    let _node = domain.start_node(&[&model, "deadline_ms:=0.0"]);
    let images = folder.join("yard/val/images");
    let answers = domain.ask_peer("send_frames.py", &["raw", "16", &format!("folder={}", images.display())]);
    let mut right = 0;
    for answer in answers.as_array().unwrap() {
        let number: u32 = answer["sent"]["frame_id"].as_str().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        let best = answer["detections"].as_array().unwrap().first();
        right += usize::from(best.is_some_and(|found| found["class"] == ["cone", "forklift"][number as usize % 2]));
    }
    assert!(right >= 12, "{right} of 16: {answers}");
}
