//! `distill cluster`: weight clustering, which makes a student's file smaller.
//!
//! Each layer's weights are clustered (Han, Mao & Dally 2016, "Deep Compression", section 3:
//! k-means on the values, with linear initialisation between the smallest and the largest), and
//! each weight is replaced by its cluster's mean. The file then holds a codebook and the cluster
//! indices. The engines expand the values on loading, so that time and memory at run time are
//! unchanged.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use half::f16;
use peregrine_core::files::write_atomically;
use peregrine_student::{clustered, Student};
use rayon::prelude::*;

use super::before_after::{BeforeAfter, JudgeArgs};
use super::model_args::ModelArgs;

/// Cluster a student's weights by layer (k-means), for a package with a smaller file.
///
/// Time and memory at run time are unchanged: this saves transfer and storage on a vehicle. Layers
/// with few weights and depthwise layers are not clustered.
///
/// Example: distill cluster --out small --judge data/vehicles/val
#[derive(Debug, Args)]
pub struct ClusterArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Bits per cluster index: a layer has at most 2^bits different weights.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..=8))]
    bits: u8,
    /// Folder for the package.
    #[arg(long, short)]
    out: PathBuf,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Where to write the report as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Each names the invalid file or option. The package is written before the report.
pub fn run(args: &ClusterArgs) -> anyhow::Result<()> {
    let student = args.model.student()?;
    ensure!(
        student.quantization.is_none(),
        "{} is quantized; cluster the weights of the student that it was made from",
        student.manifest.name
    );
    let mut small = cluster(&student, args.bits);
    let report = BeforeAfter::measure(&student, &mut small, &args.judge)?;
    small.save(&args.out)?;
    print!("{}", report.text());
    println!("package with clustered weights: {}", args.out.display());
    if let Some(path) = &args.json {
        write_atomically(path, &serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}

/// The student with at most 2^`bits` (1 to 8) different weights in each layer that gets smaller by
/// it.
pub fn cluster(student: &Student, bits: u8) -> Student {
    let mut small = student.clone();
    small.manifest.name = format!("{}-clustered", student.manifest.name);
    small.manifest.training.command = format!("distill cluster --bits {bits} of {}", student.manifest.name);
    small.manifest.accuracy.clear();
    small.manifest.weights.cluster_bits = Some(bits);
    let graph = student.graph();
    let layers: Vec<_> = graph
        .convs()
        .filter(|(_, _, shape)| clustered::is_worth_a_codebook(shape, bits))
        .map(|(l, ..)| &l.name)
        .collect();
    let clustered: Vec<_> =
        layers.par_iter().map(|&name| (name, k_means(&student.weights.of(name).weight, 1 << bits))).collect();
    for (name, weight) in clustered {
        small.weights.0.get_mut(name).expect("a layer of the graph").weight = weight;
    }
    small
}

/// Maximum iterations of k-means; it usually converges long before.
const ITERATIONS: usize = 100;

/// Each value replaced by the mean of its cluster, rounded to f16; at most `clusters` different
/// ones.
fn k_means(values: &[f32], clusters: usize) -> Vec<f32> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let sums: Vec<f64> = std::iter::once(0.0)
        .chain(sorted.iter().scan(0.0, |sum, &v| {
            *sum += f64::from(v);
            Some(*sum)
        }))
        .collect();
    let (low, high) = (f64::from(sorted[0]), f64::from(sorted[sorted.len() - 1]));
    let mut means: Vec<f64> = (0..clusters).map(|i| low + (high - low) * (i as f64 + 0.5) / clusters as f64).collect();
    for _ in 0..ITERATIONS {
        // In one dimension a cluster ends halfway to the neighbouring means.
        let mut first = 0;
        let mut moved = false;
        for i in 0..clusters {
            let end = match means.get(i + 1) {
                Some(next) => sorted.partition_point(|&v| f64::from(v) <= (means[i] + next) / 2.0).max(first),
                None => sorted.len(),
            };
            if end > first {
                let mean = (sums[end] - sums[first]) / (end - first) as f64;
                moved |= mean != means[i];
                means[i] = mean;
            }
            first = end;
        }
        if !moved {
            break;
        }
    }
    let mut codebook: Vec<f32> = means.iter().map(|&m| f16::from_f64(m).to_f32()).collect();
    codebook.sort_by(f32::total_cmp);
    values.iter().map(|&v| nearest(&codebook, v)).collect()
}

/// The nearest value of a sorted `codebook`.
fn nearest(codebook: &[f32], value: f32) -> f32 {
    let at = codebook.partition_point(|&c| c < value);
    match (at.checked_sub(1).map(|i| codebook[i]), codebook.get(at)) {
        (Some(below), Some(&above)) if value - below <= above - value => below,
        (_, Some(&above)) => above,
        (Some(below), None) => below,
        (None, None) => unreachable!("a codebook has a value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn well_separated_values_become_their_cluster_means() {
        let values = [-1.0, -0.9, 0.1, 0.2, 0.15, 2.0];
        let means = [-0.95, -0.95, 0.15, 0.15, 0.15, 2.0];
        let found = k_means(&values, 4);
        assert!(found.iter().zip(means).all(|(a, b)| (a - b).abs() < 1e-3), "{found:?}");
    }

    /// Mean squared error of scikit-learn's k-means, the best of 50 initialisations:
    /// tests/reference/kmeans.py.
    const REFERENCE: f64 = 3.5954e-3;

    #[test]
    fn the_error_is_near_scikit_learns_best() {
        let values: Vec<f32> =
            (0..1000u32).map(|i| (f64::from((7919 * i) % 1000) / 500.0 - 1.0).powi(3) as f32).collect();
        let error: f64 =
            values.iter().zip(k_means(&values, 8)).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / 1000.0;
        assert!(error > 0.999 * REFERENCE && error < 1.05 * REFERENCE, "{error}");
    }

    proptest! {
        #[test]
        fn the_clusters_are_no_more_than_asked_and_no_worse_than_a_grid(
            values in prop::collection::vec(-4.0f32..4.0, 1..300), bits in 1u8..=8
        ) {
            let found = k_means(&values, 1 << bits);
            let mut different = found.clone();
            different.sort_by(f32::total_cmp);
            different.dedup();
            prop_assert!(different.len() <= 1 << bits);
            let worse = |found: &[f32]| values.iter().zip(found).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            // k-means never ends with a larger error than its initialisation, apart from rounding
            // to f16.
            let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
            let step = (high - low) / f32::from(1u16 << bits);
            let start: Vec<f32> = values
                .iter()
                .map(|v| low + step * (((v - low) / step.max(f32::MIN_POSITIVE)).floor().min(f32::from((1u16 << bits) - 1)) + 0.5))
                .collect();
            prop_assert!(worse(&found) <= worse(&start) + 1e-4 * values.len() as f64);
        }
    }
}
