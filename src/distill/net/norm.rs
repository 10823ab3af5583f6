//! Batch normalisation (Ioffe & Szegedy 2015, Algorithm 1), over a batch `[n, channels, pixels]`.

use rayon::prelude::*;

use super::vectors::{dot, sum, vectorised};
use crate::ranks::Ranks;

/// Added to the variance.
pub const EPSILON: f32 = 1e-3;
/// Weight of one batch in the running statistics.
pub const MOMENTUM: f32 = 0.03;

/// Values that are summed in single precision, before the sums are in double.
const SUMMED: usize = 1024;

/// Which statistics normalise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The batch's, which then move the running ones.
    Train,
    /// The running ones.
    Evaluate,
}

/// Mean and variance of each channel of one batch.
#[derive(Debug, Clone, Default)]
pub struct BatchStatistics {
    pub mean: Vec<f32>,
    pub variance: Vec<f32>,
}

impl BatchStatistics {
    /// Biased statistics of `z` and what the other `ranks` have beside it.
    pub fn of(z: &[f32], channels: usize, pixels: usize, ranks: &Ranks) -> Self {
        let batch = z.len() / (channels * pixels);
        let count = (batch * pixels * ranks.size()) as f64;
        let mut sums: Vec<f64> = (0..channels)
            .into_par_iter()
            .flat_map_iter(|c| {
                let (plain, squares) = vectorised!({
                    let planes = (0..batch).map(|n| &z[(n * channels + c) * pixels..][..pixels]);
                    let mut sums = (0.0f64, 0.0f64);
                    for chunk in planes.flat_map(|plane| plane.chunks(SUMMED)) {
                        sums.0 += f64::from(sum(chunk));
                        sums.1 += f64::from(dot(chunk, chunk));
                    }
                    sums
                });
                [plain, squares]
            })
            .collect();
        ranks.sum(&mut sums);
        let of_channel = |sums: &[f64]| {
            let mean = sums[0] / count;
            (mean as f32, (sums[1] / count - mean * mean).max(0.0) as f32)
        };
        let (mean, variance) = sums.chunks(2).map(of_channel).unzip();
        Self { mean, variance }
    }

    /// Moves running statistics towards those of a batch.
    pub fn follow(&mut self, batch: &Self) {
        let follow = |running: &mut [f32], now: &[f32]| {
            running.iter_mut().zip(now).for_each(|(r, n)| *r += MOMENTUM * (n - *r));
        };
        follow(&mut self.mean, &batch.mean);
        follow(&mut self.variance, &batch.variance);
    }

    fn inverse_deviation(&self, channel: usize) -> f32 {
        1.0 / (self.variance[channel] + EPSILON).sqrt()
    }
}

/// The scale and shift by which normalisation with `statistics` acts on channel `c`.
pub fn affine(statistics: &BatchStatistics, gamma: &[f32], beta: &[f32], c: usize) -> (f32, f32) {
    let scale = gamma[c] * statistics.inverse_deviation(c);
    (scale, beta[c] - statistics.mean[c] * scale)
}

