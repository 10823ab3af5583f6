//! The convolution of bytes with sign, which no plan launches yet, on the emulated device.

#![cfg(feature = "cuda")]

mod cuda_support;

use std::sync::Arc;

use cuda_support::Emulated;
use peregrine::engine::cuda::arguments::{Convolution, Plain, Quantize};
use peregrine::engine::cuda::driver::{Driver, Memory, Place};
use peregrine::engine::cuda::kernels::{Element, Tile, THREADS};
use peregrine::engine::cuda::launch::{Launch, Node, Work};
use peregrine::engine::cuda::{pack, Wait};
use peregrine::engine::graph::padding;
use proptest::prelude::*;

/// A convolution of random bytes: `[out, in, kernel]`, `[height, width, stride]`, and whether the output is bytes.
#[derive(Debug, Clone)]
struct Case {
    shape: [usize; 3],
    map: [usize; 3],
    bytes_out: bool,
    seed: u32,
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (1usize..70, 1usize..150, prop::sample::select(vec![1usize, 3]));
    let map = (1usize..14, 1usize..14, 1usize..3);
    (shape, map, any::<bool>(), any::<u32>()).prop_map(|(s, m, bytes_out, seed)| Case {
        shape: [s.0, s.1, s.2],
        map: [m.0, m.1, m.2],
        bytes_out,
        seed,
    })
}

fn bytes(count: usize, seed: u32) -> Vec<i8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as i8
    };
    (0..count).map(|_| next().max(-127)).collect()
}

fn run(driver: &Arc<dyn Driver>, launch: Launch) {
    let node = Node { name: launch.kernel.clone(), work: Work::Kernel(launch), reads: vec![], writes: vec![] };
    let mut graph = driver.instantiate(&[node], &[vec![]], Wait::Block, 0).unwrap();
    graph.launch().unwrap();
    graph.wait().unwrap();
}

fn hold<T: Copy>(driver: &Arc<dyn Driver>, values: &[T], to_bytes: impl Fn(T) -> Vec<u8>) -> Memory {
    Memory::holding(driver, &values.iter().flat_map(|&v| to_bytes(v)).collect::<Vec<_>>()).unwrap()
}

