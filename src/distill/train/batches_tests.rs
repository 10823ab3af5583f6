//! Batches: what is in them, whoever renders them and however they are loaded.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use image::{GrayImage, RgbImage};
use peregrine_student::architecture::Input;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::batches::{Batch, Rendering};
use super::config::StudentConfig;
use super::images::{Loading, TrainImages};
use super::survey::Survey;
use crate::data::load_image;
use crate::picture::{Colour, Picture, SourceImage, Staying, ViewTransform};
use crate::ranks::threads::on_ranks;
use crate::ranks::Ranks;

const BOTH: &str = "steps = 6\nbatch = 5\ninput = [64, 64]\n[augment]\nmosaic = 0.5\nmixup = 0.5";

/// Two data sets, one with boxes and one with masks, of six images each, all of different sizes.
fn project(folder: &Path, keys: &str) -> StudentConfig {
    for (set, config) in
        [("boxes", "classes = ['car']"), ("masks", "[segmentation]\nclasses = ['road', 'sky']\nvoid = 255")]
    {
        for part in ["images", "labels"] {
            fs::create_dir_all(folder.join(set).join(part)).unwrap();
        }
        fs::write(folder.join(set).join("dataset.toml"), format!("name = '{set}'\n{config}")).unwrap();
        for i in 0..6 {
            let (width, height) = (70 + 9 * i, 60 + 5 * i);
            let image = RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 3) as u8, (y * 4) as u8, i as u8]));
            image.save(folder.join(format!("{set}/images/{i}.png"))).unwrap();
            let label = folder.join(set).join("labels").join(i.to_string());
            if set == "boxes" {
                fs::write(label.with_extension("txt"), "0 0.5 0.5 0.4 0.6").unwrap();
            } else {
                let mask = GrayImage::from_fn(width, height, |x, _| image::Luma([(x / 40) as u8 % 2]));
                mask.save(label.with_extension("png")).unwrap();
            }
        }
    }
    let data = |set: &str| format!("[[data]]\nfolder = '{}'\nshare = 1.5\n", folder.join(set).display());
    StudentConfig::parse(&format!("{keys}\n{}{}", data("boxes"), data("masks"))).unwrap()
}

fn images(config: &StudentConfig, loading: Loading) -> (TrainImages, Input) {
    let architecture = config.load_architecture().unwrap();
    let survey = Survey::make(config.open_data(&architecture).unwrap(), None).unwrap();
    (TrainImages::load(config, survey, &architecture, None, &[], loading).unwrap(), architecture.input)
}

fn rendered(config: &StudentConfig, loading: Loading) -> Vec<anyhow::Result<Batch>> {
    let (images, input) = images(config, loading);
    images
        .start(0, config.clone(), input, None, &Ranks::alone(), Rendering::WhileLoading)
        .unwrap()
        .into_iter()
        .collect()
}

#[test]
fn cache_and_number_of_threads_do_not_change_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let config = project(folder.path(), BOTH);
    let with = |cache, threads| -> Vec<Batch> {
        rendered(&config, Loading { cache, threads }).into_iter().map(Result::unwrap).collect()
    };
    let expected = with(1 << 30, 1);
    assert_eq!(expected.iter().map(|batch| batch.step).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert!(expected.iter().all(|batch| batch.files.len() == 5 && batch.input.len() == 5 * 3 * 64 * 64));
    for (cache, threads) in [(1 << 30, 3), (100_000, 1), (100_000, 3), (0, 3)] {
        assert!(with(cache, threads) == expected, "{cache} bytes, {threads} threads");
    }
}

#[test]
fn a_small_cache_stays_within_its_bound() {
    let folder = tempfile::tempdir().unwrap();
    let config = project(folder.path(), BOTH);
    let (images, input) = images(&config, Loading { cache: 100_000, threads: 3 });
    for step in 0..config.steps {
        images.batch(step, &config, &input).unwrap();
        assert!((30_000..=100_000).contains(&images.cached()), "{}", images.cached());
    }
}

#[test]
fn a_batch_is_what_drawing_and_rendering_in_turn_gives() {
    let folder = tempfile::tempdir().unwrap();
    let config = project(folder.path(), "steps = 3\nbatch = 4\ninput = [64, 64]");
    let (images, input) = images(&config, Loading::default());
    for step in 0..config.steps {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(step);
        let mut expected = Vec::new();
        for _ in 0..config.batch {
            let set = if rng.random_range(0.0..3.0) < 1.5 { "boxes" } else { "masks" };
            let image = folder.path().join(format!("{set}/images/{}.png", rng.random_range(0..6usize)));
            let image = load_image(&image).unwrap();
            let view = ViewTransform::random(image.dimensions(), 64, 64, &config.augment, &mut rng);
            let colour = Colour::random(config.augment.colour, &mut rng);
            let mut tensor = vec![0.0; 3 * 64 * 64];
            let image = SourceImage::new(0, Arc::new(image));
            Picture::view(image, view, colour, &input).render(&input, &mut tensor);
            expected.extend(tensor);
        }
        assert!(images.batch(step, &config, &input).unwrap().input == expected, "step {step}");
    }
}

