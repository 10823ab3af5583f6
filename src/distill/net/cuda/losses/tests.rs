//! Losses on the emulated device, beside candle's on the CPU: values and gradients.

use std::sync::Arc;
use std::time::Duration;

use candle_core::{Device, Var};
use peregrine_engine::cuda::driver::{DeviceMemory, MemoryKind};
use peregrine_engine::cuda::launch::{dependencies, span, Node, NodeWork};
use peregrine_engine::cuda::recording::Recording;
use peregrine_engine::cuda::{Driver, Wait};
use peregrine_reference::cuda::Emulated;
use peregrine_student::Student;
use proptest::prelude::*;

use super::super::kernels::Precision;
use super::program::Program;
use super::schedule::{memory, nodes, Surroundings};
use crate::loss::inputs::DistillInputs;
use crate::loss::methods::reference::{cases, inputs, partly_valid, reference};
use crate::net::check;
use crate::tensor::gradient::gradients;
use crate::tensor::record::Operation;
use crate::tensor::{Result, Tensor};

/// A scalar of some tensors.
type Loss<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// A tensor of another.
type OfOne<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

/// Values and shape.
type Values = (Vec<f32>, Vec<usize>);

fn emulated() -> Option<Arc<dyn Driver>> {
    Emulated::of(&Precision::Single.modules(), false, false)
}

/// The loss of `at` and its gradients, by candle.
fn on_the_cpu(at: &[Values], loss: Loss) -> (f32, Vec<Vec<f32>>) {
    let variable = |(values, shape): &Values| Var::from_slice(values, &shape[..], &Device::Cpu).unwrap();
    let variables: Vec<Var> = at.iter().map(variable).collect();
    let value = loss(&variables.iter().map(Tensor::from).collect::<Vec<_>>()).unwrap();
    let found = value.on_host().unwrap().backward().unwrap();
    let gradient = |variable: &Var| match found.get(variable) {
        Some(gradient) => gradient.flatten_all().unwrap().to_vec1().unwrap(),
        None => vec![0.0; variable.elem_count()],
    };
    (value.value().unwrap(), variables.iter().map(gradient).collect())
}

/// Launches of a loss and its gradients.
struct Prepared {
    nodes: Vec<Node>,
    /// For each gradient which leaf it is of.
    leaves: Vec<usize>,
    results: Vec<DeviceMemory>,
    _memory: Vec<DeviceMemory>,
}

fn prepare(driver: &Arc<dyn Driver>, at: &[Values], loss: Loss) -> Prepared {
    let leaf = |(number, (_, shape)): (usize, &Values)| Tensor::from(Operation::Leaf(number).of(shape));
    let value = loss(&at.iter().enumerate().map(leaf).collect::<Vec<_>>()).unwrap().recorded();
    let (leaves, mut wanted): (Vec<_>, Vec<_>) = gradients(&value).unwrap().into_iter().unzip();
    wanted.push(value);
    let program = Program::new(&wanted);
    let device = |bytes: usize| DeviceMemory::new(driver, MemoryKind::Device, bytes).unwrap();
    let holding = |values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
        DeviceMemory::holding(driver, &bytes).unwrap()
    };
    let whole = |memory: &DeviceMemory| span(memory.device(), memory.len());
    let of_leaves: Vec<_> = at.iter().map(|(values, _)| holding(values)).collect();
    let numbers = holding(&program.numbers);
    let array = |(array, &bytes): (&super::program::Array, &usize)| {
        let mut values = vec![0; bytes];
        array.write(&mut values).unwrap();
        DeviceMemory::holding(driver, &values).unwrap()
    };
    let arrays: Vec<_> = program.arrays.iter().zip(&program.structure.arrays).map(array).collect();
    let results: Vec<_> = wanted.iter().map(|node| device(4 * node.count())).collect();
    let surroundings = Surroundings {
        precision: Precision::Single,
        leaves: of_leaves.iter().map(whole).collect(),
        given: vec![],
        numbers: whole(&numbers),
        arrays: arrays.iter().map(whole).collect(),
        results: results.iter().map(whole).collect(),
    };
    let arena = device(memory(&program.structure, &surroundings));
    let nodes = nodes(&program.structure, &surroundings, arena.device());
    let _memory = of_leaves.into_iter().chain(arrays).chain([numbers, arena]).collect();
    Prepared { nodes, leaves, results, _memory }
}

