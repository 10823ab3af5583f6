//! Backbones of the EfficientNet-Lite family, for heavier networks than the default student: teachers.

use serde::{Deserialize, Serialize};

use super::architecture::{Architecture, Backbone, Neck, Stage};

/// A member of the family (Tan & Le 2019, table 1, without squeeze-and-excitation, and ReLU6 for swish: its "Lite" release).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Lite {
    Lite0,
    Lite1,
    Lite2,
    Lite3,
    Lite4,
}

/// Blocks, kernel, stride, expansion and channels of Lite0's stages.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
];

impl Lite {
    pub const ALL: [Self; 5] = [Self::Lite0, Self::Lite1, Self::Lite2, Self::Lite3, Self::Lite4];

    /// Factors on channels and on blocks.
    fn factors(self) -> (f64, f64) {
        match self {
            Self::Lite0 => (1.0, 1.0),
            Self::Lite1 => (1.0, 1.1),
            Self::Lite2 => (1.1, 1.2),
            Self::Lite3 => (1.2, 1.4),
            Self::Lite4 => (1.4, 1.8),
        }
    }

    /// The whole backbone. The stem keeps its 32 channels, the first and the last stage their one block.
    pub fn backbone(self) -> Backbone {
        let (width, depth) = self.factors();
        let last = STAGES.len() - 1;
        let stage =
            |(i, &(blocks, kernel, stride, expand, channels)): (usize, &(usize, usize, usize, usize, usize))| {
                let repeated = (blocks as f64 * depth).ceil() as usize;
                let blocks = if i == 0 || i == last { blocks } else { repeated };
                Stage { blocks, kernel, stride, expand, channels: round(channels as f64 * width) }
            };
        Backbone { stem: 32, stages: STAGES.iter().enumerate().map(stage).collect() }
    }

    /// The default student's heads on this backbone, with a neck of 96 channels and a mask head of 48.
    pub fn teacher(self) -> Architecture {
        let mut architecture = Architecture::default_student();
        architecture.backbone = self.backbone();
        architecture.neck = Neck { channels: 96 };
        architecture.segmentation.channels = 48;
        architecture
    }
}

/// To the nearest multiple of 8 that loses no more than a tenth.
fn round(channels: f64) -> usize {
    let near = ((channels + 4.0) / 8.0).floor() * 8.0;
    (if near < 0.9 * channels { near + 8.0 } else { near }).max(8.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_and_depths_are_those_of_the_release() {
        // From the published checkpoints: channels and blocks by stage.
        let of = |lite: Lite| {
            let stages = lite.backbone().stages;
            let channels: Vec<usize> = stages.iter().map(|s| s.channels).collect();
            (channels, stages.iter().map(|s| s.blocks).collect::<Vec<_>>())
        };
        assert_eq!(of(Lite::Lite0), (vec![16, 24, 40, 80, 112, 192, 320], vec![1, 2, 2, 3, 3, 4, 1]));
        assert_eq!(of(Lite::Lite2), (vec![16, 24, 48, 88, 120, 208, 352], vec![1, 3, 3, 4, 4, 5, 1]));
        assert_eq!(of(Lite::Lite4), (vec![24, 32, 56, 112, 160, 272, 448], vec![1, 4, 4, 6, 6, 8, 1]));
    }

    #[test]
    fn every_teacher_is_a_valid_network_with_the_student_s_outputs() {
        let shapes = |a: &Architecture| {
            let graph = a.graph(64, 64);
            graph.outputs.iter().map(|&o| graph.layers[o].shape).collect::<Vec<_>>()
        };
        for lite in Lite::ALL {
            let teacher = lite.teacher();
            teacher.check().unwrap();
            assert_eq!(shapes(&teacher), shapes(&Architecture::default_student()));
        }
    }
}