#[test]
fn pictures_are_those_that_are_rendered_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let config = project(folder.path(), BOTH);
    let start = |rendering| -> Vec<Batch> {
        let (images, input) = images(&config, Loading::default());
        let batches = images.start(0, config.clone(), input, None, &Ranks::alone(), rendering).unwrap();
        batches.into_iter().map(Result::unwrap).collect()
    };
    let input = config.load_architecture().unwrap().input;
    for (rendered, mut shown) in
        start(Rendering::WhileLoading).into_iter().zip(start(Rendering::OnDevice(Arc::default())))
    {
        assert!(rendered.pictures.is_empty() && shown.input.is_empty());
        let mut pixels = vec![0.0; rendered.input.len()];
        let tensors = pixels.chunks_mut(3 * 64 * 64);
        std::mem::take(&mut shown.pictures).iter().zip(tensors).for_each(|(p, tensor)| p.render(&input, tensor));
        assert!(Batch { input: pixels, ..shown } == rendered);
    }
}

#[test]
fn images_that_stay_on_the_device_are_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = StudentConfig { steps: 12, ..project(folder.path(), BOTH) };
    let (images, input) = images(&config, Loading { cache: 0, threads: 2 });
    let staying = Arc::new(Staying::default());
    let batch = |step| images.part(step, &config, &input, 0..5, &Rendering::OnDevice(Arc::clone(&staying)));
    let before = batch(3).unwrap();
    let all: Vec<SourceImage> =
        before.pictures.iter().flat_map(Picture::all_tiles).map(|tile| tile.image.clone()).collect();
    all.iter().for_each(|image| staying.add(image.number));
    let mut after = batch(3).unwrap();
    let tiles =
        after.pictures.iter_mut().flat_map(|p| p.tiles.iter_mut().chain(p.blended.iter_mut().flat_map(|b| &mut b.1)));
    for (tile, image) in tiles.zip(all) {
        assert_eq!((tile.image.number, tile.image.size), (image.number, image.size));
        assert!(tile.image.pixels.is_none() && image.pixels.is_some());
        tile.image = image;
    }
    assert!(after == before, "labels and masks are the same");
}

#[test]
fn ranks_render_the_parts_of_one_batch() {
    let folder = tempfile::tempdir().unwrap();
    let config = StudentConfig { batch: 6, steps: 2, ..project(folder.path(), BOTH) };
    let (images, input) = images(&config, Loading::default());
    let whole: Vec<Batch> = (0..2).map(|step| images.batch(step, &config, &input).unwrap()).collect();
    let parts = on_ranks(3, |ranks| {
        let (images, input) = super::batches_tests::images(&config, Loading::default());
        let batches = images.start(0, config.clone(), input, None, &ranks, Rendering::WhileLoading).unwrap();
        batches.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    });
    for (step, whole) in whole.iter().enumerate() {
        let of_ranks = || parts.iter().map(|batches| &batches[step]);
        assert!(of_ranks().all(|part| part.files.len() == 2));
        assert!(of_ranks().flat_map(|part| &part.input).eq(&whole.input), "step {step}");
        assert!(of_ranks().flat_map(|part| &part.objects).eq(&whole.objects), "step {step}");
    }
}

#[test]
fn an_image_that_is_damaged_while_training_is_named_or_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let config = project(folder.path(), BOTH);
    let skipping = StudentConfig { skip_bad: true, ..config.clone() };
    let none = Loading { cache: 0, threads: 2 };
    let ((strict, input), (lenient, _)) = (images(&config, none), images(&skipping, none));
    let before = lenient.batch(0, &skipping, &input).unwrap();
    let file = before.files[0].clone();
    fs::write(&file, "damaged").unwrap();
    let error = strict.batch(0, &config, &input).unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()) && error.contains("skip_bad"), "{error}");
    let after = lenient.batch(0, &skipping, &input).unwrap();
    assert_eq!((after.files.len(), after.files.contains(&file)), (5, false));
    assert_eq!(after, lenient.batch(0, &skipping, &input).unwrap(), "the same image each time");
    // All of a set: there is none to be shown in their place.
    for i in 0..6 {
        fs::write(file.with_file_name(format!("{i}.png")), "damaged").unwrap();
    }
    assert!(lenient.batch(0, &skipping, &input).is_err());
}
