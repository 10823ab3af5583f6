//! Networks by name: the sizes of students, and the backbones of heavier ones, teachers.

use serde::{Deserialize, Serialize};

use super::architecture::{Architecture, Input, Neck};
use super::backbone::{Backbone, BackboneFamily, BackboneStage};

/// A backbone that ImageNet weights exist for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// EfficientNet-Lite (Tan & Le 2019, table 1, without squeeze-and-excitation, and ReLU6 for
    /// swish).
    Lite0,
    Lite1,
    Lite2,
    Lite3,
    Lite4,
    /// He et al. 2015, table 1.
    Resnet18,
    Resnet34,
    Resnet50,
}

/// The sizes of a student, by the cost of one image at 320×256 beside the default's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// Half the channels, one convolution in the detection head: about a quarter of the cost.
    N,
    /// The default student.
    #[default]
    S,
    /// On EfficientNet-Lite2, with a wider neck: under three times the cost.
    M,
    /// On EfficientNet-Lite4.
    L,
}

impl Size {
    /// The network, with the default student's classes and input.
    pub fn architecture(self) -> Architecture {
        let mut made = Architecture::default_student();
        let (neck, mask) = match self {
            Self::S => return made,
            Self::N => {
                made.backbone.stem = 16;
                made.backbone.stages.iter_mut().for_each(|stage| stage.channels /= 2);
                made.detection.iter_mut().for_each(|head| head.convs = 1);
                (32, 16)
            }
            Self::M => {
                made.backbone = Preset::Lite2.backbone();
                (80, 40)
            }
            Self::L => {
                made.backbone = Preset::Lite4.backbone();
                (128, 64)
            }
        };
        made.neck = Neck { channels: neck };
        made.segmentation.iter_mut().for_each(|head| head.channels = mask);
        made
    }
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

/// Channels of the stages of a residual network, bottlenecks' inner ones for ResNet-50.
const WIDTHS: [usize; 4] = [64, 128, 256, 512];

/// Mean and standard deviation of ImageNet's colours, 0…255, with which ResNets were trained.
const IMAGENET: ([f32; 3], [f32; 3]) = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]);

impl Preset {
    pub const LITE: [Self; 5] = [Self::Lite0, Self::Lite1, Self::Lite2, Self::Lite3, Self::Lite4];
    pub const RESNET: [Self; 3] = [Self::Resnet18, Self::Resnet34, Self::Resnet50];

    /// The whole backbone.
    pub fn backbone(self) -> Backbone {
        match self {
            Self::Lite0 => lite(1.0, 1.0),
            Self::Lite1 => lite(1.0, 1.1),
            Self::Lite2 => lite(1.1, 1.2),
            Self::Lite3 => lite(1.2, 1.4),
            Self::Lite4 => lite(1.4, 1.8),
            Self::Resnet18 => resnet([2, 2, 2, 2], 1),
            Self::Resnet34 => resnet([3, 4, 6, 3], 1),
            Self::Resnet50 => resnet([3, 4, 6, 3], 4),
        }
    }

    /// The default student's heads on this backbone, with a neck of 96 channels and a mask head of
    /// 48. The input is normalised as for the ImageNet weights.
    pub fn teacher(self) -> Architecture {
        let mut architecture = Architecture::default_student();
        architecture.backbone = self.backbone();
        architecture.neck = Neck { channels: 96 };
        architecture.segmentation.iter_mut().for_each(|head| head.channels = 48);
        if Self::RESNET.contains(&self) {
            architecture.input = Input { mean: IMAGENET.0, std: IMAGENET.1, ..architecture.input };
        }
        architecture
    }
}

/// By the factors on channels and on blocks. The stem keeps its 32 channels, the first and the last
/// stage their one block.
fn lite(width: f64, depth: f64) -> Backbone {
    let last = STAGES.len() - 1;
    let stage = |(i, &(blocks, kernel, stride, expand, channels)): (usize, &(usize, usize, usize, usize, usize))| {
        let repeated = (blocks as f64 * depth).ceil() as usize;
        let blocks = if i == 0 || i == last { blocks } else { repeated };
        BackboneStage { blocks, kernel, stride, expand, channels: round(channels as f64 * width) }
    };
    Backbone {
        family: BackboneFamily::InvertedResidual,
        stem: 32,
        stages: STAGES.iter().enumerate().map(stage).collect(),
    }
}

fn resnet(blocks: [usize; 4], expand: usize) -> Backbone {
    let stage = |(i, (&blocks, &width)): (usize, (&usize, &usize))| BackboneStage {
        blocks,
        kernel: 3,
        stride: if i == 0 { 1 } else { 2 },
        expand,
        channels: width * expand,
    };
    let stages = blocks.iter().zip(&WIDTHS).enumerate().map(stage).collect();
    Backbone { family: BackboneFamily::Residual, stem: 64, stages }
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
        let of = |lite: Preset| {
            let stages = lite.backbone().stages;
            let channels: Vec<usize> = stages.iter().map(|s| s.channels).collect();
            (channels, stages.iter().map(|s| s.blocks).collect::<Vec<_>>())
        };
        assert_eq!(of(Preset::Lite0), (vec![16, 24, 40, 80, 112, 192, 320], vec![1, 2, 2, 3, 3, 4, 1]));
        assert_eq!(of(Preset::Lite2), (vec![16, 24, 48, 88, 120, 208, 352], vec![1, 3, 3, 4, 4, 5, 1]));
        assert_eq!(of(Preset::Lite4), (vec![24, 32, 56, 112, 160, 272, 448], vec![1, 4, 4, 6, 6, 8, 1]));
    }

    #[test]
    fn resnets_have_the_published_numbers_of_parameters() {
        // torchvision's counts without the classifier and batch-norm, whose scale and offset are
        // folded into one bias.
        for (preset, weights, biases) in [
            (Preset::Resnet18, 11_166_912, 4_800),
            (Preset::Resnet34, 21_267_648, 8_512),
            (Preset::Resnet50, 23_454_912, 26_560),
        ] {
            let graph = preset.teacher().graph(64, 64);
            let convs = graph.convs().filter(|(l, conv, _)| l.name.starts_with("backbone.") && !conv.is_channelwise());
            let counted = convs.map(|(_, conv, shape)| {
                let kernel = crate::backbone::StoredKernel::of(&conv).kernel;
                (shape[0] * shape[1] * kernel * kernel, shape[0])
            });
            assert_eq!(counted.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)), (weights, biases), "{preset:?}");
        }
    }

    #[test]
    fn every_teacher_is_a_valid_network_with_the_student_s_outputs() {
        let shapes = |a: &Architecture| {
            let graph = a.graph(64, 64);
            graph.outputs.iter().map(|&o| graph.layers[o].shape).collect::<Vec<_>>()
        };
        for lite in [Preset::LITE.as_slice(), &Preset::RESNET].concat() {
            let teacher = lite.teacher();
            teacher.check().unwrap();
            assert_eq!(shapes(&teacher), shapes(&Architecture::default_student()));
        }
    }
}
