//! Random networks of every operation that a graph may hold, on small maps.

use peregrine_engine::{Activation, Conv, Graph, Interpolation, LayerId, Padding, Shape, Window};
use proptest::prelude::*;

/// One random layer: numbers that [`grow`] reads as a kind, operands and sizes that fit the graph
/// so far.
type Seed = (u8, usize, usize, usize);

/// Which operations a random network is made of.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Vocabulary {
    /// Those of our own students.
    Student,
    All,
}

/// The activations: two of students, then the others.
const ACTIVATIONS: [Activation; 8] = [
    Activation::Identity,
    Activation::Relu6,
    Activation::Silu,
    Activation::Hardswish,
    Activation::LeakyRelu,
    Activation::Relu,
    Activation::Sigmoid,
    Activation::Hardsigmoid,
];

/// Appends what `seed` stands for; nothing where it does not fit.
fn grow(graph: &mut Graph, name: &str, of: Vocabulary, (kind, at, a, b): Seed) {
    let (plain, all) = (of == Vocabulary::Student, of == Vocabulary::All);
    let padding = |n: usize| if all && n % 2 == 1 { Padding::Even } else { Padding::Same };
    let n = graph.layers.len();
    let x = if at % 2 == 0 { n - 1 } else { at / 2 % n };
    let shape = graph.layers[x].shape;
    let alike = |graph: &Graph, same: &dyn Fn(Shape) -> bool, i: usize| -> LayerId {
        let found: Vec<_> = (0..n).filter(|&l| same(graph.layers[l].shape)).collect();
        found[i % found.len()]
    };
    let same_map = |s: Shape| (s.height, s.width) == (shape.height, shape.width);
    let pointwise =
        Conv { kernel: 1, stride: 1, depthwise: false, activation: Activation::Relu6, padding: Padding::Same };
    let channels = 1 + a % 50;
    match kind % [8, 16][of as usize] {
        0 if shape.width < 40 && shape.height < 40 => {
            // Half of the time as a pyramid level: the upsampled map is added to a convolution's
            // result.
            let up = graph.upsample2x(format!("{name}.up"), x, Interpolation::Nearest);
            if b % 2 == 0 {
                let fine = graph.upsample2x(format!("{name}.fine"), x, Interpolation::Nearest);
                let lateral = graph.conv(format!("{name}.lateral"), fine, shape.channels, pointwise);
                graph.add(format!("{name}.sum"), lateral, up);
            }
        }
        1 => {
            let y = alike(graph, &|s| s == shape, a);
            graph.add(name, x, y);
        }
        2 => {
            let parts: Vec<_> = (0..1 + b % 3).map(|i| alike(graph, &same_map, a + i * 7)).collect();
            graph.concat(name, &parts);
        }
        3 => {
            // An inverted residual, wide enough on larger maps to be run as a chain.
            let wide = graph.conv(format!("{name}.expand"), x, 8 + a % 120, pointwise);
            let depthwise = Conv { kernel: 3 + b % 2 * 2, stride: 1 + b / 2 % 2, depthwise: true, ..pointwise };
            let filtered = graph.conv(format!("{name}.depthwise"), wide, 0, depthwise);
            let project = Conv { activation: Activation::Identity, ..pointwise };
            let narrow = graph.conv(format!("{name}.project"), filtered, shape.channels, project);
            if depthwise.stride == 1 {
                graph.add(format!("{name}.add"), x, narrow);
            }
        }
        4 if !plain => {
            let window = Window { kernel: [2, 3, 5][b % 3], stride: 1 + b / 3 % 2, padding: padding(b / 6) };
            if window.output(shape.height.min(shape.width)) > 0 {
                graph.max_pool(name, x, window);
            }
        }
        5 if !plain => {
            // A ShuffleNet unit: half of the channels go by, the two halves are interleaved, and
            // often again.
            let half = shape.channels / 2;
            if half > 0 {
                let by = graph.slice(format!("{name}.by"), x, 0..half);
                let through = graph.slice(format!("{name}.through"), x, half..2 * half);
                let conv = Conv { kernel: [1, 3][b % 2], activation: Activation::LeakyRelu, ..pointwise };
                let worked = graph.conv(format!("{name}.conv"), through, half, conv);
                let both = graph.concat(format!("{name}.both"), &[by, worked]);
                graph.shuffle(format!("{name}.shuffle"), both, 2);
            }
        }
        6 if !plain => {
            let first = a % shape.channels;
            let first = if b % 2 == 0 { first / 8 * 8 } else { first };
            let part = graph.slice(format!("{name}.slice"), x, first..first + 1 + b / 2 % (shape.channels - first));
            if b % 3 == 0 {
                let same = alike(graph, &same_map, a + 3);
                graph.concat(name, &[part, same, part]);
            }
        }
        12 => {
            let window = Window { kernel: [2, 3, 5][b % 3], stride: 1 + b / 3 % 2, padding: padding(b / 6) };
            if window.output(shape.height.min(shape.width)) > 0 {
                graph.average_pool(name, x, window);
            }
        }
        13 => {
            // Squeeze and excitation; of what is not negative, since a mean that cancels to nearly
            // nothing says little about an engine.
            let positive = graph.activate(format!("{name}.positive"), x, ACTIVATIONS[6 + b / 2 % 2]);
            let mean = graph.global_average(format!("{name}.mean"), positive);
            let squeeze = Conv { activation: Activation::Relu, ..pointwise };
            let squeezed = graph.conv(format!("{name}.squeeze"), mean, 1 + a % 20, squeeze);
            let excite = Conv { activation: ACTIVATIONS[6 + b % 2], ..pointwise };
            let factors = graph.conv(format!("{name}.excite"), squeezed, shape.channels, excite);
            graph.scale(format!("{name}.scale"), x, factors);
        }
        14 if b % 2 == 0 => {
            graph.activate(name, x, ACTIVATIONS[b / 2 % 8]);
        }
        14 if shape.width < 40 && shape.height < 40 => {
            graph.upsample2x(name, x, Interpolation::Bilinear);
        }
        _ => {
            let conv = Conv {
                kernel: [1, if all { 6 } else { 1 }, 3, 5, 7][b % 5],
                stride: [1, 1, 1, 2, 3][b / 5 % 5],
                depthwise: b / 25 % 2 == 0,
                activation: ACTIVATIONS[b / 50 % [2, 8][of as usize]],
                padding: padding(b / 10),
            };
            if conv.window().output(shape.height.min(shape.width)) > 0 {
                graph.conv(name, x, channels, conv);
            }
        }
    }
}

prop_compose! {
    /// Up to nine of them on a map of up to 70 × 90 pixels, with the last layer and another as
    /// outputs.
    fn graph_of(of: Vocabulary)(
        channels in 1usize..10,
        height in prop_oneof![4 => 1usize..20, 1 => 40usize..70],
        width in prop_oneof![4 => 1usize..30, 1 => 40usize..90],
        seeds in prop::collection::vec((any::<u8>(), 0usize..64, 0usize..1000, 0usize..1000), 1..10),
        extra in any::<prop::sample::Index>(),
    ) -> Graph {
        let mut graph = Graph::new(Shape::new(channels, height, width));
        for (i, &seed) in seeds.iter().enumerate() {
            grow(&mut graph, &format!("layer{i}"), of, seed);
        }
        let last = graph.layers.len() - 1;
        graph.outputs.extend([last, extra.index(last + 1)]);
        graph
    }
}

/// Of all that a graph may hold.
pub fn any_graph() -> impl Strategy<Value = Graph> {
    graph_of(Vocabulary::All)
}

/// Of what a student may hold.
pub fn student_graph() -> impl Strategy<Value = Graph> {
    graph_of(Vocabulary::Student)
}
