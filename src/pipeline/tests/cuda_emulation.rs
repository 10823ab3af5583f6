//! The CUDA engine on an emulated device: plans, packed weights and kernels together agree with
//! candle and the CPU.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::encoding::{Levels, YuvRange};
use peregrine_core::{ClassMask, Detection, Encoding, ImageView};
use peregrine_engine::cuda::network::{Network, Variant};
use peregrine_engine::cuda::{CudaEngine, Driver, Model, Wait};
use peregrine_engine::{Activation, Conv, Graph, Op, Padding, Weights, Window};
use peregrine_pipeline::cuda::{Decoding, FrameGraphs, FrameOptions};
use peregrine_pipeline::{FrameResult, Pipeline, PipelineOptions};
use peregrine_reference::cuda::Emulated;
use peregrine_reference::graphs::any_graph;
use peregrine_reference::{outputs, random_input, random_weights, reference_outputs, relative_error, rounded};
use peregrine_student::architecture::{Architecture, Input};
use peregrine_student::head::{BoxForm, HeadForm};
use peregrine_student::imported::{ImportedHead, ImportedLayer, ImportedLevel, ImportedNetwork};
use peregrine_student::Student;
use peregrine_vision::decode::{non_max_suppression, HeadDecoder, NmsIou};
use peregrine_vision::preprocess::Letterbox;
use proptest::prelude::*;

/// Half precision keeps 11 bits; a network of a few layers keeps two or three fewer, relative to
/// its largest value.
const TOLERANCE: f32 = 6e-3;

/// Runs `graph` with the variants that `choose` picks, by its number, among those of each step.
fn run(driver: &Arc<dyn Driver>, graph: &Graph, weights: &Weights, input: &[f32], choose: usize) -> Vec<Vec<f32>> {
    let network = Network::new(graph).unwrap();
    let pick = |s: usize| -> Variant {
        let variants = network.variants(s);
        variants[(choose + 7 * s) % variants.len()]
    };
    let variants = (0..network.layout.plan.steps.len()).map(pick).collect();
    let model = Arc::new(Model::with_variants(driver, network, weights, variants).unwrap());
    outputs(graph, &mut CudaEngine::new(&model, Wait::Block).unwrap(), input)
}

#[test]
fn any_network_agrees_with_candle_on_either_path() {
    for scalar in [false, true] {
        let Some(driver) = Emulated::driver(scalar, false) else { return };
        let cases = ProptestConfig { cases: 100, max_shrink_iters: 100, ..ProptestConfig::default() };
        proptest!(cases, |(graph in any_graph(), seed: u64, choose in 0usize..100)| {
            let weights = rounded(&random_weights(&graph, seed));
            let input = random_input(&graph, seed);
            let expected = reference_outputs(&graph, &weights, &input);
            let found = run(&driver, &graph, &weights, &input, choose);
            let error = relative_error(&expected, &found);
            // Seldom a network turns small differences into large ones, in candle's single precision too.
            let bound = || TOLERANCE.max(4.0 * sensitivity(&graph, &weights, &input, &expected));
            prop_assert!(error < TOLERANCE || error < bound(), "{error}, up to {}", bound());
        });
    }
}

/// The most by which the outputs change when every weight and input changes by the rounding of half
/// precision, up or down at random.
fn sensitivity(graph: &Graph, weights: &Weights, input: &[f32], expected: &[Vec<f32>]) -> f32 {
    let changed = |seed: u64| {
        let mut signs = random_input(graph, seed).into_iter().map(f32::signum).cycle();
        let mut change = |value: &mut f32| *value *= 1.0 + signs.next().unwrap_or_default() / 2048.0;
        let (mut weights, mut input) = (weights.clone(), input.to_vec());
        weights.0.values_mut().flat_map(|layer| &mut layer.weight).for_each(&mut change);
        input.iter_mut().for_each(&mut change);
        relative_error(expected, &reference_outputs(graph, &weights, &input))
    };
    (0..8).map(changed).fold(0.0, f32::max)
}

