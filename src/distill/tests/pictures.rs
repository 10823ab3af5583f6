//! Images and masks as cameras, phones and label tools write them.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use peregrine_distill::data::{load_image, Dataset, OnError, OpenOptions};
use tempfile::TempDir;

/// A picture whose left half is red and whose right half is blue.
fn halves(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) })
}

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A JPEG with an EXIF segment that holds the orientation alone (EXIF 2.32, 4.5 and 4.6.4).
fn turned_jpeg(image: &RgbImage, orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = (exif.len() + 2) as u16;
    let jpeg = encoded(image, ImageFormat::Jpeg);
    [&jpeg[..2], &[0xff, 0xe1], &length.to_be_bytes(), &exif, &jpeg[2..]].concat()
}

fn project(config: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    for part in ["images", "labels"] {
        fs::create_dir(dir.path().join(part)).unwrap();
    }
    fs::write(dir.path().join("dataset.toml"), config).unwrap();
    dir
}

fn open(folder: &Path) -> Dataset {
    Dataset::open_with(folder, &OpenOptions { on_error: OnError::Skip, ..Default::default() }).unwrap()
}

const CARS: &str = "name = 'x'\nclasses = ['car']\n";

#[test]
fn a_photo_is_turned_as_its_exif_tag_says() {
    let dir = project(CARS);
    let path = dir.path().join("images/a.jpg");
    fs::write(dir.path().join("labels/a.txt"), "0 0.5 0.25 1 0.5").unwrap();
    // Where the red half is in the upright picture: left, right, top, bottom.
    for (orientation, red) in
        [(1, (0.25, 0.5)), (2, (0.75, 0.5)), (3, (0.75, 0.5)), (4, (0.25, 0.5)), (6, (0.5, 0.25)), (8, (0.5, 0.75))]
    {
        fs::write(&path, turned_jpeg(&halves(64, 32), orientation)).unwrap();
        let sides = if orientation > 4 { (32, 64) } else { (64, 32) };
        let upright = load_image(&path).unwrap();
        assert_eq!(upright.dimensions(), sides, "{orientation}");
        let at = |(x, y): (f32, f32)| upright.get_pixel((x * sides.0 as f32) as u32, (y * sides.1 as f32) as u32).0;
        assert!(at(red)[0] > 200 && at((1.0 - red.0, 1.0 - red.1))[2] > 200, "{orientation}");
        let sample = open(dir.path()).samples.remove(0);
        let bbox = sample.boxes.unwrap()[0].bbox;
        assert_eq!((sample.size, bbox.x_max, bbox.y_max), (sides, sides.0 as f32, sides.1 as f32 / 2.0));
    }
}

#[test]
fn images_of_every_kind_are_read_and_everything_else_is_named() {
    let dir = project(CARS);
    let images = dir.path().join("images");
    let picture = halves(40, 30);
    for (name, format) in [
        ("a.jpg", ImageFormat::Jpeg),
        ("b.JPEG", ImageFormat::Jpeg),
        ("c.jfif", ImageFormat::Jpeg),
        ("d.png", ImageFormat::Png),
        ("e.webp", ImageFormat::WebP),
        ("f.bmp", ImageFormat::Bmp),
        ("g.tif", ImageFormat::Tiff),
        ("h.TIFF", ImageFormat::Tiff),
        // Saved under the wrong name: the content counts.
        ("i.jpg", ImageFormat::Png),
    ] {
        fs::write(images.join(name), encoded(&picture, format)).unwrap();
    }
    fs::create_dir(images.join("day")).unwrap();
    fs::create_dir(dir.path().join("labels/day")).unwrap();
    picture.save(images.join("day/a.png")).unwrap();
    fs::write(dir.path().join("labels/day/a.txt"), "0 0.5 0.5 1 1").unwrap();
    fs::write(images.join("notes.gif"), "GIF89a").unwrap();
    fs::write(dir.path().join("labels/a.csv"), "car,1,2,3,4").unwrap();
    std::os::unix::fs::symlink("nowhere.jpg", images.join("link.jpg")).unwrap();
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"caf\xe9.jpg");
    fs::write(images.join(odd), encoded(&picture, ImageFormat::Jpeg)).unwrap();
    let set = open(dir.path());
    let names: Vec<&str> = set.samples.iter().map(|s| s.file_name()).collect();
    let expected = ["a.jpg", "b.JPEG", "c.jfif", "d.png", "day/a.png", "e.webp", "f.bmp", "g.tif", "h.TIFF", "i.jpg"];
    assert_eq!(names, expected);
    assert_eq!(set.samples[4].boxes.as_ref().unwrap().len(), 1);
    for sample in &set.samples {
        assert_eq!(load_image(&sample.image).unwrap().dimensions(), (40, 30), "{}", sample.name);
    }
    let named = |part: &str| set.skipped.iter().any(|s| s.path.to_string_lossy().contains(part));
    assert!(["notes.gif", "a.csv", "link.jpg", "caf"].into_iter().all(named), "{:?}", set.skipped);
    assert_eq!(set.skipped.len(), 4);
}

