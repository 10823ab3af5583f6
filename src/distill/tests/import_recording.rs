//! `distill import` of bags: those of tests/reference/bags, which PyPI's `rosbags` wrote.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use peregrine_distill::data::Dataset;
use peregrine_distill::import::{self, ImportArgs};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ImportArgs,
}

fn bag(name: &str) -> PathBuf {
    peregrine_support::root().join("tests/reference/bags").join(name)
}

fn import(source: &Path, out: &Path, options: &str) -> anyhow::Result<()> {
    let fixed = ["import", source.to_str().unwrap(), "--out", out.to_str().unwrap()];
    import::run(&Cli::parse_from(fixed.into_iter().chain(options.split_whitespace())).args)
}

/// The names of the images, in order.
fn images(out: &Path) -> Vec<String> {
    let entries = fs::read_dir(out.join("images")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_bag_becomes_an_unlabelled_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("drive");
    import(&bag("sqlite3_raw"), &out, "--alike none --every 2").unwrap();
    let names = [999_980, 1_000_180, 1_000_380].map(|ms| format!("camera_{:019}.png", ms * 1_000_000u64));
    assert_eq!(images(&out), names);
    let dataset = Dataset::open(&out, None).unwrap();
    assert_eq!((dataset.name.as_str(), dataset.samples.len()), ("drive", 3));
    assert!(dataset.samples.iter().all(|sample| sample.boxes.is_none() && sample.size == (8, 6)));
    let picture = image::open(&dataset.samples[1].image).unwrap().into_rgb8();
    assert!(picture.pixels().all(|pixel| pixel.0 == [80; 3]));
}

#[test]
fn jpegs_of_a_bag_are_stored_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    import(&bag("mcap_jpeg"), folder.path(), "--alike none").unwrap();
    let recorded = fs::read(bag("mcap_jpeg/mcap_jpeg.mcap")).unwrap();
    let names = images(folder.path());
    assert_eq!(names.len(), 5);
    for name in names {
        assert!(name.ends_with(".jpg"));
        let stored = fs::read(folder.path().join("images").join(name)).unwrap();
        assert!(recorded.windows(stored.len()).any(|bytes| bytes == stored));
    }
}

#[test]
fn near_duplicates_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    // Pictures of one colour have no gradients to tell them apart.
    import(&bag("mcap_raw"), folder.path(), "").unwrap();
    assert_eq!(images(folder.path()).len(), 1);
    let journal = fs::read_to_string(folder.path().join("import.jsonl")).unwrap();
    assert_eq!(journal.lines().count(), 2);
}

#[test]
fn an_interrupted_import_is_resumed_to_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let (out, journal) = (folder.path(), folder.path().join("import.jsonl"));
    import(&bag("mcap_raw"), out, "--alike none").unwrap();
    let (names, text) = (images(out), fs::read_to_string(&journal).unwrap());
    let begun: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    fs::write(&journal, begun + "{\"position\": 3, ").unwrap();
    fs::remove_file(out.join("images").join(&names[3])).unwrap();
    import(&bag("mcap_raw"), out, "--alike none").unwrap();
    assert_eq!((images(out), fs::read_to_string(&journal).unwrap()), (names, text));
    let refused = import(&bag("mcap_raw"), out, "--alike none --every 2").unwrap_err().to_string();
    assert!(refused.contains("other options"), "{refused}");
}

#[test]
fn a_bag_that_is_cut_short_is_imported_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = fs::read(bag("mcap_encodings/mcap_encodings.mcap")).unwrap();
    let path = folder.path().join("cut.mcap");
    fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    let out = folder.path().join("out");
    import(&path, &out, "--alike none --raw jpeg").unwrap();
    // The fifth is of floating-point numbers, which is counted and not stored.
    let names = images(&out);
    assert!(names.len() == 4 && names.iter().all(|name| name.ends_with(".jpg")), "{names:?}");
}

#[test]
fn a_camera_of_12_bits_is_imported_as_bright_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let greys = |out: &str, options: &str| -> Vec<u8> {
        let out = folder.path().join(out);
        import(&bag("mcap_levels"), &out, options).unwrap();
        let open = |name| image::open(out.join("images").join(name)).unwrap().to_rgb8().get_pixel(3, 3).0[1];
        images(&out).into_iter().map(open).collect()
    };
    assert_eq!(greys("12", "--alike none --white-level 4095 --yuv-range full"), [125, 125, 125, 80, 80]);
    assert_eq!(greys("16", "--alike none"), [8, 8, 8, 75, 75]);
    let out = folder.path().join("12");
    let refused = import(&bag("mcap_levels"), &out, "--alike none").unwrap_err().to_string();
    assert!(refused.contains("other options"), "{refused}");
}

#[test]
fn a_recording_without_what_was_asked_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |source: &str, options| import(&bag(source), folder.path(), options).unwrap_err().to_string();
    assert!(refused("mcap_raw", "--topic /front").contains("its image topics are: /camera"));
    assert!(refused("mcap_no_images", "").contains("has no topic of images"));
    assert!(refused("mcap_raw", "--from 2 --to 1").contains("nothing lies between"));
    assert!(refused("mcap_raw", "--from 9").contains("no image of /camera could be imported"));
}