/// The same, by the kernels.
fn on_the_device(driver: &Arc<dyn Driver>, at: &[Values], loss: Loss) -> (f32, Vec<Vec<f32>>) {
    let prepared = prepare(driver, at, loss);
    driver.prepare(&prepared.nodes).unwrap();
    let edges = dependencies(&prepared.nodes);
    let mut instance = driver.instantiate(&prepared.nodes, &edges, Wait::Block, 0).unwrap();
    instance.launch().unwrap();
    instance.wait(Duration::MAX).unwrap();
    let read = |memory: &DeviceMemory| {
        let mut bytes = vec![0; memory.len()];
        driver.download(memory.device(), &mut bytes).unwrap();
        bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<f32>>()
    };
    let mut found: Vec<Vec<f32>> = at.iter().map(|(values, _)| vec![0.0; values.len()]).collect();
    for (&leaf, memory) in prepared.leaves.iter().zip(&prepared.results) {
        found[leaf] = read(memory);
    }
    (read(prepared.results.last().unwrap())[0], found)
}

fn compare(driver: &Arc<dyn Driver>, what: &str, at: &[Values], loss: Loss) {
    compare_to((1e-4, 1e-4), driver, what, at, loss);
}

/// Gradients up to `tolerance` of the largest, or of `least`.
fn compare_to((tolerance, least): (f32, f32), driver: &Arc<dyn Driver>, what: &str, at: &[Values], loss: Loss) {
    let (expected, gradients) = on_the_cpu(at, loss);
    let (found, of_device) = on_the_device(driver, at, loss);
    assert!((found - expected).abs() <= 2e-5 * (1.0 + expected.abs()), "{what}: {found} instead of {expected}");
    for (number, (found, expected)) in of_device.iter().zip(&gradients).enumerate() {
        let most = expected.iter().fold(least, |most, v| most.max(v.abs()));
        for (i, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= tolerance * most, "{what}, tensor {number}, value {i}: {a} instead of {b}");
        }
    }
}

fn values(shape: &[usize], seed: u64) -> Values {
    (check::values(shape.iter().product(), seed), shape.to_vec())
}

