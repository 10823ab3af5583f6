//! The CUDA engine on a real GPU. Where there is none, each test says so and passes: `make
//! test-gpu` runs them where there is one, `bench/gpu.sh` takes them to a machine without a
//! toolchain.

use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peregrine_core::{BoundingBox, ImageView};
use peregrine_distill::data::Dataset;
use peregrine_distill::metrics::{average_precision, Evaluated};
use peregrine_engine::cpu::int8::Int8Engine;
use peregrine_engine::cuda::driver::{DeviceMemory, MemoryKind};
use peregrine_engine::cuda::network::Network;
use peregrine_engine::cuda::{CudaEngine, CudaError, Driver, Model, Wait};
use peregrine_pipeline::{DeviceChoice, DeviceInUse, GpuOptions, Pipeline, PipelineOptions};
use peregrine_reference::graphs::any_graph;
use peregrine_reference::{
    outputs, random_input, random_quantization, random_weights, reference_outputs, relative_error, rounded, Refusals,
};
use peregrine_student::Student;
use peregrine_support::{shared, skip};
use proptest::prelude::*;

/// The device, which one test at a time has: some look at how much of its memory is free.
struct Gpu {
    driver: Arc<dyn Driver>,
    _alone: MutexGuard<'static, ()>,
}

impl Deref for Gpu {
    type Target = Arc<dyn Driver>;

    fn deref(&self) -> &Self::Target {
        &self.driver
    }
}

fn gpu() -> Option<Gpu> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    match peregrine_engine::cuda::open(0) {
        Ok(driver) => Some(Gpu { driver, _alone: alone }),
        Err(why) => {
            skip("gpu", &why.to_string());
            None
        }
    }
}

fn photo() -> image::RgbImage {
    let bytes = include_bytes!("../../models/frames/highway-00.jpg");
    image::load_from_memory(bytes).unwrap().resize_exact(640, 480, image::imageops::FilterType::Triangle).to_rgb8()
}

#[test]
fn any_network_in_any_variant_agrees_with_candle() {
    let Some(driver) = gpu() else { return };
    let cases = ProptestConfig { cases: 300, max_shrink_iters: 100, ..ProptestConfig::default() };
    let refusals = Refusals::default();
    proptest!(cases, |(graph in any_graph(), seed: u64, choose in 0usize..100)| {
        let Some(network) = refusals.accepted(Network::new(&graph)) else { return Ok(()) };
        // Rounded beforehand: what is compared is the arithmetic, and sums of few values that
        // cancel show each rounding.
        let (weights, input) = (rounded(&random_weights(&graph, seed)), random_input(&graph, seed));
        let pick = |s: usize| { let v = network.variants(s); v[(choose + 7 * s) % v.len()] };
        let variants = (0..network.layout.plan.steps.len()).map(pick).collect();
        let model = Arc::new(Model::with_variants(&driver, network, &weights, variants).unwrap());
        let found = outputs(&graph, &mut CudaEngine::new(&model, Wait::Block).unwrap(), &input);
        let error = relative_error(&reference_outputs(&graph, &weights, &input), &found);
        prop_assert!(error < 6e-3, "{error}");
    });
    refusals.assert_at_most(0.05);
}

#[test]
fn the_student_keeps_to_half_precision_in_every_output() {
    let Some(driver) = gpu() else { return };
    let student = Student::embedded();
    let graph = student.graph();
    let input = random_input(&graph, 3);
    let model = Arc::new(Model::new(&driver, &graph, &student.weights, None).unwrap());
    for wait in [Wait::Block, Wait::Spin] {
        let found = outputs(&graph, &mut CudaEngine::new(&model, wait).unwrap(), &input);
        for (expected, found) in reference_outputs(&graph, &student.weights, &input).iter().zip(&found) {
            let range = expected.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
            let error: f32 =
                expected.iter().zip(found).map(|(a, b)| (a - b).abs()).sum::<f32>() / expected.len() as f32;
            assert!(error / range <= 2e-3, "a mean error of {} of the range", error / range);
        }
    }
}

