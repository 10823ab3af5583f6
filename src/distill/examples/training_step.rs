//! Where a training step's time goes, layer by layer:
//! `cargo run --release -p peregrine-distill --example training_step -- models/peregrine-s 8 1` (package, images,
//! threads; without a package the default student at 320×256).

use std::path::Path;
use std::time::{Duration, Instant};

use peregrine_distill::net::{Mode, NetParams, TrainNet};
use peregrine_student::{Architecture, Student};

const STEPS: u32 = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| arguments.get(at).map_or(default, |n| n.parse().expect("a number"));
    let (images, threads) = (number(1, 8), number(2, 1));
    let architecture = match arguments.first().filter(|path| *path != "default") {
        Some(path) => Student::load(Path::new(path)).expect("a student package").manifest.architecture,
        None => Architecture::default_student(),
    };
    let graph = architecture.graph(architecture.input.width, architecture.input.height);
    let params = NetParams::random(&graph, 1);
    let mut net = TrainNet::new(graph, params, images);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads").install(|| measure(&mut net));
}

fn measure(net: &mut TrainNet) {
    net.input().iter_mut().enumerate().for_each(|(i, value)| *value = (i * 7919 % 255) as f32 / 127.0 - 1.0);
    let mut steps = Vec::new();
    for step in 0..=STEPS {
        let since = Instant::now();
        net.forward(Mode::Train).expect("on the CPU");
        let seeds: Vec<_> = net.graph.outputs.iter().map(|&id| (id, net.value(id).to_vec())).collect();
        net.backward(seeds.iter().map(|(id, seed)| (*id, &seed[..]))).expect("on the CPU");
        // The first warms up.
        if step == 0 {
            net.times.iter_mut().for_each(|times| *times = Default::default());
        } else {
            steps.push(since.elapsed());
        }
    }
    steps.sort();
    println!(
        "{} images, {} threads: {:.1} ms a step",
        net.batch(),
        rayon::current_num_threads(),
        ms(steps[steps.len() / 2])
    );
    let mut layers: Vec<_> = net.graph.layers.iter().zip(&net.times).collect();
    layers.sort_by_key(|(_, times)| std::cmp::Reverse(times.forward + times.backward));
    println!("{:>9} {:>9}  layer", "forward", "backward");
    for (layer, times) in layers.iter().take(40) {
        let [forward, backward] = [times.forward, times.backward].map(|time| ms(time / STEPS));
        println!("{forward:>9.2} {backward:>9.2}  {} {:?} {}", layer.name, layer.op, layer.shape);
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
