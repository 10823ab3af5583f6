//! The most valuable frame, then again and again the one with the largest product of value and
//! distance to those chosen before: k-centre greedy (Sener and Savarese 2018, "Active Learning for
//! Convolutional Neural Networks: A Core-Set Approach", algorithm 1), weighted by value.

use super::features::distance;
use super::{Chosen, Rule};

/// The rule, and each frame's distance to the nearest that was chosen.
pub struct Farthest {
    features: Vec<Vec<f32>>,
    values: Vec<f32>,
    nearest: Vec<f32>,
}

impl Farthest {
    pub fn new(features: Vec<Vec<f32>>, values: Vec<f32>) -> Self {
        let nearest = vec![f32::INFINITY; features.len()];
        Self { features, values, nearest }
    }

    fn gain(&self, index: usize) -> f32 {
        // Before the first choice, all are equally far.
        if self.nearest[index].is_finite() {
            self.nearest[index] * self.values[index]
        } else {
            self.values[index]
        }
    }
}

impl Rule for Farthest {
    fn best(&mut self, open: &[bool]) -> Option<Chosen> {
        let all = (0..open.len()).filter(|&i| open[i]);
        let index = all.max_by(|&a, &b| self.gain(a).total_cmp(&self.gain(b)).then(b.cmp(&a)))?;
        let before = self.nearest[index];
        for (feature, nearest) in self.features.iter().zip(&mut self.nearest) {
            *nearest = nearest.min(distance(feature, &self.features[index]));
        }
        Some(Chosen { index, value: self.values[index], distance: before.is_finite().then_some(before), nearer: None })
    }
}
