//! The networks that are compared: the three sizes of the shipped student, two public architectures with random
//! weights, and those of packages.
//!
//! The two represent common detectors: plain 3×3 convolutions (YOLOv8n: Jocher et al. 2023) and
//! many cheap layers (NanoDet-Plus: a ShuffleNetV2 backbone, Ma et al. 2018, with a pyramid and
//! heads of 5×5 depthwise convolutions). Shapes, not weights: they detect nothing.

use std::path::Path;

use anyhow::{ensure, Result};
use peregrine_distill::quantize::quantize;
use peregrine_engine::{Activation, Conv, Graph, Interpolation, LayerId, Padding, Shape, Weights, Window};
use peregrine_reference::random_weights;
use peregrine_student::Student;

/// A network and its weights.
pub struct Network {
    /// Its name in files and on the command line.
    pub name: String,
    pub graph: Graph,
    pub weights: Weights,
    /// The student in 8-bit integers, as `distill quantize` makes it from the sample frames. `None`
    /// for other networks.
    pub quantized: Option<Student>,
    /// Whether it comes from a package, so that candle, in a process of its own, does not know it by its name.
    pub from_package: bool,
}

impl Network {
    /// Those that are always measured; the embedded student comes first.
    pub fn all() -> Result<Vec<Network>> {
        let shipped = |name: &str| Self::of_package(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name));
        let random = |name: &str, graph| Network {
            name: name.to_owned(),
            weights: random_weights(&graph, 1),
            graph,
            quantized: None,
            from_package: false,
        };
        Ok(vec![
            Self::of_student("student".to_owned(), Student::embedded(), false)?,
            shipped("peregrine-n")?,
            shipped("peregrine-m")?,
            random("yolov8n-like", yolov8n_like(320, 320)),
            random("nanodet-like", nanodet_like(320, 320)),
        ])
    }

    /// The network of the package in `folder`, under the package's name.
    pub fn of_package(folder: &Path) -> Result<Network> {
        let student = Student::load(folder)?;
        ensure!(student.quantization.is_none(), "{}: it is quantized: the one in f32 is asked for", folder.display());
        Self::of_student(student.manifest.name.clone(), student, true)
    }

    fn of_student(name: String, student: Student, from_package: bool) -> Result<Network> {
        let frames = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/frames"))?;
        let mut frames: Vec<_> = frames.flatten().map(|entry| entry.path()).collect();
        frames.retain(|path| path.extension().is_some_and(|e| e == "jpg"));
        frames.sort();
        let quantized = Some(quantize(&student, &frames)?);
        Ok(Network { name, graph: student.graph(), weights: student.weights, quantized, from_package })
    }

    /// One line for the report.
    pub fn describe(&self) -> String {
        let s = self.graph.input_shape();
        let (mega, giga) = (self.graph.parameters() as f64 / 1e6, self.graph.flops() as f64 / 1e9);
        format!("{} at {}×{}: {mega:.2} M parameters, {giga:.2} GFLOP", self.name, s.width, s.height)
    }
}

/// Builds a graph, naming layers by number.
struct Builder {
    graph: Graph,
    activation: Activation,
}

impl Builder {
    fn new(width: usize, height: usize, activation: Activation) -> Self {
        Self { graph: Graph::new(Shape::new(3, height, width)), activation }
    }

    fn name(&self, kind: &str) -> String {
        format!("{}.{kind}", self.graph.layers.len())
    }

    fn channels(&self, x: LayerId) -> usize {
        self.graph.layers[x].shape.channels
    }

    fn dense(&mut self, x: LayerId, channels: usize, kernel: usize, stride: usize) -> LayerId {
        let conv = Conv { kernel, stride, depthwise: false, activation: self.activation, padding: Padding::Same };
        self.graph.conv(self.name("dense"), x, channels, conv)
    }

    /// A 1×1 convolution without activation.
    fn linear(&mut self, x: LayerId, channels: usize) -> LayerId {
        let conv =
            Conv { kernel: 1, stride: 1, depthwise: false, activation: Activation::Identity, padding: Padding::Same };
        self.graph.conv(self.name("linear"), x, channels, conv)
    }

    fn depthwise(&mut self, x: LayerId, kernel: usize, stride: usize, activation: Activation) -> LayerId {
        let conv = Conv { kernel, stride, depthwise: true, activation, padding: Padding::Same };
        self.graph.conv(self.name("depthwise"), x, 0, conv)
    }

    fn separable(&mut self, x: LayerId, channels: usize, kernel: usize, stride: usize) -> LayerId {
        let x = self.depthwise(x, kernel, stride, self.activation);
        self.dense(x, channels, 1, 1)
    }

    fn slice(&mut self, x: LayerId, range: std::ops::Range<usize>) -> LayerId {
        self.graph.slice(self.name("slice"), x, range)
    }

    fn concat(&mut self, parts: &[LayerId]) -> LayerId {
        self.graph.concat(self.name("concat"), parts)
    }

    fn add(&mut self, a: LayerId, b: LayerId) -> LayerId {
        self.graph.add(self.name("add"), a, b)
    }

    fn up(&mut self, x: LayerId) -> LayerId {
        self.graph.upsample2x(self.name("up"), x, Interpolation::Nearest)
    }

    fn pool(&mut self, x: LayerId, kernel: usize, stride: usize) -> LayerId {
        self.graph.max_pool(self.name("pool"), x, Window::same(kernel, stride))
    }

