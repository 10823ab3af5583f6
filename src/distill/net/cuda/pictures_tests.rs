//! Inputs rendered on the emulated device, beside the CPU.

use std::sync::Arc;
use std::time::Duration;

use peregrine_engine::cuda::driver::{DeviceMemory, MemoryKind};
use peregrine_engine::cuda::launch::{dependencies, span};
use peregrine_engine::cuda::recording::Recording;
use peregrine_engine::cuda::{Driver, Wait};
use peregrine_engine::{Activation, Conv, Graph, Padding, Shape};
use peregrine_reference::cuda::failing::{Failing, Faults};
use peregrine_reference::cuda::Emulated;

use super::image_store::ImageBytes;
use super::kernels::Precision;
use super::pictures::Pictures;
use crate::net::{Mode, NetParams, TrainNet};
use crate::picture::tests::{image, input, view};
use crate::picture::{Colour, Picture, SourceImage, ViewTransform};

fn emulated() -> Option<Arc<dyn Driver>> {
    Emulated::of(&Precision::Single.modules(), false, false)
}

/// The input of a batch as the device renders it.
struct Device {
    pictures: Pictures,
    planar: DeviceMemory,
    driver: Arc<dyn Driver>,
}

impl Device {
    /// For batches of `batch` pictures of images that take `need`, in so much `room`.
    fn new(driver: &Arc<dyn Driver>, batch: usize, need: ImageBytes, room: usize) -> anyhow::Result<Self> {
        let planar = DeviceMemory::new(driver, MemoryKind::Device, 4 * batch * 3 * input().width * input().height)?;
        let pictures = Pictures::new(driver, &input(), batch, need, room)?;
        Ok(Self { pictures, planar, driver: Arc::clone(driver) })
    }

    fn render(&mut self, pictures: &[Picture]) -> Vec<f32> {
        self.pictures.show(pictures).unwrap();
        let nodes = self.pictures.nodes(&span(self.planar.device(), self.planar.len()), Precision::Single);
        let mut graph = self.driver.instantiate(&nodes, &dependencies(&nodes), Wait::Block, 0).unwrap();
        graph.launch().unwrap();
        graph.wait(Duration::MAX).unwrap();
        let mut bytes = vec![0; self.planar.len()];
        self.driver.download(self.planar.device(), &mut bytes).unwrap();
        bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

/// As the CPU renders it.
fn rendered(pictures: &[Picture]) -> Vec<f32> {
    let len = 3 * input().width * input().height;
    let mut tensor = vec![f32::NAN; pictures.len() * len];
    pictures.iter().zip(tensor.chunks_mut(len)).for_each(|(picture, tensor)| picture.render(&input(), tensor));
    tensor
}

fn assert_near(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-5, "{what}, value {i}: {a} instead of {b}");
    }
}

fn need<'a>(images: impl IntoIterator<Item = &'a SourceImage>, shown: usize) -> ImageBytes {
    ImageBytes::new(images.into_iter().map(area), shown)
}

fn area(image: &SourceImage) -> usize {
    image.size.0 as usize * image.size.1 as usize
}

/// Smaller and larger than the input, wide and high, of one pixel, one row and one column.
const SIZES: [(u32, u32); 8] = [(24, 16), (70, 53), (300, 9), (7, 5), (1, 1), (1, 40), (33, 1), (130, 190)];

fn images() -> Vec<SourceImage> {
    SIZES.iter().enumerate().map(|(i, &(width, height))| image(i, width, height)).collect()
}

#[test]
fn views_of_images_of_any_size_are_the_cpus() {
    let Some(driver) = emulated() else { return };
    let images = images();
    let mut device = Device::new(&driver, images.len(), need(&images, images.len()), 1 << 20).unwrap();
    // Every other one is flipped.
    for seed in 0..8 {
        let views: Vec<_> = images.iter().map(|image| view(image.clone(), seed)).collect();
        assert_near(&device.render(&views), &rendered(&views), &format!("views {seed}"));
    }
    assert_eq!(device.pictures.held(), (images.len(), 0));
    // At its own size, where every sample lies on a border between inside and outside.
    let at = |origin| ViewTransform { origin, step: [1.0; 2] };
    let exact = [[0.0, 0.0], [-3.0, -2.0], [3.0, 2.0], [24.0, 0.0]].map(at);
    let mut device = Device::new(&driver, 4, need(&images, 4), 1 << 20).unwrap();
    let views = exact.map(|view| Picture::view(images[0].clone(), view, Colour::NONE, &input()));
    assert_near(&device.render(&views), &rendered(&views), "its own size");
}

#[test]
fn mosaics_and_blended_pictures_are_the_cpus() {
    let Some(driver) = emulated() else { return };
    let images = images();
    let shown = |i: usize| view(images[i % images.len()].clone(), i as u64);
    let mosaic = |i: usize, at| Picture::mosaic(&input(), at, std::array::from_fn(|of| shown(i + of)));
    let pictures = [
        mosaic(0, (12, 8)),
        mosaic(3, (6, 12)),
        // An empty quarter.
        mosaic(5, (0, 4)),
        shown(1).mixup(shown(6), 0.3),
        mosaic(2, (16, 4)).mixup(shown(1), 0.5),
        mosaic(4, (8, 8)).mixup(mosaic(1, (12, 4)), 0.1),
        shown(2).mixup(mosaic(6, (16, 12)), 0.45),
    ];
    let mut device = Device::new(&driver, pictures.len(), need(&images, images.len()), 1 << 20).unwrap();
    assert_near(&device.render(&pictures), &rendered(&pictures), "pictures");
}