#[test]
fn a_folder_that_links_to_itself_is_read_once() {
    let dir = project(CARS);
    halves(8, 8).save(dir.path().join("images/a.png")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("images"), dir.path().join("images/again")).unwrap();
    assert_eq!(open(dir.path()).samples.len(), 1);
}

#[test]
fn a_film_behind_a_photo_does_not_matter() {
    let dir = project(CARS);
    let mut photo = encoded(&halves(64, 32), ImageFormat::Jpeg);
    photo.extend(b"\0\0\0\x18ftypmp42\0\0\0\0\xff\xd8\xff\xda\0\x0c film");
    fs::write(dir.path().join("images/a.jpg"), photo).unwrap();
    assert_eq!(load_image(&open(dir.path()).samples[0].image).unwrap().dimensions(), (64, 32));
}

const ROADS: &str = "name = 'x'\n[segmentation]\nclasses = ['other', 'road']\nvoid = 255\n";

/// A PNG of 8×2 pixels.
fn png(path: &Path, colour: png::ColorType, depth: png::BitDepth, rows: &[u8]) {
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), 8, 2);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == png::ColorType::Indexed {
        encoder.set_palette(vec![0, 0, 0, 128, 64, 128]);
    }
    encoder.write_header().unwrap().write_image_data(rows).unwrap();
}

#[test]
fn one_bit_and_palette_masks_mean_the_stored_number() {
    let dir = project(ROADS);
    halves(8, 2).save(dir.path().join("images/a.png")).unwrap();
    let path = dir.path().join("labels/a.png");
    let bits = [0b0110_0001, 0b0000_0000];
    let bytes = [0, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let road = OpenOptions::default().segmentation.iter().position(|c| c == "road").unwrap() as u8;
    for (colour, depth, rows) in [
        (png::ColorType::Grayscale, png::BitDepth::One, &bits[..]),
        (png::ColorType::Indexed, png::BitDepth::One, &bits),
        (png::ColorType::Indexed, png::BitDepth::Eight, &bytes),
    ] {
        png(&path, colour, depth, rows);
        let mask = open(dir.path()).load_mask(&path).unwrap();
        let expected = bytes.map(|byte| if byte == 1 { road } else { 255 });
        assert_eq!(mask.as_raw()[..], expected, "{colour:?} {depth:?}");
    }
}

#[test]
fn colour_masks_are_read_by_their_table() {
    let config = "name = 'x'\n[segmentation]\nclasses = ['sky', 'road']\ncolours = [[128, 128, 128], [128, 64, 128]]\n";
    let dir = project(config);
    halves(8, 2).save(dir.path().join("images/a.png")).unwrap();
    let path = dir.path().join("labels/a.png");
    let colour = |x: u32| if x < 4 { Rgb([128, 64, 128]) } else { Rgb([128, 128, 128]) };
    RgbImage::from_fn(8, 2, |x, _| colour(x)).save(&path).unwrap();
    let set = open(dir.path());
    let classes = OpenOptions::default().segmentation;
    let number = |name: &str| classes.iter().position(|c| c == name).unwrap() as u8;
    assert_eq!(set.load_mask(&path).unwrap().as_raw()[3..5], [number("road"), number("sky")]);
    RgbImage::from_pixel(8, 2, Rgb([1, 2, 3])).save(&path).unwrap();
    let message = set.load_mask(&path).unwrap_err().to_string();
    assert!(message.contains("[1, 2, 3]") && message.contains("colours"), "{message}");
}

#[test]
fn classes_that_nothing_maps_are_named_with_near_ones() {
    let dir = project(
        "name = 'x'\nclasses = ['Car', 'Trucks', 'zebra']\n[segmentation]\nclasses = ['Road', 'x']\nvoid = 1\n",
    );
    halves(8, 2).save(dir.path().join("images/a.png")).unwrap();
    GrayImage::from_pixel(8, 2, Luma([0])).save(dir.path().join("labels/a.png")).unwrap();
    let set = open(dir.path());
    let found: Vec<(&str, Option<&str>)> = set.unmapped.iter().map(|u| (u.class.as_str(), u.near.as_deref())).collect();
    assert_eq!(found, [("Car", Some("car")), ("Trucks", Some("truck")), ("zebra", None), ("Road", Some("road"))]);
    assert!(
        !set.teaches() && set.why_it_teaches_nothing().contains("did you mean"),
        "{}",
        set.why_it_teaches_nothing()
    );
}