#[test]
fn the_student_agrees_with_candle() {
    let graph = Architecture::default_student().graph(96, 64);
    let weights = rounded(&random_weights(&graph, 7));
    let input = random_input(&graph, 8);
    let expected = reference_outputs(&graph, &weights, &input);
    for (scalar, integrated) in [(false, false), (true, true)] {
        let Some(driver) = Emulated::driver(scalar, integrated) else { return };
        let error = relative_error(&expected, &run(&driver, &graph, &weights, &input, 3));
        assert!(error < 2.0 * TOLERANCE, "{error}");
    }
}

/// A picture without pattern or symmetry, of bytes that any encoding may have.
fn picture(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    (0..bytes)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Smooth in part, so that samples a little beside one another differ a little.
            ((state >> 24) / 4) as u8 + (i / 97 % 192) as u8
        })
        .collect()
}

/// A student as untrained as they come, whose scores lie around one half.
fn untrained() -> Student {
    let mut student = Student::embedded();
    student.weights = random_weights(&student.graph(), 11);
    student
}

/// The CPU's result of the same frame.
fn on_cpu(student: &Student, options: &PipelineOptions, image: &ImageView) -> FrameResult {
    Pipeline::new(student, options.clone()).unwrap().process(image).unwrap().clone()
}

/// The part of `expected` that has a partner in `found`: of the same class, with a score and a box
/// as near as half precision allows.
fn matched(expected: &[Detection], found: &[Detection]) -> f64 {
    let partner = |e: &&Detection| {
        found.iter().any(|f| f.class == e.class && (f.score - e.score).abs() < 0.02 && f.bbox.iou(&e.bbox) > 0.9)
    };
    expected.iter().filter(partner).count() as f64 / expected.len().max(1) as f64
}

#[test]
fn a_frame_agrees_with_the_cpu_in_every_encoding() {
    let Some(driver) = Emulated::driver(false, false) else { return };
    let student = Student::embedded();
    let options = PipelineOptions { score_threshold: 0.02, input_size: Some((160, 128)), ..PipelineOptions::default() };
    let mut pipeline = Pipeline::on_cuda(&driver, &student, &options, false).unwrap();
    let photo = image::open(peregrine_support::root().join("models/frames/highway-00.jpg")).unwrap();
    let levels = Levels { yuv: YuvRange::Full, white: NonZeroU16::new(40_000).unwrap() };
    let others = Encoding::ALL.map(|encoding| encoding.with(false, levels));
    for (i, encoding) in Encoding::ALL.into_iter().chain(others).enumerate() {
        // Odd sizes, more and less than the input's, in both aspects; rows with padding.
        let (width, height) = [(321, 180), (97, 211), (640, 360), (160, 128), (33, 45), (705, 403), (480, 270)][i % 7];
        let shared = matches!(encoding, Encoding::Nv12(_) | Encoding::Nv21(_) | Encoding::I420(_));
        let (width, height) = if shared { (width & !1, height & !1) } else { (width, height) };
        let rgb = photo.resize_exact(width, height, image::imageops::FilterType::Triangle).to_rgb8();
        let (data, step) = encode(encoding, &rgb, if shared { 6 } else { 5 });
        let image = ImageView::with_encoding(encoding, width, height, step, &data).unwrap();
        let expected = on_cpu(&student, &options, &image);
        let found = pipeline.process(&image).unwrap();
        let (there, back) =
            (matched(&expected.detections, &found.detections), matched(&found.detections, &expected.detections));
        assert!(there > 0.9 && back > 0.9, "{encoding:?}: {there} of the CPU's detections, {back} the other way");
        let same = expected.mask.classes.iter().zip(&found.mask.classes).filter(|(a, b)| a == b).count();
        let same = same as f64 / expected.mask.classes.len() as f64;
        assert_eq!((found.mask.width, found.mask.height), (expected.mask.width, expected.mask.height));
        assert!(same > 0.98, "{encoding:?}: {same} of the mask");
    }
}