#[test]
fn a_quantized_student_is_the_cpus_integers() {
    let Some(driver) = gpu() else { return };
    let student = Student::embedded();
    let graph = student.graph();
    let quantization = random_quantization(&graph, 2, 0.0);
    let input = random_input(&graph, 3);
    let engine = &mut Int8Engine::new(&graph, &student.weights, &quantization, 1).unwrap();
    let expected = outputs(&graph, engine, &input);
    let model = Arc::new(Model::new(&driver, &graph, &student.weights, Some(&quantization)).unwrap());
    let found = outputs(&graph, &mut CudaEngine::new(&model, Wait::Block).unwrap(), &input);
    let halves = |v: f32| half::f16::from_f32(v).to_f32();
    for (expected, found) in expected.iter().zip(&found) {
        assert!(expected.iter().zip(found).all(|(&e, &f)| halves(e) == f));
    }
}

#[test]
fn boxes_are_the_cpus() {
    let Some(driver) = gpu() else { return };
    let student = Student::embedded();
    // compute-sanitizer, which runs this test too, slows kernels down a hundredfold.
    let gpu = GpuOptions { timeout: Duration::from_secs(60), ..GpuOptions::default() };
    let options = PipelineOptions { gpu, ..PipelineOptions::default() };
    let photo = photo();
    let image = ImageView::new("rgb8", 640, 480, 3 * 640, photo.as_raw()).unwrap();
    let expected = Pipeline::new(&student, options.clone()).unwrap().process(&image).unwrap().clone();
    let mut pipeline = Pipeline::on_cuda(&driver, &student, &options, false).unwrap();
    let found = pipeline.process(&image).unwrap();
    assert!(!expected.detections.is_empty());
    for e in &expected.detections {
        let best =
            found.detections.iter().filter(|f| f.class == e.class).map(|f| f.bbox.iou(&e.bbox)).fold(0.0, f32::max);
        assert!(best >= 0.99 || e.score < options.score_threshold + 0.01, "{e:?} has no partner nearer than {best}");
    }
}

/// What both pipelines make of pictures whose objects are known.
#[derive(Default)]
struct Compared {
    cpu: Vec<Evaluated>,
    gpu: Vec<Evaluated>,
}

impl Compared {
    /// `labels` of none are what the CPU finds with a score of 0.3 and more.
    fn add(
        &mut self,
        pipelines: &mut [Pipeline; 2],
        picture: &image::RgbImage,
        labels: Option<Vec<(usize, BoundingBox)>>,
    ) {
        let (width, height) = picture.dimensions();
        let image = ImageView::new("rgb8", width, height, 3 * width, picture.as_raw()).unwrap();
        let [cpu, gpu] = pipelines.each_mut().map(|pipeline| pipeline.process(&image).unwrap().detections.clone());
        let found = || cpu.iter().filter(|d| d.score >= 0.3).map(|d| (d.class, d.bbox)).collect();
        let labels: Vec<_> = labels.unwrap_or_else(found);
        let of = |detections| Evaluated { detections, labels: labels.clone(), ignore: vec![] };
        self.gpu.push(of(gpu));
        self.cpu.push(of(cpu));
    }

    /// The mean AP of either, in percent.
    fn precision(&self) -> [f64; 2] {
        [&self.cpu, &self.gpu].map(|images| {
            let classes = 0..Student::embedded().manifest.architecture.detection_classes().len();
            let each: Vec<_> = classes.filter_map(|class| average_precision(images, class)).map(|p| p.ap).collect();
            100.0 * each.iter().sum::<f64>() / each.len() as f64
        })
    }
}

#[test]
fn average_precision_is_the_cpus_to_a_fifth_of_a_point() {
    let Some(driver) = gpu() else { return };
    let student = Student::embedded();
    let options = PipelineOptions { score_threshold: 0.01, max_detections: 300, ..PipelineOptions::default() };
    let mut pipelines = [
        Pipeline::new(&student, options.clone()).unwrap(),
        Pipeline::on_cuda(&driver, &student, &options, false).unwrap(),
    ];
    let mut compared = Compared::default();
    for bytes in [
        include_bytes!("../../models/frames/highway-00.jpg").as_slice(),
        include_bytes!("../../models/frames/highway-12.jpg"),
        include_bytes!("../../models/frames/street-20.jpg"),
        include_bytes!("../../models/frames/yard-82.jpg"),
    ] {
        compared.add(&mut pipelines, &image::load_from_memory(bytes).unwrap().to_rgb8(), None);
    }
    let [cpu, gpu] = compared.precision();
    assert!((cpu - gpu).abs() <= 0.2, "AP of the shipped frames: {gpu} on the GPU, {cpu} on the CPU");

    let Some(folder) = shared("data/vehicles/val") else { return };
    let dataset = Dataset::open(&folder, Some(Path::new("builtin:vehicles"))).unwrap();
    let mut compared = Compared::default();
    for sample in &dataset.samples {
        let Some(boxes) = &sample.boxes else { continue };
        let labels = boxes.iter().map(|object| (object.class, object.bbox)).collect();
        compared.add(&mut pipelines, &image::open(&sample.image).unwrap().to_rgb8(), Some(labels));
    }
    let [cpu, gpu] = compared.precision();
    assert!((cpu - gpu).abs() <= 0.2, "AP of vehicles/val: {gpu} on the GPU, {cpu} on the CPU");
}

