//! A map of a soft target: a segmenter's logits or a layer's values, in f16.

use anyhow::ensure;
use half::f16;

use crate::teacher::{Feature, SoftMask};

/// A map in f16 on a grid, and the image's place on it.
#[derive(Debug, Clone, PartialEq)]
pub struct HalfMap {
    pub width: usize,
    pub height: usize,
    /// `[channels, height, width]`; logits are at a temperature of 1.
    pub values: Vec<f16>,
    /// Left, top, right and bottom of the image, in cells.
    pub image: [f32; 4],
}

impl HalfMap {
    pub fn channels(&self) -> usize {
        self.values.len() / (self.width * self.height)
    }

    /// A segmenter's logits, in f32.
    pub fn soft_mask(&self) -> SoftMask {
        let logits = self.values.iter().map(|value| value.to_f32()).collect();
        SoftMask { width: self.width, height: self.height, logits }
    }
}

/// The place of an image that covers the whole grid.
pub(super) fn whole(width: usize, height: usize) -> [f32; 4] {
    [0.0, 0.0, width as f32, height as f32]
}

impl From<&SoftMask> for HalfMap {
    fn from(mask: &SoftMask) -> Self {
        let (width, height) = (mask.width, mask.height);
        Self { width, height, values: to_f16(&mask.logits).collect(), image: whole(width, height) }
    }
}

impl TryFrom<&Feature> for HalfMap {
    type Error = anyhow::Error;

    /// # Errors
    /// When a value exceeds the range of f16.
    fn try_from(feature: &Feature) -> anyhow::Result<Self> {
        let values: Vec<f16> = to_f16(&feature.values).collect();
        ensure!(values.iter().all(|v| v.is_finite()), "a value is NaN or exceeds 65504, the largest f16");
        Ok(Self { width: feature.width, height: feature.height, values, image: feature.image })
    }
}

pub(super) fn to_f16(values: &[f32]) -> impl Iterator<Item = f16> + '_ {
    values.iter().map(|&value| f16::from_f32(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_beyond_the_range_of_f16_is_refused() {
        for (value, fits) in [(65504.0, true), (1e6, false), (f32::NAN, false)] {
            let feature = Feature { width: 1, height: 1, values: vec![value], image: [0.0, 0.0, 1.0, 1.0] };
            assert_eq!(HalfMap::try_from(&feature).is_ok(), fits);
        }
    }
}
