//! `distill import` of bags whose messages carry H.264 or H.265.

use std::fs;
use std::path::Path;

use clap::Parser;
use peregrine_core::encoding::YuvRange;
use peregrine_core::{Encoding, ImageView};
use peregrine_distill::import::{self, ImportArgs};
use peregrine_video::Codec;
use peregrine_vision::preprocess::rgb::to_rgb8;

use crate::recorder::{record_in_sqlite, PERIOD, START};
use crate::streams::{open, sample};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ImportArgs,
}

fn import(source: &Path, out: &Path, options: &str) -> anyhow::Result<()> {
    let fixed = ["import", source.to_str().unwrap(), "--out", out.to_str().unwrap()];
    import::run(&Cli::parse_from(fixed.into_iter().chain(options.split_whitespace())).args)
}

#[test]
fn pictures_of_a_recorded_video_become_files_with_their_stamps() {
    let folder = tempfile::tempdir().unwrap();
    for (codec, format) in [(Codec::H264, "h264"), (Codec::H265, "h265")] {
        let Some(sample) = sample(codec, "64x48", 25, &[]) else { return };
        if open(codec).is_none() {
            return;
        }
        let bag = record_in_sqlite(folder.path(), format, &sample.packets);
        let out = folder.path().join(format);
        import(&bag, &out, "--alike none --from 0.5 --every 7").unwrap();
        for number in [5, 12, 19] {
            let stamp = START + number as u64 * PERIOD - 20_000_000;
            let written = image::open(out.join(format!("images/camera_{stamp:019}.png"))).unwrap().into_rgb8();
            let encoding = Encoding::I420(YuvRange::Limited);
            let picture = ImageView::with_encoding(encoding, 64, 48, 64, &sample.pictures[number]).unwrap();
            let mut expected = Vec::new();
            to_rgb8(&picture, &mut expected);
            assert!(written.into_raw() == expected, "{codec:?} {number}");
        }
        assert_eq!(fs::read_dir(out.join("images")).unwrap().count(), 3);
        // Another start of the same command finds all done.
        import(&bag, &out, "--alike none --from 0.5 --every 7").unwrap();
        assert_eq!(fs::read_dir(out.join("images")).unwrap().count(), 3);
    }
}

#[test]
fn a_video_without_a_key_frame_imports_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let Some(sample) = sample(Codec::H264, "64x48", 10, &[]) else { return };
    if open(Codec::H264).is_none() {
        return;
    }
    let bag = record_in_sqlite(folder.path(), "h264", &sample.packets[1..]);
    let refused = import(&bag, &folder.path().join("out"), "").unwrap_err().to_string();
    assert!(refused.contains("no image of /camera could be imported"), "{refused}");
}
