//! Every method by three ranks with an image each, beside one process with all images.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::Var;
use peregrine_student::Student;

use super::super::inputs::{DistillInputs, Tensors};
use super::reference::{cases, inputs, partly_valid, reference};
use super::MethodConfig;
use crate::ranks::threads::on_ranks;
use crate::ranks::Ranks;
use crate::tensor::{Result, Tensor};

/// The rows of the detection head that each rank has; the second has no positive among them.
const ROWS: [Range<usize>; 3] = [0..5, 5..6, 6..8];

/// The loss, and its gradients in the student's tensors.
type Outcome = (f32, Vec<Vec<f32>>);

fn outcome(config: &MethodConfig, mut inputs: DistillInputs) -> Result<Outcome> {
    let method = config.method.build(Some(&Student::embedded())).unwrap();
    let mut variables = Vec::new();
    let student = &mut inputs.student;
    let heads = [&mut student.class, &mut student.box_distribution, &mut student.segmentation];
    for tensor in heads.into_iter().chain(student.layers.values_mut()) {
        let variable = Var::from_tensor(tensor.on_host().expect("tests run on the CPU"))?;
        *tensor = Tensor::from(&variable);
        variables.push(variable);
    }
    let loss = method.loss(&inputs)?;
    let found = loss.on_host().expect("as above").backward()?;
    let gradient = |v: &Var| match found.get(v) {
        Some(gradient) => gradient.flatten_all()?.to_vec1(),
        None => Ok(vec![0.0; v.elem_count()]),
    };
    Ok((loss.value()?, variables.iter().map(gradient).collect::<Result<_>>()?))
}

/// What one rank has of the whole.
fn part(whole: DistillInputs, ranks: Ranks) -> Result<DistillInputs> {
    let (rank, rows) = (ranks.rank(), ROWS[ranks.rank()].clone());
    let of_rows = |tensor: &Tensor| tensor.narrow(0, rows.start, rows.len());
    let of_images = |tensor: &Tensor| tensor.narrow(0, rank, 1);
    let tensors = |all: &Tensors| -> Result<Tensors> {
        let layers = all.layers.iter().map(|(name, layer)| Ok((name.clone(), of_images(layer)?)));
        Ok(Tensors {
            class: of_rows(&all.class)?,
            box_distribution: of_rows(&all.box_distribution)?,
            segmentation: of_images(&all.segmentation)?,
            scene: Vec::new(),
            layers: layers.collect::<Result<BTreeMap<_, _>>>()?,
        })
    };
    fn of<T: Clone>(values: &[T], rank: usize) -> Vec<T> {
        values.chunks(values.len() / ROWS.len()).nth(rank).unwrap().to_vec()
    }
    let here = |&&(row, _): &&(u32, usize)| rows.contains(&(row as usize));
    Ok(DistillInputs {
        student: tensors(&whole.student)?,
        teacher: tensors(&whole.teacher)?,
        positives: whole.positives.iter().filter(here).map(|p| (p.0 - rows.start as u32, p.1)).collect(),
        boxes: of(&whole.boxes, rank),
        mask: of(&whole.mask, rank),
        mask_valid: of(&whole.mask_valid, rank),
        layer_valid: whole.layer_valid.iter().map(|(name, valid)| (name.clone(), of(valid, rank))).collect(),
        ranks,
        ..whole
    })
}

/// As with soft targets, of which the second image has none.
fn without_second(inputs: DistillInputs) -> DistillInputs {
    let mut inputs = partly_valid(inputs, [0.5, 0.0, 1.0]);
    let cells = inputs.mask_valid.len() / ROWS.len();
    inputs.mask_valid[cells..2 * cells].fill(false);
    inputs
}

#[test]
fn the_losses_and_gradients_of_ranks_are_those_of_one_process() {
    let data = reference();
    for (config, _) in cases(&data) {
        for whole in [|| inputs(&reference()), || without_second(inputs(&reference()))] {
            let (value, gradients) = outcome(&config, whole()).unwrap();
            let of_ranks = on_ranks(3, |ranks| outcome(&config, part(whole(), ranks).unwrap()).unwrap());
            let sum: f32 = of_ranks.iter().map(|found| found.0).sum();
            assert!((sum - value).abs() < 1e-5 * (1.0 + value), "{config:?}: {sum}, not {value}");
            for (i, expected) in gradients.iter().enumerate() {
                let found: Vec<f32> = of_ranks.iter().flat_map(|found| &found.1[i]).copied().collect();
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-5, "{config:?}, tensor {i}: {found}, not {expected}");
                }
            }
        }
    }
}