#[test]
fn every_operation_has_candles_values_and_gradients() {
    let Some(driver) = emulated() else { return };
    let weigh = |tensor: Tensor, seed: u64| -> Result<Tensor> {
        let weights = Tensor::from_slice(&check::values(tensor.elem_count(), seed), tensor.dims())?;
        (tensor * weights)?.sum_all()
    };
    let one = |what: &str, shape: &[usize], operation: OfOne| {
        compare(&driver, what, &[values(shape, 3)], &|x| weigh(operation(&x[0])?, 5));
    };
    let of_one: [(&str, OfOne); 24] = [
        ("exp", &|x| x.exp()),
        ("log", &|x| (x.sqr()? + 0.5)?.log()),
        ("sqrt", &|x| (x.sqr()? + 0.5)?.sqrt()),
        ("abs", &|x| x.abs()),
        ("neg", &|x| x.neg()),
        ("recip", &|x| (x.sqr()? + 0.5)?.recip()),
        ("relu", &|x| x.relu()),
        ("sigmoid", &|x| x.sigmoid()),
        ("affine", &|x| x.affine(-2.5, 0.25)),
        ("powf", &|x| (x.abs()? + 0.1)?.powf(1.7)),
        ("at_least", &|x| x.at_least(0.2)),
        ("at_most", &|x| x.at_most(0.2)),
        ("above", &|x| x * x.above(0.1)?),
        ("sum", &|x| x.sum(1)),
        ("mean", &|x| x.mean_keepdim(0)),
        ("sum_all", &|x| x.sum_all()),
        ("max", &|x| x.broadcast_mul(&x.detach().max(2)?.unsqueeze(2)?)),
        ("log_softmax", &|x| x.log_softmax()),
        ("softmax", &|x| x.softmax()),
        ("transpose", &|x| x.transpose(0, 2)?.exp()),
        ("narrow", &|x| x.narrow(1, 1, 3)?.sqr()),
        ("index_select", &|x| x.index_select(&[2, 0, 2], 1)?.exp()),
        ("pad", &|x| x.pad_with_zeros(1, 2, 1)?.exp()),
        ("reshape", &|x| x.transpose(1, 2)?.flatten(0, 1)?.rows_of(10)?.softmax()),
    ];
    for (what, operation) in of_one {
        one(what, &[3, 5, 4], operation);
    }
    one("one_hot_of_max", &[7, 4], &|x| x * x.detach().one_hot_of_max()?);
    one("scatter_rows", &[4, 3], &|x| x.scatter_rows(&[5, 1, 5, 0], 6)?.exp());
    let two = |what: &str, a: &[usize], b: &[usize], operation: &dyn Fn(&Tensor, &Tensor) -> Result<Tensor>| {
        compare(&driver, what, &[values(a, 3), values(b, 4)], &|x| weigh(operation(&x[0], &x[1])?, 5));
    };
    let shapes: [(&[usize], &[usize]); 4] =
        [(&[3, 4], &[3, 4]), (&[3, 4], &[1, 4]), (&[2, 1, 4], &[3, 1]), (&[5], &[2, 5])];
    for (a, b) in shapes {
        two("add", a, b, &|x, y| x.broadcast_add(y));
        two("sub", a, b, &|x, y| x.broadcast_sub(y));
        two("mul", a, b, &|x, y| x.broadcast_mul(y));
        two("div", a, b, &|x, y| x.broadcast_div(&(y.abs()? + 0.5)?));
    }
    two("minimum", &[3, 4], &[3, 4], &|x, y| x.minimum(y));
    two("maximum", &[3, 4], &[3, 4], &|x, y| x.maximum(y));
    two("maximum of equals", &[3, 4], &[3, 4], &|x, y| x.maximum(&(x + (y * 0.0)?)?));
    two("cat", &[2, 3, 4], &[2, 2, 4], &|x, y| Tensor::cat(&[x.clone(), y.exp()?, x.clone()], 1)?.sqr());
    two("matmul", &[2, 3, 4], &[2, 4, 5], &|x, y| x.matmul(y));
    two("matmul of one and several", &[3, 4], &[2, 4, 5], &|x, y| x.matmul(y));
    two("matmul of two", &[3, 4], &[4, 5], &|x, y| x.matmul(y));
}

#[test]
fn long_axes_are_summed_in_several_blocks() {
    let Some(driver) = emulated() else { return };
    let at = [values(&[3, 20_000], 1)];
    // Candle adds 20,000 values one after the other in single precision.
    compare_to((3e-3, 1e-4), &driver, "rows", &at, &|x| x[0].log_softmax()?.sqr()?.mean(1)?.sqrt()?.sum_all());
    compare(&driver, "columns", &at, &|x| x[0].transpose(0, 1)?.mean(0)?.sqr()?.sum_all());
    compare(&driver, "all", &at, &|x| x[0].sqr()?.mean_all());
    compare(&driver, "largest", &at, &|x| x[0].broadcast_mul(&x[0].detach().max(1)?.unsqueeze(1)?)?.mean_all());
}

/// Every method of the PyTorch reference in the student's tensors.
#[test]
fn every_method_has_the_cpus_value_and_gradients() {
    let Some(driver) = emulated() else { return };
    let data = reference();
    let whole = || inputs(&reference());
    let partly = || {
        let mut inputs = partly_valid(inputs(&reference()), [0.5, 0.0, 1.0]);
        let cells = inputs.mask_valid.len() / 3;
        inputs.mask_valid[cells..2 * cells].fill(false);
        inputs
    };
    let with_room = || DistillInputs { room: 8, ..inputs(&reference()) };
    let all: [&dyn Fn() -> DistillInputs; 3] = [&whole, &partly, &with_room];
    for (config, _) in cases(&data) {
        let method = config.method.build(Some(&Student::embedded())).unwrap();
        for inputs in all {
            let student = inputs().student;
            let heads = [&student.class, &student.box_distribution, &student.segmentation];
            let tensors = heads.into_iter().chain(student.layers.values());
            let at: Vec<Values> = tensors.map(|t| (t.values().unwrap(), t.dims().to_vec())).collect();
            let loss = |x: &[Tensor]| {
                let mut inputs = inputs();
                let is_recorded = x[0].on_host().is_none();
                let student = &mut inputs.student;
                let heads = [&mut student.class, &mut student.box_distribution, &mut student.segmentation];
                let tensors = heads.into_iter().chain(student.layers.values_mut());
                tensors.zip(x).for_each(|(tensor, x)| *tensor = x.clone());
                if is_recorded {
                    // The teacher's are on the device, too.
                    let teacher = &mut inputs.teacher;
                    let heads = [&mut teacher.class, &mut teacher.box_distribution, &mut teacher.segmentation];
                    let tensors = heads.into_iter().chain(teacher.layers.values_mut());
                    tensors.for_each(|tensor| *tensor = Tensor::from(tensor.recorded()));
                }
                method.loss(&inputs)
            };
            compare(&driver, &format!("{config:?}"), &at, &loss);
        }
    }
}