#[test]
fn outputs_that_the_host_decodes_give_the_devices_boxes() {
    let student = Student::embedded();
    let architecture = &student.manifest.architecture;
    let graph = architecture.graph(160, 128);
    let photo = image::open(peregrine_support::root().join("models/frames/highway-00.jpg")).unwrap();
    let rgb = photo.resize_exact(321, 180, image::imageops::FilterType::Triangle).to_rgb8();
    let image = ImageView::new("rgb8", 321, 180, 3 * 321, &rgb).unwrap();
    let (threshold, iou) = (0.1, NmsIou { same_class: 0.6, across_classes: 0.7 });
    for integrated in [false, true] {
        let Some(driver) = Emulated::driver(false, integrated) else { return };
        let network = Network::new(&graph).unwrap();
        let variants = network.guess(4);
        let model = Arc::new(Model::with_variants(&driver, network, &student.weights, variants).unwrap());
        let frame = |decoding| {
            let options = FrameOptions {
                max_detections: 100,
                decoding,
                segmentation: true,
                wait: Wait::Block,
                priority: 0,
                timeout: Duration::MAX,
            };
            let mut path = FrameGraphs::new(&model, architecture, options).unwrap();
            let (mut detections, mut mask) = (vec![], ClassMask::default());
            path.process(&image, (threshold, iou), &mut detections, &mut mask).unwrap();
            (path, detections, mask)
        };
        let (_, expected, expected_mask) = frame(Decoding::OnDevice);
        let (path, mut found, mask) = frame(Decoding::OnHost);
        assert!(found.is_empty() && !expected.is_empty());
        HeadDecoder::new(architecture, 160, 128).decode(|index| path.output(index), threshold, &mut found);
        non_max_suppression(&mut found, iou, 100);
        let letterbox = Letterbox::new((321, 180), (160, 128));
        found.iter_mut().for_each(|f| f.bbox = letterbox.to_source(f.bbox));
        assert_eq!(mask, expected_mask);
        assert_eq!(found.len(), expected.len());
        for (e, f) in expected.iter().zip(&found) {
            assert!(
                e.class == f.class && (e.score - f.score).abs() < 1e-5 && e.bbox.iou(&f.bbox) > 0.999,
                "{e:?} {f:?}"
            );
        }
    }
}

/// A detector as they are imported: even padding, SiLU, a shuffle, and anchors with objectness.
fn imported() -> Student {
    let conv = |kernel, stride, activation| {
        Op::Conv(Conv { kernel, stride, depthwise: false, activation, padding: Padding::Even })
    };
    let layer = |name: &str, op, input: &str, channels| ImportedLayer {
        name: name.into(),
        op,
        inputs: vec![input.into()],
        channels,
    };
    let layers = vec![
        layer("stem", conv(6, 2, Activation::Silu), "input", 12),
        layer("down", conv(3, 2, Activation::Silu), "stem", 16),
        layer("pool", Op::MaxPool(Window::even(5, 1)), "down", 16),
        layer("shuffle", Op::Shuffle { groups: 2 }, "pool", 16),
        layer("map", conv(3, 2, Activation::Silu), "shuffle", 24),
        layer("class", conv(1, 1, Activation::Identity), "map", 6),
        layer("boxes", conv(1, 1, Activation::Identity), "map", 8),
        layer("objectness", conv(1, 1, Activation::Identity), "map", 2),
    ];
    let level = ImportedLevel {
        stride: 8,
        class: "class".into(),
        boxes: "boxes".into(),
        objectness: Some("objectness".into()),
    };
    let boxes = BoxForm::Anchors { anchors: vec![vec![[20.0, 30.0], [50.0, 40.0]]] };
    let classes = ["cone", "forklift", "person"].map(String::from).to_vec();
    let head = ImportedHead { classes, form: HeadForm { boxes, peaks: false }, levels: vec![level] };
    let mut student = Student::embedded();
    let input = Input { width: 96, height: 64, ..student.manifest.architecture.input.clone() };
    let network = ImportedNetwork { layers, head, mask_features: None, scene_feature: None };
    student.manifest.architecture = Architecture::imported(input, network);
    student.manifest.weights.sha256 = "of random weights".into();
    student.weights = random_weights(&student.graph(), 11);
    student
}

