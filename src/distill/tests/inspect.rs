//! `distill inspect` on small synthetic data sets.

use std::fs;
use std::path::Path;

use image::imageops::{self, FilterType};
use image::{GrayImage, Luma, Rgb, RgbImage};
use peregrine_distill::data::{Dataset, OnError, OpenOptions};
use peregrine_distill::inspect::{distance, fingerprint, html, inspect, Inspection};
use tempfile::TempDir;

/// Smooth blobs that depend on `seed`.
fn picture(seed: u32) -> RgbImage {
    let value = |x: u32, y: u32, k: u32| {
        let phase = |n: u32| (seed * 7 + n * 3 + k) as f32;
        128.0
            + 60.0 * (x as f32 * 0.05 + phase(1)).sin()
            + 60.0 * (y as f32 * (0.03 + 0.01 * seed as f32) + x as f32 * 0.02 * seed as f32).cos()
    };
    RgbImage::from_fn(200, 160, |x, y| Rgb([0, 1, 2].map(|k| value(x, y, k).clamp(0.0, 255.0) as u8)))
}

fn split(root: &Path, name: &str, pictures: &[(&str, RgbImage, &str)]) -> Dataset {
    let folder = root.join(name);
    for part in ["images", "labels"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    fs::write(root.join("dataset.toml"), "name = \"mine\"\nclasses = [\"car\", \"bus\"]\n").unwrap();
    for (stem, image, labels) in pictures {
        image.save(folder.join(format!("images/{stem}.png"))).unwrap();
        fs::write(folder.join(format!("labels/{stem}.txt")), labels).unwrap();
    }
    Dataset::open_with(&folder, &OpenOptions { on_error: OnError::Skip, ..Default::default() }).unwrap()
}

fn report(datasets: &[Dataset]) -> Inspection {
    inspect(datasets, &OpenOptions::default().classes, 20, &|| ()).unwrap()
}

#[test]
fn objects_are_counted_by_class_image_and_size() {
    let dir = TempDir::new().unwrap();
    // 100×80, 40×40 and 10×8 pixels.
    let labels = "0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.2 0.25\n0 0.5 0.5 0.05 0.05";
    let set = report(&[split(dir.path(), "train", &[("a", picture(1), labels), ("b", picture(2), "")])]).sets.remove(0);
    let car = &set.classes["car"];
    assert_eq!((car.objects, car.images, car.small, car.medium, car.large), (3, 1, 1, 2, 0));
    assert!(!set.classes.contains_key("bus"));
}

#[test]
fn channel_statistics_are_those_of_all_pixels() {
    let dir = TempDir::new().unwrap();
    let plain = |v| RgbImage::from_pixel(20, 20, Rgb([v, 10, 0]));
    let set = report(&[split(dir.path(), "train", &[("a", plain(100), ""), ("b", plain(200), "")])]).sets.remove(0);
    assert_eq!((set.mean, set.std), ([150.0, 10.0, 0.0], [50.0, 0.0, 0.0]));
}

#[test]
fn a_scaled_and_brightened_duplicate_in_another_split_is_found() {
    let dir = TempDir::new().unwrap();
    let copy = imageops::brighten(&imageops::resize(&picture(1), 120, 96, FilterType::Triangle), 15);
    let train = split(dir.path(), "train", &[("a", picture(1), ""), ("b", picture(2), "")]);
    let val = split(dir.path(), "val", &[("c", copy, ""), ("d", picture(3), "")]);
    let alike = report(&[train, val]).alike;
    let name = |set: &str, file: &str| (set.to_owned(), file.to_owned());
    assert_eq!(alike.len(), 1, "{alike:?}");
    assert_eq!(alike[0].images, [name("mine/train", "a.png"), name("mine/val", "c.png")]);
}

#[test]
fn duplicates_with_different_labels_are_listed() {
    let dir = TempDir::new().unwrap();
    let (car, bus) = ("0 0.5 0.5 0.5 0.5", "1 0.5 0.5 0.5 0.5");
    let train = split(dir.path(), "train", &[("a", picture(1), car), ("b", picture(1), bus), ("c", picture(1), car)]);
    let val = split(dir.path(), "val", &[("d", picture(1), ""), ("e", picture(2), bus)]);
    let datasets = [train, val];
    let found = report(&datasets);
    let name = |set: &str, file: &str| (set.to_owned(), file.to_owned());
    let original = name("mine/train", "a.png");
    let expected = [[original.clone(), name("mine/train", "b.png")], [original, name("mine/val", "d.png")]];
    assert_eq!(found.contradictions, expected);
    let page = html::page(&found, &datasets, &OpenOptions::default().classes).unwrap().html();
    assert!(page.contains("Duplicates with different labels (2 pairs)"));
}

#[test]
fn different_images_have_distant_fingerprints() {
    assert!(distance(&fingerprint(&picture(1)), &fingerprint(&picture(2))) > 40);
}

#[test]
fn a_truncated_image_is_listed_and_the_rest_reported() {
    let dir = TempDir::new().unwrap();
    let dataset = split(dir.path(), "train", &[("a", picture(1), ""), ("b", picture(2), "")]);
    let path = dir.path().join("train/images/b.png");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let set = report(&[dataset]).sets.remove(0);
    assert_eq!((set.images, set.faults.len()), (1, 1));
    assert!(set.faults[0].0.ends_with("b.png"));
}

#[test]
fn the_page_shows_pictures_and_suspicious_labels() {
    let dir = TempDir::new().unwrap();
    let labels = "0 0.25 0.25 0.5 0.5\n1 0.25 0.25 0.5 0.5\n";
    let datasets = [split(dir.path(), "train", &[("a", picture(1), labels)])];
    let found = report(&datasets);
    assert_eq!(found.sets[0].suspects.len(), 1);
    let page = html::page(&found, &datasets, &OpenOptions::default().classes).unwrap().html();
    assert!(page.contains("a.png: one object as car and as bus"), "the suspicious label is shown");
    assert!(page.contains("a.png: 1 car, 1 bus") && page.contains("data:image/jpeg;base64,"));
}

#[test]
fn the_heat_map_counts_boxes_over_each_place() {
    let dir = TempDir::new().unwrap();
    let datasets =
        [split(dir.path(), "train", &[("a", picture(1), "0 0.25 0.5 0.5 1.0"), ("b", picture(2), "0 0.5 0.5 1 1")])];
    let heat = report(&datasets).sets.remove(0).heat;
    assert!(heat.iter().all(|row| row[..16].iter().all(|&n| n == 2) && row[16..].iter().all(|&n| n == 1)));
}

#[test]
fn mask_classes_are_counted_by_pixels() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("val");
    fs::create_dir_all(folder.join("images")).unwrap();
    fs::create_dir_all(folder.join("labels")).unwrap();
    let config = "name = \"mine\"\n[segmentation]\nclasses = [\"sky\", \"road\", \"other\"]\n";
    fs::write(dir.path().join("dataset.toml"), config).unwrap();
    picture(1).save(folder.join("images/a.png")).unwrap();
    let byte = |x: u32| if x < 100 { 1 } else { 2 };
    GrayImage::from_fn(200, 160, |x, _| Luma([byte(x)])).save(folder.join("labels/a.png")).unwrap();
    let pixels = report(&[Dataset::open(&folder, None).unwrap()]).sets.remove(0).pixels;
    assert_eq!(pixels.into_iter().collect::<Vec<_>>(), [("road".to_owned(), 0.5), ("void".to_owned(), 0.5)]);
}