#[test]
fn a_loss_that_reads_a_value_is_refused() {
    let leaf = Tensor::from(Operation::Leaf(0).of(&[2]));
    assert!(leaf.values().unwrap_err().to_string().contains("on the device"));
    let most = gradients(&leaf.unsqueeze(0).unwrap().max(1).unwrap().sum_all().unwrap().recorded());
    assert!(most.unwrap_err().to_string().contains("not differentiated"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: peregrine_reference::random::cases(32), ..ProptestConfig::default() })]

    /// A chain of random operations on two tensors.
    #[test]
    fn any_chain_of_operations_has_candles_values_and_gradients(steps in prop::collection::vec((0..12u8, 0..3usize), 1..14), seed: u64) {
        let Some(driver) = emulated() else { return Ok(()) };
        let at = [values(&[3, 2, 4], seed), values(&[3, 2, 4], seed ^ 1)];
        let loss = |x: &[Tensor]| -> Result<Tensor> {
            let (mut a, mut b) = (x[0].clone(), x[1].clone());
            for &(step, axis) in &steps {
                let next = match step {
                    0 => (&a + &b)?,
                    1 => ((&a * &b)? * 0.5)?,
                    2 => a.sigmoid()?,
                    3 => a.softmax()?,
                    4 => a.broadcast_sub(&a.mean_keepdim(axis)?)?,
                    5 => a.transpose(0, 2)?.exp()?.recip()?.transpose(0, 2)?,
                    6 => Tensor::cat(&[a.narrow(axis, 1, a.dim(axis)? - 1)?, b.narrow(axis, 0, 1)?], axis)?,
                    7 => a.index_select(&vec![1; a.dim(axis)?], axis)?,
                    8 => a.flatten(0, 1)?.log_softmax()?.reshape(a.dims())?,
                    9 => a.matmul(&b.transpose(1, 2)?)?.matmul(&b)?.affine(0.1, 0.0)?,
                    10 => a.maximum(&b)?,
                    _ => (a.sqr()? + 0.3)?.sqrt()?,
                };
                (a, b) = (b, next);
            }
            let weights = Tensor::from_slice(&check::values(24, 9), &[3, 2, 4])?;
            ((a + b)? * weights)?.sum_all()
        };
        compare_to((1e-4, 0.1), &driver, &format!("{steps:?}"), &at, &loss);
    }

    #[test]
    fn no_launch_overwrites_what_it_reads(depth in 1..12usize, seed: u64) {
        let driver: Arc<dyn Driver> = Arc::new(Recording::of_architecture(90));
        let at = [values(&[8, 16], seed)];
        let prepared = prepare(&driver, &at, &|x| {
            let mut tensors = vec![x[0].clone()];
            for i in 0..depth {
                let from = &tensors[(seed as usize >> i) % tensors.len()];
                let next = (from.softmax()? + from.sum_keepdim(0)?.broadcast_mul(&x[0])?)?;
                tensors.push(next);
            }
            tensors.iter().map(Tensor::sum_all).reduce(|a, b| a? + b?).unwrap()
        });
        for (i, node) in prepared.nodes.iter().enumerate() {
            prop_assert!(matches!(node.work, NodeWork::Kernel(_)));
            for write in &node.writes {
                prop_assert!(node.reads.iter().all(|read| read.end <= write.start || write.end <= read.start), "{i} overwrites what it reads");
            }
        }
    }
}
