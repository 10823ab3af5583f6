//! The whole frame path: with an engine that says what it is told, and with the real one without allocation.

use std::collections::BTreeMap;

use peregrine_core::allocations::{allocations, CountingAllocator};
use peregrine_core::{Encoding, ImageView};
use peregrine_engine::{ConvWeights, Engine, EngineError, Graph, Weights};
use peregrine_pipeline::graph_for;
use peregrine_pipeline::{Pipeline, PipelineError, PipelineOptions};
use peregrine_student::manifest::{Manifest, Training, WeightsFile, FORMAT_VERSION};
use peregrine_student::{Architecture, Student};
use peregrine_vision::decode::NmsIou;

#[global_allocator]
static COUNTING: CountingAllocator = CountingAllocator::per_thread();

/// The default student with small weights without pattern.
fn untrained_student() -> Student {
    let architecture = Architecture::default_student();
    let mut state = 1u32;
    let mut next = |fan_in: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * (12.0 / fan_in as f32).sqrt()
    };
    let mut weights = Weights::default();
    for (layer, _, shape) in architecture.graph(64, 64).convs() {
        let fan_in = shape[1] * shape[2] * shape[3];
        let weight = (0..shape.iter().product()).map(|_| next(fan_in)).collect();
        weights.0.insert(layer.name.clone(), ConvWeights { weight, bias: vec![0.0; shape[0]] });
    }
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        name: "untrained".into(),
        architecture,
        weights: WeightsFile { file: "weights.safetensors".into(), sha256: String::new(), cluster_bits: None },
        training: Training::default(),
        quantization: None,
        accuracy: BTreeMap::new(),
        notice: Vec::new(),
    };
    Student { manifest, weights, quantization: None }
}

/// An engine whose outputs were set beforehand.
struct Canned {
    input: Vec<f32>,
    outputs: Vec<Vec<f32>>,
    fails: bool,
}

impl Canned {
    /// Outputs for `graph` in which nothing is found and each cell is of class 0.
    fn quiet(graph: &Graph) -> Self {
        let outputs = graph.outputs.iter().map(|&id| vec![-9.0; graph.layers[id].shape.len()]).collect();
        Self { input: vec![0.0; graph.input_shape().len()], outputs, fails: false }
    }
}

impl Engine for Canned {
    fn input(&mut self) -> &mut [f32] {
        &mut self.input
    }

    fn run(&mut self) -> Result<(), EngineError> {
        if self.fails {
            return Err(EngineError::Unsupported { device: "canned", why: "it was told to fail".into() });
        }
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        &self.outputs[index]
    }
}

fn grey(width: u32, height: u32) -> (u32, u32, Vec<u8>) {
    (width, height, vec![90; (width * height) as usize])
}

fn view((width, height, data): &(u32, u32, Vec<u8>)) -> ImageView<'_> {
    ImageView::new("mono8", *width, *height, *width, data).unwrap()
}

#[test]
fn a_detection_comes_out_in_source_pixels_and_the_mask_covers_the_image() {
    let architecture = Architecture::default_student();
    let options = PipelineOptions { score_threshold: 0.5, ..PipelineOptions::default() };
    let mut engine = Canned::quiet(&graph_for(&architecture, &options));
    // Stride 32: cell (5, 3) of 10 × 8 has its anchor at (176, 112); each side 1 bin away.
    let cell = 3 * 10 + 5;
    engine.outputs[4][2 * 80 + cell] = 3.0;
    for side in 0..4 {
        engine.outputs[5][(side * 8 + 1) * 80 + cell] = 40.0;
    }
    // Class 7 for the map's row 9, which is the first of the image.
    engine.outputs[6][7 * 80 * 64 + 9 * 80..][..80].fill(1.0);
    let mut pipeline = Pipeline::with_engine(&architecture, Box::new(engine), options).unwrap();

    let image = grey(1920, 1080);
    let result = pipeline.process(&view(&image)).unwrap();
    // 320 × 180 from (0, 36) on: 6 source pixels an input pixel.
    assert_eq!(result.detections.len(), 1);
    let found = result.detections[0];
    assert_eq!(found.class, 2);
    let expected =
        [(176.0 - 32.0) * 6.0, (112.0 - 36.0 - 32.0) * 6.0, (176.0 + 32.0) * 6.0, (112.0 - 36.0 + 32.0) * 6.0];
    let bbox = [found.bbox.x_min, found.bbox.y_min, found.bbox.x_max, found.bbox.y_max];
    assert!(bbox.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-3), "{bbox:?}");
    assert_eq!((result.mask.width, result.mask.height), (80, 45));
    assert_eq!(result.mask.at(960, 0, (1920, 1080)), Some(7));
    assert_eq!(result.mask.at(960, 30, (1920, 1080)), Some(0));
    let t = result.times;
    assert!(t.preprocess_start <= t.preprocess_end && t.inference_end <= t.decode_end);
    assert_eq!(t.total(), t.preprocess() + t.inference() + t.decode());
}