#[test]
fn an_imported_detectors_boxes_are_the_cpus() {
    let Some(driver) = Emulated::driver(false, false) else { return };
    let student = imported();
    let options = PipelineOptions { score_threshold: 0.2, ..PipelineOptions::default() };
    let mut pipeline = Pipeline::on_cuda(&driver, &student, &options, false).unwrap();
    for (width, height) in [(96, 64), (131, 70)] {
        let data = picture(3 * width * height, 3);
        let image = ImageView::new("rgb8", width as u32, height as u32, 3 * width as u32, &data).unwrap();
        let expected = on_cpu(&student, &options, &image).detections;
        let found = &pipeline.process(&image).unwrap().detections;
        assert!(expected.len() > 5, "{} detections test too little", expected.len());
        let (there, back) = (matched(&expected, found), matched(found, &expected));
        assert!(there > 0.9 && back > 0.9, "{there} and {back} of {} and {}", expected.len(), found.len());
    }
}

/// `rgb` in `encoding`, with `padding` bytes after each row, and the step.
fn encode(encoding: Encoding, rgb: &image::RgbImage, padding: usize) -> (Vec<u8>, u32) {
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    let step = encoding.row_bytes(width) + padding;
    let mut data = vec![0xa5; 3 * step * height];
    let planes = encoding.planes((width, height));
    // Those of chroma follow in proportion.
    let steps = planes.map(|plane| plane.row_bytes * step / planes[0].row_bytes);
    let starts = [0, steps[0] * height, steps[0] * height + steps[1] * planes[1].rows];
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        let [r, g, b] = rgb.get_pixel(x as u32, y as u32).0;
        let grey = ((77 * u32::from(r) + 150 * u32::from(g) + 29 * u32::from(b)) / 256) as u8;
        let (luma, u, v) = (16 + (u32::from(grey) * 219 / 255) as u8, 110 + r / 16, 120 + b / 16);
        let mut put = |plane: usize, row: usize, values: &[(usize, u8)]| {
            values.iter().for_each(|(i, value)| data[starts[plane] + row * steps[plane] + i] = *value);
        };
        let mut pixel = |values: &[u8]| {
            for (i, &value) in values.iter().enumerate() {
                // Of 16 bits, little-endian, the upper 8.
                let number = values.len() * x + i;
                put(0, y, &[(if encoding.channel16().is_some() { 2 * number + 1 } else { number }, value)]);
            }
        };
        let (pair, second) = (x / 2 * 4, x % 2 * 2);
        match encoding {
            Encoding::Rgb8 | Encoding::Rgb16(_) => pixel(&[r, g, b]),
            Encoding::Bgr8 | Encoding::Bgr16(_) => pixel(&[b, g, r]),
            Encoding::Rgba8 | Encoding::Rgba16(_) => pixel(&[r, g, b, 7]),
            Encoding::Bgra8 | Encoding::Bgra16(_) => pixel(&[b, g, r, 7]),
            Encoding::Mono8 | Encoding::Mono16(_) => pixel(&[grey]),
            Encoding::Bayer8(mosaic) | Encoding::Bayer16(mosaic, _) => {
                let (row, column) = mosaic.red_at();
                pixel(&[match ((y + row) % 2, (x + column) % 2) {
                    (0, 0) => r,
                    (1, 1) => b,
                    _ => g,
                }]);
            }
            Encoding::Uyvy(_) => put(0, y, &[(pair, u), (pair + 2, v), (pair + 1 + second, luma)]),
            Encoding::Yuyv(_) => put(0, y, &[(pair + 1, u), (pair + 3, v), (pair + second, luma)]),
            _ => put(0, y, &[(x, luma)]),
        }
        match encoding {
            Encoding::Nv12(_) => put(1, y / 2, &[(x & !1, u), (x | 1, v)]),
            Encoding::Nv21(_) => put(1, y / 2, &[(x & !1, v), (x | 1, u)]),
            Encoding::Nv24(_) => put(1, y, &[(2 * x, u), (2 * x + 1, v)]),
            Encoding::I420(_) => {
                put(1, y / 2, &[(x / 2, u)]);
                put(2, y / 2, &[(x / 2, v)]);
            }
            _ => {}
        }
    }
    (data, step as u32)
}