/// Values of the output `[pixel][channel]`, from the device and by plain loops.
fn both(driver: &Arc<dyn Driver>, case: &Case, tile: Tile) -> (Vec<f32>, Vec<f32>) {
    let ([out, channels, kernel], [height, width, stride]) = (case.shape, case.map);
    let (out_height, out_width) = (height.div_ceil(stride), width.div_ceil(stride));
    let (top, left) = (padding(kernel, stride, height).0, padding(kernel, stride, width).0);
    let pitch = pack::padded_channels(channels, Element::S8);
    let input = bytes(height * width * channels, case.seed);
    let weights = bytes(out * channels * kernel * kernel, case.seed ^ 0x5555);
    let step = 0.03;

    let mut padded = vec![0i8; height * width * pitch];
    for (pixel, values) in input.chunks_exact(channels).enumerate() {
        padded[pixel * pitch..][..channels].copy_from_slice(values);
    }
    let shape = [out, channels, kernel, kernel];
    let length = pack::tiles(out, tile) * tile.warp_channels();
    let scale: Vec<f32> = (0..out).map(|c| 1e-5 * (1 + c % 7) as f32).collect();
    let bias: Vec<f32> = (0..out).map(|c| 0.25 * (c % 5) as f32 - 0.5).collect();
    let float = |v: f32| v.to_le_bytes().to_vec();
    let byte = |v: i8| vec![v as u8];
    let device_input = hold(driver, &padded, byte);
    let device_weights = hold(driver, &pack::dense(&weights, shape, Element::S8, tile), byte);
    let device_scale = hold(driver, &pack::padded(&scale, length), float);
    let device_bias = hold(driver, &pack::padded(&bias, length), float);
    let written = out.next_multiple_of(8);
    let pixels = out_height * out_width;
    let value_bytes = if case.bytes_out { 1 } else { 2 };
    let output = Memory::new(driver, Place::Device, pixels * written * value_bytes).unwrap();
    let argument = Convolution {
        input: device_input.device(),
        weights: device_weights.device(),
        scale: device_scale.device(),
        bias: device_bias.device(),
        output: output.device(),
        in_height: height as i32,
        in_width: width as i32,
        in_pitch: pitch as i32,
        out_width: out_width as i32,
        pixels: pixels as i32,
        out_pitch: written as i32,
        channels_in: pitch as i32,
        channels_out: written as i32,
        chunks: pitch.div_ceil(Element::S8.chunk()) as i32,
        kernel: kernel as i32,
        stride: stride as i32,
        pad_top: top as i32,
        pad_left: left as i32,
        activation: 1,
        out_step: if case.bytes_out { step } else { 0.0 },
        ..Convolution::default()
    };
    let grid = [pixels.div_ceil(tile.pixels()) as u32, out.div_ceil(tile.channels()) as u32, 1];
    let kernel_name = tile.kernel(Element::S8, kernel == 1 && stride == 1);
    run(driver, Launch { kernel: kernel_name, grid, threads: tile.threads(), argument: argument.bytes() });
    let mut raw = vec![0; output.len()];
    driver.download(output.device(), &mut raw).unwrap();
    let value = |at: usize| match case.bytes_out {
        true => step * f32::from(raw[at] as i8),
        false => half::f16::from_le_bytes([raw[2 * at], raw[2 * at + 1]]).to_f32(),
    };
    let found = (0..pixels).flat_map(|p| (0..out).map(move |c| p * written + c)).map(value).collect();

    let mut expected = vec![];
    for (pixel, c) in (0..pixels).flat_map(|p| (0..out).map(move |c| (p, c))) {
        let (y, x) = (pixel / out_width * stride, pixel % out_width * stride);
        let mut sum = 0i32;
        for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
            let (sy, sx) = ((y + ky).wrapping_sub(top), (x + kx).wrapping_sub(left));
            if sy < height && sx < width {
                let at = (sy * width + sx) * channels;
                let of = |i: usize| weights[((c * channels + i) * kernel + ky) * kernel + kx];
                sum += (0..channels).map(|i| i32::from(input[at + i]) * i32::from(of(i))).sum::<i32>();
            }
        }
        expected.push((sum as f32 * scale[c] + bias[c]).clamp(0.0, 6.0));
    }
    (found, expected)
}

#[test]
fn products_of_bytes_are_exact_up_to_the_rounding_of_the_output() {
    for scalar in [false, true] {
        let Some(driver) = Emulated::driver(scalar, false) else { return };
        let cases = ProptestConfig { cases: 60, ..ProptestConfig::default() };
        proptest!(cases, |(case in case(), choose in 0usize..6)| {
            let choices = Tile::choices(Element::S8, case.shape[2] == 1 && case.map[2] == 1);
            let (found, expected) = both(&driver, &case, choices[choose % choices.len()]);
            for (f, e) in found.iter().zip(&expected) {
                // Half a step of a byte, or half a unit in the last of 11 bits; a byte ends at 127 steps.
                let (e, tolerance) = if case.bytes_out { (e.min(127.0 * 0.03), 0.0151) } else { (*e, e * 5e-4 + 1e-6) };
                prop_assert!((f - e).abs() <= tolerance, "{f} for {e}");
            }
        });
    }
}

#[test]
fn halves_become_the_nearest_bytes_and_saturate() {
    let Some(driver) = Emulated::driver(false, false) else { return };
    let values = [0.0f32, 0.26, -0.24, 0.25, 1000.0, -1000.0, 63.5, -63.6];
    let half = |v: f32| half::f16::from_f32(v).to_le_bytes().to_vec();
    let input = hold(&driver, &values, half);
    let output = Memory::new(&driver, Place::Device, 16).unwrap();
    let argument = Quantize {
        input: input.device(),
        output: output.device(),
        pixels: 1,
        in_pitch: 8,
        out_pitch: 16,
        channels: 8,
        written: 16,
        step: 0.5,
    };
    run(&driver, Launch::flat("quantize", 16, THREADS, &argument));
    let mut found = [1; 16];
    driver.download(output.device(), &mut found).unwrap();
    let found = found.map(|b| b as i8);
    assert_eq!(found, [0, 1, 0, 0, 127, -127, 127, -127, 0, 0, 0, 0, 0, 0, 0, 0]);
}