#[test]
fn thresholds_set_between_frames_hold_from_the_next_one_on_and_only_within_their_range() {
    let architecture = Architecture::default_student();
    let options = PipelineOptions { score_threshold: 0.5, ..PipelineOptions::default() };
    let mut engine = Canned::quiet(&graph_for(&architecture, &options));
    // A score of 0.73.
    engine.outputs[4][0] = 1.0;
    let mut pipeline = Pipeline::with_engine(&architecture, Box::new(engine), options).unwrap();
    let image = grey(320, 256);
    let mut found = |score_threshold| {
        pipeline.set_thresholds(score_threshold, NmsIou::by_class(0.6));
        pipeline.process(&view(&image)).unwrap().detections.len()
    };
    assert_eq!([0.7, 0.8, 1.5, 0.7].map(&mut found), [1, 0, 0, 1]);
}

#[test]
fn a_failing_engine_is_an_error_of_the_frame() {
    let architecture = Architecture::default_student();
    let options = PipelineOptions::default();
    let mut engine = Canned::quiet(&graph_for(&architecture, &options));
    engine.fails = true;
    let mut pipeline = Pipeline::with_engine(&architecture, Box::new(engine), options).unwrap();
    let error = pipeline.process(&view(&grey(64, 64))).unwrap_err();
    assert!(error.to_string().contains("told to fail"));
}

#[test]
fn without_segmentation_the_network_is_cut_and_the_mask_is_empty() {
    let student = untrained_student();
    let options = PipelineOptions { segmentation: false, input_size: Some((64, 64)), ..PipelineOptions::default() };
    let cut = graph_for(&student.manifest.architecture, &options);
    assert!(cut.layers.iter().all(|layer| !layer.name.starts_with("segment")));
    let mut pipeline = Pipeline::new(&student, options).unwrap();
    assert!(pipeline.process(&view(&grey(64, 64))).unwrap().mask.classes.is_empty());
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let student = untrained_student();
    let good = PipelineOptions::default();
    for (option, options) in [
        ("score_threshold", PipelineOptions { score_threshold: f32::NAN, ..good.clone() }),
        ("score_threshold", PipelineOptions { score_threshold: 1.0, ..good.clone() }),
        ("nms_iou", PipelineOptions { nms: NmsIou::by_class(-0.1), ..good.clone() }),
        ("max_detections", PipelineOptions { max_detections: 0, ..good.clone() }),
        ("threads", PipelineOptions { threads: 0, ..good.clone() }),
        ("input_size", PipelineOptions { input_size: Some((320, 250)), ..good.clone() }),
    ] {
        match Pipeline::new(&student, options) {
            Err(PipelineError::Option { option: named, .. }) => assert_eq!(named, option),
            Err(other) => panic!("{option}: {other}"),
            Ok(_) => panic!("{option} was accepted"),
        }
    }
}

#[test]
fn after_the_first_frame_of_a_size_nothing_is_allocated_for_any_encoding() {
    let options = PipelineOptions {
        // Low enough that detections are found, suppressed and scaled too.
        score_threshold: 0.4,
        input_size: Some((64, 64)),
        ..PipelineOptions::default()
    };
    let mut pipeline = Pipeline::new(&untrained_student(), options).unwrap();
    let (width, height) = (200u32, 120u32);
    let mut detections = 0;
    for encoding in Encoding::ALL {
        let step = encoding.row_bytes(width as usize) as u32;
        let data: Vec<u8> = (0..3 * step * height).map(|i| (i as usize * 7919 % 251) as u8).collect();
        let image = ImageView::with_encoding(encoding, width, height, step, &data).unwrap();
        if encoding == Encoding::ALL[0] {
            pipeline.process(&image).unwrap();
        }
        for _ in 0..30 {
            let before = allocations();
            detections += pipeline.process(&image).unwrap().detections.len();
            assert_eq!(allocations() - before, 0, "{encoding:?}");
        }
    }
    assert!(detections > 0, "the test means little unless something is decoded");
}

/// All around the network, whose own memory is the one of src/engine/tests/allocation.rs.
#[test]
fn ten_thousand_frames_of_every_encoding_are_worked_on_without_allocation() {
    let architecture = Architecture::default_student();
    let options = PipelineOptions {
        input_size: Some((64, 64)),
        tracking: Some(Default::default()),
        score_threshold: 0.5,
        ..PipelineOptions::default()
    };
    let mut engine = Canned::quiet(&graph_for(&architecture, &options));
    // An object at stride 8, a pixel to each side, so that boxes are decoded, suppressed and followed.
    engine.outputs[0][9] = 3.0;
    engine.outputs[0][10] = 2.0;
    let mut pipeline = Pipeline::with_engine(&architecture, Box::new(engine), options).unwrap();
    let (width, height) = (40u32, 24u32);
    for encoding in Encoding::ALL {
        let step = encoding.row_bytes(width as usize) as u32;
        let data: Vec<u8> = (0..3 * step * height).map(|i| (i as usize * 7919 % 251) as u8).collect();
        let image = ImageView::with_encoding(encoding, width, height, step, &data).unwrap();
        // The first frames, in which tracks begin, make what is kept.
        for i in 0..5 {
            pipeline.process_from(0, &image, i * 33_000_000).unwrap();
        }
        let before = allocations();
        for i in 5..10_005 {
            let result = pipeline.process_from(0, &image, i * 33_000_000).unwrap();
            assert!(!result.detections.is_empty() && !result.tracks.is_empty() && !result.mask.classes.is_empty());
        }
        assert_eq!(allocations() - before, 0, "{encoding:?}");
        pipeline.forget_tracks();
    }
}