#[test]
fn surplus_candidates_are_cut_to_the_best_as_on_the_cpu() {
    let Some(driver) = Emulated::driver(false, true) else { return };
    let student = untrained();
    let options = PipelineOptions {
        score_threshold: 0.05,
        nms: NmsIou::by_class(0.9),
        max_detections: 1000,
        input_size: Some((160, 128)),
        ..PipelineOptions::default()
    };
    let data = picture(3 * 160 * 128, 5);
    let image = ImageView::new("rgb8", 160, 128, 480, &data).unwrap();
    let expected = on_cpu(&student, &options, &image).detections;
    let mut pipeline = Pipeline::on_cuda(&driver, &student, &options, false).unwrap();
    let found = pipeline.process(&image).unwrap().detections.clone();
    assert!(expected.len() > 100, "{} detections test too little", expected.len());
    assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
    let (there, back) = (matched(&expected, &found), matched(&found, &expected));
    assert!(there > 0.9 && back > 0.9, "{there} and {back} of {} and {}", expected.len(), found.len());
}

#[test]
fn thresholds_apply_per_frame_and_frames_leave_no_state() {
    let Some(driver) = Emulated::driver(false, false) else { return };
    let student = untrained();
    let options = PipelineOptions { input_size: Some((64, 64)), ..PipelineOptions::default() };
    let mut pipeline = Pipeline::on_cuda(&driver, &student, &options, false).unwrap();
    let (a, b) = (picture(3 * 64 * 64, 1), picture(3 * 50 * 70, 2));
    let (a, b) = (ImageView::new("rgb8", 64, 64, 192, &a).unwrap(), ImageView::new("bgr8", 50, 70, 150, &b).unwrap());
    pipeline.set_thresholds(0.05, NmsIou::by_class(0.6));
    let first = pipeline.process(&a).unwrap().detections.clone();
    pipeline.set_thresholds(0.99, NmsIou::by_class(0.6));
    let strict = pipeline.process(&b).unwrap().detections.len();
    pipeline.set_thresholds(0.05, NmsIou::by_class(0.6));
    assert_eq!(pipeline.process(&a).unwrap().detections, first);
    assert!(strict < first.len(), "{strict} above 0.99, {} above 0.05", first.len());
}

#[test]
fn values_beyond_the_range_of_half_precision_are_counted_and_lose_no_boxes() {
    let Some(driver) = Emulated::driver(false, false) else { return };
    let options = PipelineOptions { score_threshold: 0.05, input_size: Some((64, 64)), ..PipelineOptions::default() };
    let data = picture(3 * 64 * 64, 1);
    let image = ImageView::new("rgb8", 64, 64, 192, &data).unwrap();
    let frames = |student: &Student| {
        let mut pipeline = Pipeline::on_cuda(&driver, student, &options, false).unwrap();
        assert_eq!(pipeline.saturated_values(), 0);
        pipeline.process(&image).unwrap();
        // A frame tells what those before it have counted.
        let detections = pipeline.process(&image).unwrap().detections.clone();
        let first = pipeline.saturated_values();
        pipeline.process(&image).unwrap();
        assert_eq!(pipeline.saturated_values(), 2 * first);
        (detections, first)
    };
    let sound = untrained();
    let (detections, saturated) = frames(&sound);
    assert!(saturated == 0 && !detections.is_empty(), "{saturated}, {} boxes", detections.len());

    let mut loud = sound;
    let first = loud.graph().convs().next().unwrap().0.name.clone();
    for value in &mut loud.weights.0.get_mut(&first).unwrap().weight {
        *value *= 1e7;
    }
    loud.manifest.weights.sha256 = "of loud weights".into();
    let (detections, saturated) = frames(&loud);
    assert!(saturated > 1000 && !detections.is_empty(), "{saturated}, {} boxes", detections.len());
    let corners = |d: &Detection| [d.bbox.x_min, d.bbox.y_min, d.bbox.x_max, d.bbox.y_max];
    assert!(detections.iter().all(|d| d.score <= 1.0 && corners(d).iter().all(|c| c.is_finite())));
}