#[test]
fn ten_thousand_frames_take_no_more_memory_than_the_first() {
    let Some(driver) = gpu() else { return };
    let mut pipeline = Pipeline::on_cuda(&driver, &Student::embedded(), &PipelineOptions::default(), false).unwrap();
    let photo = photo();
    let image = ImageView::new("rgb8", 640, 480, 3 * 640, photo.as_raw()).unwrap();
    let first = pipeline.process(&image).unwrap().detections.clone();
    let free = driver.memory().unwrap().0;
    for frame in 0..10_000 {
        assert_eq!(pipeline.process(&image).unwrap().detections, first, "frame {frame}");
    }
    // Other programs may use the device as well: less than a megabyte is not ours.
    assert!(free.saturating_sub(driver.memory().unwrap().0) < 1 << 20);
}

#[test]
fn four_cameras_side_by_side_have_the_results_of_one_at_a_time() {
    let Some(driver) = gpu() else { return };
    let mut pipeline = Pipeline::on_cuda(&driver, &Student::embedded(), &PipelineOptions::default(), false).unwrap();
    let photo = photo();
    let turned = [photo.clone(), image::imageops::rotate180(&photo), image::imageops::flip_horizontal(&photo), photo];
    let image = |camera: usize| ImageView::new("rgb8", 640, 480, 3 * 640, turned[camera].as_raw()).unwrap();
    let alone: [_; 4] = std::array::from_fn(|camera| pipeline.process_from(camera, &image(camera), 0).unwrap().clone());
    for round in 0..1000 {
        let begun: [_; 4] = std::array::from_fn(|camera| pipeline.begin(camera, &image(camera)));
        assert!(begun.iter().all(Option::is_some));
        for camera in 0..4 {
            let found = pipeline.finish(camera, &image(camera), begun[camera], 0).unwrap();
            assert_eq!(found.detections, alone[camera].detections, "round {round}, camera {camera}");
            assert_eq!(found.mask.classes, alone[camera].mask.classes, "round {round}, camera {camera}");
        }
    }
}

#[test]
fn too_large_an_allocation_is_refused_and_the_device_goes_on() {
    let Some(driver) = gpu() else { return };
    let error = DeviceMemory::new(&driver, MemoryKind::Device, 1 << 46).err().expect("64 TiB");
    assert!(matches!(error, CudaError::OutOfMemory { .. }), "{error}");
    let memory = DeviceMemory::holding(&driver, &[1, 2, 3]).unwrap();
    let mut back = [0; 3];
    driver.download(memory.device(), &mut back).unwrap();
    assert_eq!(back, [1, 2, 3]);
}

#[test]
fn without_a_gpu_auto_is_the_cpu_and_cuda_is_refused() {
    let student = Student::embedded();
    let on = |choice| Pipeline::on(&student, PipelineOptions::default(), choice);
    match peregrine_engine::cuda::open(0) {
        Ok(driver) => {
            let name = driver.device().name.clone();
            assert_eq!(on(DeviceChoice::Auto).unwrap().device(), DeviceInUse::Cuda(name));
        }
        Err(why) => {
            let expected = DeviceInUse::Cpu { instead_of_cuda: Some(why.to_string()) };
            assert_eq!(on(DeviceChoice::Auto).unwrap().device(), expected);
            assert_eq!(on(DeviceChoice::Cuda(0)).err().unwrap().to_string(), why.to_string());
        }
    }
    assert_eq!(on(DeviceChoice::Cpu).unwrap().device(), DeviceInUse::Cpu { instead_of_cuda: None });
}