#[test]
fn a_change_of_image_size_is_taken_in_stride() {
    let options = PipelineOptions { input_size: Some((64, 64)), ..PipelineOptions::default() };
    let mut pipeline = Pipeline::new(&untrained_student(), options).unwrap();
    for (width, height) in [(64, 64), (31, 77), (640, 480), (64, 64), (1, 1)] {
        let image = grey(width, height);
        let result = pipeline.process(&view(&image)).unwrap();
        assert!(result.detections.iter().all(|d| d.bbox.x_max <= width as f32 && d.bbox.y_max <= height as f32));
        assert_eq!(result.mask.classes.len(), result.mask.width * result.mask.height);
    }
}

/// Runs the embedded student on the sample frames and returns what it found in each.
fn found_in_sample_frames(options: PipelineOptions) -> Vec<peregrine_pipeline::FrameResult> {
    let mut pipeline = Pipeline::new(&Student::embedded(), options).unwrap();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/frames");
    let files = ["street-20.jpg", "street-26.jpg", "yard-205.jpg"];
    let process = |(i, file): (usize, &str)| {
        let picture = image::open(folder.join(file)).unwrap().to_rgb8();
        let (width, height) = picture.dimensions();
        let view = ImageView::new("rgb8", width, height, 3 * width, picture.as_raw()).unwrap();
        // Each frame twice, so that there are tracks.
        pipeline.process_from(0, &view, 5_000_000_000 * i as i64).unwrap();
        pipeline.process_from(0, &view, 5_000_000_000 * i as i64 + 30_000_000).unwrap().clone()
    };
    files.into_iter().enumerate().map(process).collect()
}

#[test]
fn tracking_changes_no_detection_and_gives_each_its_identity() {
    let options = PipelineOptions { max_detections: 12, ..PipelineOptions::default() };
    let without = found_in_sample_frames(options.clone());
    let with = found_in_sample_frames(PipelineOptions { tracking: Some(Default::default()), ..options });
    let mut last_identity = 0;
    for (without, with) in without.iter().zip(&with) {
        assert!(!with.detections.is_empty());
        assert_eq!(with.detections, without.detections);
        assert_eq!(with.mask, without.mask);
        assert_eq!((without.identities.len(), without.tracks.len(), without.times.track_end), (0, 0, 0));
        assert!(with.times.track_end >= with.times.decode_end);
        // The frame was seen twice, so everything has an identity, and no other frame's.
        let mut identities = with.identities.clone();
        identities.sort_unstable();
        assert_eq!(identities, with.tracks.iter().filter(|t| t.missed == 0).map(|t| t.id).collect::<Vec<_>>());
        assert!(identities[0] > last_identity);
        last_identity = identities[identities.len() - 1];
    }
}

#[test]
fn a_pipeline_that_takes_over_keeps_the_identities() {
    let options = PipelineOptions { tracking: Some(Default::default()), ..PipelineOptions::default() };
    let mut old = Pipeline::new(&Student::embedded(), options.clone()).unwrap();
    let mut new = Pipeline::new(&Student::embedded(), options).unwrap();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/frames");
    let picture = image::open(folder.join("street-20.jpg")).unwrap().to_rgb8();
    let (width, height) = picture.dimensions();
    let view = ImageView::new("rgb8", width, height, 3 * width, picture.as_raw()).unwrap();
    old.process_from(0, &view, 0).unwrap();
    let before = old.process_from(0, &view, 30_000_000).unwrap().identities.clone();
    new.exchange_tracks(&mut old);
    assert_eq!(new.process_from(0, &view, 60_000_000).unwrap().identities, before);
}

#[test]
fn cameras_that_share_a_pipeline_are_tracked_apart() {
    let options = PipelineOptions { tracking: Some(Default::default()), ..PipelineOptions::default() };
    let mut pipeline = Pipeline::new(&Student::embedded(), options).unwrap();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/frames");
    let picture = image::open(folder.join("street-20.jpg")).unwrap().to_rgb8();
    let (width, height) = picture.dimensions();
    let view = ImageView::new("rgb8", width, height, 3 * width, picture.as_raw()).unwrap();
    pipeline.process_from(0, &view, 0).unwrap();
    assert!(pipeline.process_from(1, &view, 30_000_000).unwrap().tracks.is_empty());
    assert!(!pipeline.process_from(0, &view, 30_000_000).unwrap().tracks.is_empty());
}