#[test]
fn images_that_come_and_go_give_the_same_pictures() {
    let Some(driver) = emulated() else { return };
    let images: Vec<_> = (0..12).map(|i| image(i, 20 + i as u32, 31)).collect();
    let need = need(&images, 3);
    for room in [need.step, need.step + 5000, need.all - 1, need.all] {
        let mut device = Device::new(&driver, 3, need, room + 3 * 592).unwrap();
        for step in 0..16 {
            let views = [step, step * 5 + 1, step / 2].map(|i| view(images[i % 12].clone(), i as u64));
            assert_near(&device.render(&views), &rendered(&views), &format!("step {step} in {room} bytes"));
        }
        // Those that stay may come without their pixels, as they do once they are not decoded any more.
        let views = [0, 1, 2].map(|i| view(images[i].clone(), i as u64));
        let expected = rendered(&views);
        let staying = Arc::clone(device.pictures.staying());
        let views = views.map(|mut picture| {
            let image = &mut picture.tiles[0].image;
            image.pixels = image.pixels.take().filter(|_| !staying.contains(image.number));
            picture
        });
        assert!(room != need.all || views.iter().all(|picture| picture.tiles[0].image.pixels.is_none()));
        assert_near(&device.render(&views), &expected, "those that stay");
        let (stay, pass) = device.pictures.held();
        assert!((pass > 0) == (room < need.all) && stay + pass <= 12, "{stay} stay, {pass} pass");
    }
}

#[test]
fn too_little_room_for_the_images_of_a_step_is_refused() {
    let Some(driver) = emulated() else { return };
    let images = images();
    let why = Device::new(&driver, 2, need(&images, 2), 10_000).err().unwrap();
    let why = format!("{why:#}");
    assert!(why.contains("the images of one step may take"), "{why}");
}

/// Two convolutions over the input.
fn small() -> (Graph, NetParams) {
    let conv = Conv { kernel: 3, stride: 2, depthwise: false, activation: Activation::Relu, padding: Padding::Same };
    let mut graph = Graph::new(Shape::new(3, input().height, input().width));
    let a = graph.conv("a", 0, 6, conv);
    let out = graph.conv("out", a, 4, conv);
    graph.outputs.push(out);
    let params = NetParams::random(&graph, 1);
    (graph, params)
}

#[test]
fn a_device_that_is_lost_leaves_one_error_and_no_memory() {
    let (graph, params) = small();
    let images = images();
    let run = |faults: &Faults| -> (usize, Result<(), String>) {
        let recording = Arc::new(Recording::of_architecture(90));
        let driver = Failing::driver(recording.clone(), faults);
        let work = || -> anyhow::Result<()> {
            let mut net = TrainNet::new(graph.clone(), params.clone(), 2).on_cuda(&driver, &[], Precision::Single)?;
            let (cuda, _) = net.cuda().expect("is on CUDA");
            cuda.render(&input(), images.iter().map(area), 2)?;
            net.show(&[], &[view(images[0].clone(), 1), view(images[1].clone(), 2)])?;
            net.forward(Mode::Train)
        };
        let result = work().map_err(|e| e.to_string());
        (recording.held().len(), result)
    };
    let faults = Faults::lost_at(usize::MAX);
    assert_eq!(run(&faults), (0, Ok(())));
    for call in 0..faults.calls() {
        let (held, result) = run(&Faults::lost_at(call));
        let why = result.unwrap_err();
        assert!(held == 0 && why.contains("lost in a test"), "call {call}: {held} held; {why}");
    }
}

#[test]
fn a_step_from_pictures_is_that_from_their_pixels() {
    for precision in [Precision::Single, Precision::Half] {
        let Some(driver) = Emulated::of(&precision.modules(), false, false) else { return };
        let (graph, params) = small();
        let net = || TrainNet::new(graph.clone(), params.clone(), 2).on_cuda(&driver, &[], precision).unwrap();
        let (mut of_pixels, mut of_pictures) = (net(), net());
        let images = images();
        let pixels: Vec<usize> = images.iter().map(area).collect();
        assert!(of_pictures.render_on_device(&input(), pixels, 4).is_some());
        for step in 0..3 {
            let pictures =
                [view(images[step].clone(), 3), view(images[1].clone(), 4).mixup(view(images[7].clone(), 5), 0.4)];
            of_pixels.show(&rendered(&pictures), &[]).unwrap();
            of_pictures.show(&[], &pictures).unwrap();
            for net in [&mut of_pixels, &mut of_pictures] {
                net.forward(Mode::Train).unwrap();
            }
            assert_same(&of_pictures, &of_pixels, precision);
        }
        // Evaluation is of pixels still.
        let shown = rendered(&[view(images[0].clone(), 8), view(images[2].clone(), 9)]);
        for net in [&mut of_pixels, &mut of_pictures] {
            net.show(&shown, &[]).unwrap();
            net.forward(Mode::Evaluate).unwrap();
        }
        assert_same(&of_pictures, &of_pixels, precision);
    }
}

fn assert_same(found: &TrainNet, expected: &TrainNet, precision: Precision) {
    let out = found.graph.outputs[0];
    let most = expected.value(out).iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let tolerance = most * if precision == Precision::Half { 2e-2 } else { 1e-4 };
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance;
    assert!(most > 0.0 && found.value(out).iter().zip(expected.value(out)).all(near), "{precision:?}");
}
