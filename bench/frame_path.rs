//! CPU time of pre- and postprocessing: `cargo bench --bench frame_path`.
//!
//! Minimum and median of many runs on one thread, with synthetic images and network outputs of
//! which about one anchor in a hundred passes the threshold.

use peregrine_core::{ClassMask, Encoding, ImageView};
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::Engine;
use peregrine_student::{Architecture, Student};
use peregrine_vision::decode::{non_max_suppression, HeadDecoder, MaskDecoder, NmsIou};
use peregrine_vision::preprocess::{Letterbox, Normalisation};

const RUNS: usize = 400;

fn main() {
    let architecture = Architecture::default_student();
    let input = (architecture.input.width, architecture.input.height);
    println!("input {}x{}, {RUNS} runs each, CPU time of one thread in microseconds\n", input.0, input.1);
    println!("{:<44} {:>8} {:>8}", "", "min", "median");
    let normalisation = Normalisation { mean: architecture.input.mean, std: architecture.input.std };
    let mut tensor = vec![0.0; 3 * input.0 * input.1];
    let student = Student::embedded();
    let mut engine = CpuEngine::new(&student.graph(), &student.weights, 1).expect("the embedded student runs");
    for (width, height) in [(1920, 1080), (1280, 720), (640, 480)] {
        for encoding in Encoding::ALL {
            let step = encoding.row_bytes(width);
            let data: Vec<u8> = (0..encoding.image_bytes((width, height))).map(|i| (i * 7919 % 251) as u8).collect();
            let image = ImageView::with_encoding(encoding, width as u32, height as u32, step as u32, &data)
                .expect("made to fit");
            let letterbox = Letterbox::new((width, height), input);
            let name = format!("letterbox {width}x{height} {}", encoding.ros_name());
            report(&format!("{name}, planar"), || letterbox.apply(&image, &normalisation, &mut tensor));
            let pixels = engine.pixels().expect("a student's engine takes pixels");
            report(&format!("{name}, to the engine"), || letterbox.apply_to(&image, &normalisation, pixels));
        }
    }

    let graph = architecture.graph(input.0, input.1);
    let mask_output = architecture.segmentation_output().expect("the shipped student segments");
    let mut noise = noise();
    let outputs: Vec<Vec<f32>> = graph
        .outputs
        .iter()
        .enumerate()
        .map(|(i, &id)| {
            let is_class = i < mask_output && i % 2 == 0;
            let value = |_| match (is_class, noise()) {
                (true, n) if n < 0.01 => 1.0 + noise(),
                (true, n) => -4.0 - n,
                (false, n) => 4.0 * n,
            };
            (0..graph.layers[id].shape.len()).map(value).collect()
        })
        .collect();
    let mut head = HeadDecoder::new(&architecture, input.0, input.1);
    let mut detections = Vec::with_capacity(head.max_detections());
    report("decode all anchors", || head.decode(|i| &outputs[i], 0.3, &mut detections));
    report("decode and non-maximum suppression", || {
        head.decode(|i| &outputs[i], 0.3, &mut detections);
        non_max_suppression(&mut detections, NmsIou::by_class(0.6), 100);
    });
    let mut mask = ClassMask::default();
    let mut decoder = MaskDecoder::new(&Letterbox::new(input, input));
    report("mask", || decoder.decode(&outputs[mask_output], &mut mask));
}

fn report(name: &str, mut work: impl FnMut()) {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = thread_cpu_microseconds();
            work();
            thread_cpu_microseconds() - start
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{name:<44} {:>8.1} {:>8.1}", times[0], times[RUNS / 2]);
}

/// Pseudo-random numbers from 0 to 1, from a linear congruential generator.
fn noise() -> impl FnMut() -> f32 {
    let mut state = 1u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    }
}

fn thread_cpu_microseconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to `time` only.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "a thread has a CPU time");
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
