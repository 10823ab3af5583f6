//! Distances between frames: of the student's features, each scaled to standard deviation 1.

use super::Candidate;

/// The features with mean 0 and standard deviation 1 over the candidates, each feature apart.
pub fn standardised(candidates: &[Candidate]) -> Vec<Vec<f32>> {
    let (count, size) = (candidates.len() as f32, candidates.first().map_or(0, |c| c.features.len()));
    let mut features: Vec<Vec<f32>> = candidates.iter().map(|c| c.features.clone()).collect();
    for at in 0..size {
        let mean = features.iter().map(|f| f[at]).sum::<f32>() / count;
        let variance = features.iter().map(|f| (f[at] - mean).powi(2)).sum::<f32>() / count;
        let std = variance.sqrt().max(1e-6);
        features.iter_mut().for_each(|f| f[at] = (f[at] - mean) / std);
    }
    features
}

/// Root mean square of the differences, in standard deviations.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    let sum: f32 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (sum / a.len().max(1) as f32).sqrt()
}