/// Replaces `d_y` by the gradient of `z`, and adds to those of gamma and beta (`d_affine`), which are
/// of `z` alone.
///
/// dz = γ/σ · (dy − Σdy/m − ẑ·Σ(dy·ẑ)/m), with ẑ = (z − μ)/σ and the sums over the m values of a
/// channel, those of the other `ranks` included.
pub fn backward(
    z: &[f32],
    statistics: &BatchStatistics,
    gamma: &[f32],
    d_y: &mut [f32],
    [d_gamma, d_beta]: [&mut [f32]; 2],
    pixels: usize,
    ranks: &Ranks,
) {
    let channels = gamma.len();
    let batch = z.len() / (channels * pixels);
    let count = (batch * pixels * ranks.size()) as f32;
    let mut sums: Vec<(f32, f32)> = (0..channels)
        .into_par_iter()
        .map(|c| {
            let (mean, inverse) = (statistics.mean[c], statistics.inverse_deviation(c));
            let (mut plain, mut weighted) = (0.0f32, 0.0f32);
            for n in 0..batch {
                let at = (n * channels + c) * pixels;
                let (d_y, z) = (&d_y[at..][..pixels], &z[at..][..pixels]);
                let (of_plane, product) = vectorised!((sum(d_y), dot(d_y, z)));
                plain += of_plane;
                weighted += (product - mean * of_plane) * inverse;
            }
            (plain, weighted)
        })
        .collect();
    for (c, &(plain, weighted)) in sums.iter().enumerate() {
        d_beta[c] += plain;
        d_gamma[c] += weighted;
    }
    if !ranks.is_alone() {
        let mut all: Vec<f64> = sums.iter().flat_map(|&(a, b)| [f64::from(a), f64::from(b)]).collect();
        ranks.sum(&mut all);
        sums = all.chunks(2).map(|sums| (sums[0] as f32, sums[1] as f32)).collect();
    }
    d_y.par_chunks_mut(pixels).zip(z.par_chunks(pixels)).enumerate().for_each(|(plane, (d_y, z))| {
        let c = plane % channels;
        let (mean, inverse) = (statistics.mean[c], statistics.inverse_deviation(c));
        let (plain, weighted) = (sums[c].0 / count, sums[c].1 / count);
        let scale = gamma[c] * inverse;
        vectorised!({
            for (dy, &z) in d_y.iter_mut().zip(z) {
                *dy = scale * (*dy - plain - (z - mean) * inverse * weighted);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use crate::ranks::threads::on_ranks;

    const CHANNELS: usize = 2;
    const PIXELS: usize = 5;

    fn run(z: &[f32], gamma: &[f32], beta: &[f32]) -> Vec<f32> {
        let statistics = BatchStatistics::of(z, CHANNELS, PIXELS, &Ranks::alone());
        let plane = |(i, plane): (usize, &[f32])| {
            let (scale, shift) = affine(&statistics, gamma, beta, i % CHANNELS);
            plane.iter().map(|v| v * scale + shift).collect::<Vec<_>>()
        };
        z.chunks(PIXELS).enumerate().flat_map(plane).collect()
    }

    #[test]
    fn output_has_the_mean_and_deviation_of_beta_and_gamma() {
        let z = check::values(3 * CHANNELS * PIXELS, 1);
        let y = run(&z, &[2.0, 3.0], &[-1.0, 4.0]);
        let statistics = BatchStatistics::of(&y, CHANNELS, PIXELS, &Ranks::alone());
        for (c, (deviation, mean)) in [(2.0f32, -1.0f32), (3.0, 4.0)].into_iter().enumerate() {
            assert!((statistics.mean[c] - mean).abs() < 1e-4);
            assert!((statistics.variance[c].sqrt() - deviation).abs() < 0.02);
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let z = check::values(3 * CHANNELS * PIXELS, 1);
        let (gamma, beta) = ([1.5, -0.5], [0.1, 0.2]);
        let probe = check::values(z.len(), 2);
        let statistics = BatchStatistics::of(&z, CHANNELS, PIXELS, &Ranks::alone());
        let (mut d_z, mut d_gamma, mut d_beta) = (probe.clone(), [0.0; 2], [0.0; 2]);
        backward(&z, &statistics, &gamma, &mut d_z, [&mut d_gamma, &mut d_beta], PIXELS, &Ranks::alone());
        check::gradient(&z, &d_z, |z| check::dot(&run(z, &gamma, &beta), &probe));
        check::gradient(&gamma, &d_gamma, |g| check::dot(&run(&z, g, &beta), &probe));
        check::gradient(&beta, &d_beta, |b| check::dot(&run(&z, &gamma, b), &probe));
    }

    #[test]
    fn ranks_that_share_a_batch_normalise_as_one_would() {
        let z = check::values(4 * CHANNELS * PIXELS, 1);
        let probe = check::values(z.len(), 2);
        let run = |ranks: &Ranks| {
            let part = z.len() / ranks.size();
            let own = ranks.rank() * part..(ranks.rank() + 1) * part;
            let (z, mut d_z) = (&z[own.clone()], probe[own].to_vec());
            let statistics = BatchStatistics::of(z, CHANNELS, PIXELS, ranks);
            let mut d_affine = [[0.0; CHANNELS]; 2];
            let [d_gamma, d_beta] = &mut d_affine;
            backward(z, &statistics, &[1.5, -0.5], &mut d_z, [d_gamma, d_beta], PIXELS, ranks);
            let mut d_affine = d_affine.concat();
            ranks.sum_many(&mut d_affine);
            [statistics.mean, statistics.variance, d_affine, ranks.gather(&d_z).concat()]
        };
        let expected = run(&Ranks::alone());
        for found in on_ranks(2, |ranks| run(&ranks)) {
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                assert!((found - expected).abs() < 1e-5, "{found}, not {expected}");
            }
        }
    }
}