    /// YOLOv8's block: half of the channels pass `n` pairs of 3×3 convolutions, and every stage is
    /// concatenated.
    fn c2f(&mut self, x: LayerId, channels: usize, n: usize, shortcut: bool) -> LayerId {
        let half = channels / 2;
        let both = self.dense(x, channels, 1, 1);
        let mut parts = vec![self.slice(both, 0..half), self.slice(both, half..channels)];
        for _ in 0..n {
            let last = parts[parts.len() - 1];
            let inner = self.dense(last, half, 3, 1);
            let inner = self.dense(inner, half, 3, 1);
            parts.push(if shortcut { self.add(last, inner) } else { inner });
        }
        let all = self.concat(&parts);
        self.dense(all, channels, 1, 1)
    }

    /// Spatial pyramid pooling, fast: three 5×5 maxima in a row, all concatenated.
    fn sppf(&mut self, x: LayerId) -> LayerId {
        let channels = self.channels(x);
        let a = self.dense(x, channels / 2, 1, 1);
        let b = self.pool(a, 5, 1);
        let c = self.pool(b, 5, 1);
        let d = self.pool(c, 5, 1);
        let all = self.concat(&[a, b, c, d]);
        self.dense(all, channels, 1, 1)
    }

    /// ShuffleNetV2's unit of stride 1: half of the channels pass by.
    fn shuffle_unit(&mut self, x: LayerId) -> LayerId {
        let (channels, half) = (self.channels(x), self.channels(x) / 2);
        let by = self.slice(x, 0..half);
        let through = self.slice(x, half..channels);
        let y = self.dense(through, half, 1, 1);
        let y = self.depthwise(y, 3, 1, Activation::Identity);
        let y = self.dense(y, half, 1, 1);
        let both = self.concat(&[by, y]);
        self.graph.shuffle(self.name("shuffle"), both, 2)
    }

    /// ShuffleNetV2's unit of stride 2.
    fn shuffle_down(&mut self, x: LayerId, channels: usize) -> LayerId {
        let a = self.depthwise(x, 3, 2, Activation::Identity);
        let a = self.dense(a, channels / 2, 1, 1);
        let b = self.dense(x, channels / 2, 1, 1);
        let b = self.depthwise(b, 3, 2, Activation::Identity);
        let b = self.dense(b, channels / 2, 1, 1);
        let both = self.concat(&[a, b]);
        self.graph.shuffle(self.name("shuffle"), both, 2)
    }
}

pub fn yolov8n_like(width: usize, height: usize) -> Graph {
    const CLASSES: usize = 80;
    let mut b = Builder::new(width, height, Activation::Silu);
    let x = b.dense(0, 16, 3, 2);
    let x = b.dense(x, 32, 3, 2);
    let x = b.c2f(x, 32, 1, true);
    let x = b.dense(x, 64, 3, 2);
    let c8 = b.c2f(x, 64, 2, true);
    let x = b.dense(c8, 128, 3, 2);
    let c16 = b.c2f(x, 128, 2, true);
    let x = b.dense(c16, 256, 3, 2);
    let x = b.c2f(x, 256, 1, true);
    let c32 = b.sppf(x);

    let up = b.up(c32);
    let x = b.concat(&[up, c16]);
    let n16 = b.c2f(x, 128, 1, false);
    let up = b.up(n16);
    let x = b.concat(&[up, c8]);
    let p8 = b.c2f(x, 64, 1, false);
    let x = b.dense(p8, 64, 3, 2);
    let x = b.concat(&[x, n16]);
    let p16 = b.c2f(x, 128, 1, false);
    let x = b.dense(p16, 128, 3, 2);
    let x = b.concat(&[x, c32]);
    let p32 = b.c2f(x, 256, 1, false);

    for level in [p8, p16, p32] {
        for (channels, outputs) in [(64, 64), (CLASSES, CLASSES)] {
            let x = b.dense(level, channels, 3, 1);
            let x = b.dense(x, channels, 3, 1);
            let out = b.linear(x, outputs);
            b.graph.outputs.push(out);
        }
    }
    b.graph
}

pub fn nanodet_like(width: usize, height: usize) -> Graph {
    const CLASSES: usize = 80;
    const BINS: usize = 8;
    const WIDTH: usize = 96;
    let mut b = Builder::new(width, height, Activation::LeakyRelu);
    let x = b.dense(0, 24, 3, 2);
    let mut x = b.pool(x, 3, 2);
    let mut levels = vec![];
    for (channels, units) in [(116, 4), (232, 8), (464, 4)] {
        x = b.shuffle_down(x, channels);
        for _ in 1..units {
            x = b.shuffle_unit(x);
        }
        levels.push(b.dense(x, WIDTH, 1, 1));
    }
    for i in [1, 0] {
        let up = b.up(levels[i + 1]);
        let sum = b.add(levels[i], up);
        levels[i] = b.separable(sum, WIDTH, 5, 1);
    }
    for i in [1, 2] {
        let down = b.separable(levels[i - 1], WIDTH, 5, 2);
        let sum = b.add(levels[i], down);
        levels[i] = b.separable(sum, WIDTH, 5, 1);
    }
    for mut x in levels {
        for _ in 0..2 {
            x = b.separable(x, WIDTH, 5, 1);
        }
        let out = b.linear(x, CLASSES + 4 * BINS);
        b.graph.outputs.push(out);
    }
    b.graph
}
