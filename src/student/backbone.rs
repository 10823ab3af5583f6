//! Backbones: what turns an image into maps at strides 4, 8, 16 and 32.
//!
//! Inverted residuals without squeeze-and-excitation (the EfficientNet-Lite family: Tan & Le 2019
//! and its "Lite" release) for students and teachers, and residual networks (He et al. 2015, "Deep
//! Residual Learning", table 1, with the stride in a bottleneck's 3×3, as torchvision has it) for
//! teachers.
//!
//! A graph pads as TensorFlow does, but ResNets were trained with PyTorch's equal padding on both
//! sides. On maps of even size, and here all are, a convolution of kernel k and stride 2 with that
//! padding is *exactly* a "same" one of kernel k + 1 whose last row and column are zero
//! ([`StoredKernel`] says which are so), and a 3×3 max-pooling of stride 2 is one of stride 1 of
//! whose pixels every second is kept. The ReLU after a sum is a channelwise convolution of weight
//! 1.

use peregrine_engine::{Activation, Conv, LayerId, Window};
use serde::{Deserialize, Serialize};

use super::builder::{dense, NetworkBuilder};

/// The deepest stride; input sizes are multiples of it.
pub const MAX_STRIDE: usize = 32;

/// Stem and stages; their strides multiply to [`MAX_STRIDE`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backbone {
    #[serde(default, skip_serializing_if = "BackboneFamily::is_default")]
    pub family: BackboneFamily,
    /// Channels of the first convolution: 3×3, or 7×7 with a 3×3 max-pooling after it in a residual
    /// network; stride 2 each.
    pub stem: usize,
    pub stages: Vec<BackboneStage>,
}

impl Backbone {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What its blocks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackboneFamily {
    /// Expand (1×1), depthwise, project (1×1); ReLU6.
    #[default]
    InvertedResidual,
    /// Two 3×3, or with an `expand` above 1 a bottleneck of 1×1, 3×3 and 1×1; ReLU after each and
    /// after the sum.
    Residual,
}

impl BackboneFamily {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A run of blocks of one width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneStage {
    pub blocks: usize,
    /// Side of the depthwise kernel: 3 or 5; 3 in a residual network.
    pub kernel: usize,
    /// Of the first block: 1 or 2.
    pub stride: usize,
    /// Factor from a block's input channels to its depthwise channels; of a bottleneck, from its
    /// inner channels to `channels`; 1 in a residual network means blocks of two 3×3.
    pub expand: usize,
    pub channels: usize,
}

impl Backbone {
    /// Checks every range; what passes can be lowered.
    ///
    /// # Errors
    /// A sentence naming the field at fault and what it may be.
    pub(super) fn check(&self) -> Result<(), String> {
        let stages = &self.stages;
        if stages.len() > 16
            || stages.iter().any(|s| {
                !(1..=64).contains(&s.blocks)
                    || !(1..=2).contains(&s.stride)
                    || !(1..=8).contains(&s.expand)
                    || !(1..=2048).contains(&s.channels)
            })
        {
            return Err("each of at most 16 backbone.stages needs blocks 1 to 64, stride 1 or 2, expand 1 to 8 and \
                        channels 1 to 2048"
                .into());
        }
        let residual = self.family == BackboneFamily::Residual;
        if residual && stages.iter().any(|s| s.kernel != 3 || s.channels % s.expand != 0) {
            return Err("backbone.stages of a residual network need kernel 3 and channels that expand divides".into());
        }
        let before = if residual { 4 } else { 2 };
        let stride: usize = before * stages.iter().map(|s| s.stride).product::<usize>();
        if stride != MAX_STRIDE {
            return Err(format!(
                "the strides of backbone.stages multiply, with the stem's {before}, to {stride}, not {MAX_STRIDE}"
            ));
        }
        Ok(())
    }

    /// Adds the backbone to a network of an input alone; returns the last layer at each of strides
    /// 4, 8, 16 and 32.
    pub(crate) fn lower(&self, g: &mut NetworkBuilder) -> [LayerId; 4] {
        let (mut x, mut stride) = match self.family {
            BackboneFamily::InvertedResidual => (self.lower_stem(g), 2),
            BackboneFamily::Residual => (self.lower_residual_stem(g), 4),
        };
        let mut last_at = [x; 6];
        let mut from = self.stem;
        for (s, stage) in self.stages.iter().enumerate() {
            for b in 0..stage.blocks {
                let step = if b == 0 { stage.stride } else { 1 };
                let name = format!("backbone.{s}.{b}");
                x = match self.family {
                    BackboneFamily::InvertedResidual => inverted_residual(g, &name, (x, from), stage, step),
                    BackboneFamily::Residual => residual(g, &name, (x, from), stage, step),
                };
                from = stage.channels;
                stride *= step;
                last_at[stride.trailing_zeros() as usize] = x;
            }
        }
        [last_at[2], last_at[3], last_at[4], last_at[5]]
    }

    fn lower_stem(&self, g: &mut NetworkBuilder) -> LayerId {
        g.dense("backbone.stem".into(), 0, self.stem, dense(3, 2, Activation::Relu6))
    }

    fn lower_residual_stem(&self, g: &mut NetworkBuilder) -> LayerId {
        let x = g.dense("backbone.stem".into(), 0, self.stem, centred(7, 2, Activation::Relu));
        let x = g.graph.max_pool("backbone.stem.pool", x, Window::same(3, 1));
        g.graph.max_pool("backbone.stem.even", x, Window::same(1, 2))
    }
}

/// Expand (1×1), depthwise, project (1×1), with a shortcut where the shape stays. `from`: the input
/// and its channels before any pruning, which is what decides on the shortcut.
fn inverted_residual(
    g: &mut NetworkBuilder,
    name: &str,
    (input, from): (LayerId, usize),
    stage: &BackboneStage,
    stride: usize,
) -> LayerId {
    let mut x = input;
    if stage.expand > 1 {
        let expand = dense(1, 1, Activation::Relu6);
        x = g.dense(format!("{name}.expand"), x, from * stage.expand, expand);
    }
    x = g.depthwise(format!("{name}.depthwise"), x, (stage.kernel, stride), Activation::Relu6);
    x = g.dense(format!("{name}.project"), x, stage.channels, dense(1, 1, Activation::Identity));
    if stride == 1 && from == stage.channels {
        x = g.graph.add(format!("{name}.add"), input, x);
    }
    x
}

/// A basic block or a bottleneck, its shortcut a 1×1 convolution where the shape changes.
fn residual(
    g: &mut NetworkBuilder,
    name: &str,
    (input, from): (LayerId, usize),
    stage: &BackboneStage,
    stride: usize,
) -> LayerId {
    let BackboneStage { channels, expand, .. } = *stage;
    let mut conv = |i: usize, x, channels, conv| g.dense(format!("{name}.conv{i}"), x, channels, conv);
    let last = if expand == 1 {
        let x = conv(1, input, channels, centred(3, stride, Activation::Relu));
        conv(2, x, channels, dense(3, 1, Activation::Identity))
    } else {
        let x = conv(1, input, channels / expand, dense(1, 1, Activation::Relu));
        let x = conv(2, x, channels / expand, centred(3, stride, Activation::Relu));
        conv(3, x, channels, dense(1, 1, Activation::Identity))
    };
    let shortcut = if stride == 1 && from == channels {
        input
    } else {
        g.dense(format!("{name}.shortcut"), input, channels, dense(1, stride, Activation::Identity))
    };
    let sum = g.graph.add(format!("{name}.add"), shortcut, last);
    g.depthwise(format!("{name}.relu"), sum, (1, 1), Activation::Relu)
}
/// A dense convolution with PyTorch's padding of (kernel − 1) / 2 on both sides, for maps of even
/// size.
fn centred(kernel: usize, stride: usize, activation: Activation) -> Conv {
    dense(StoredKernel { kernel, stride }.side(), stride, activation)
}

/// How the kernels of a residual network lie in this project's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredKernel {
    pub kernel: usize,
    pub stride: usize,
}

impl StoredKernel {
    /// That of a convolution of a residual network, from its side here.
    pub fn of(conv: &Conv) -> Self {
        let kernel = if conv.stride == 2 && conv.kernel > 1 { conv.kernel - 1 } else { conv.kernel };
        Self { kernel, stride: conv.stride }
    }

    /// Its side here.
    pub fn side(self) -> usize {
        if self.stride == 2 && self.kernel > 1 {
            self.kernel + 1
        } else {
            self.kernel
        }
    }

    /// Filters `[…, kernel, kernel]` as `[…, side, side]`.
    pub fn store(self, filters: &[f32]) -> Vec<f32> {
        let (kernel, side) = (self.kernel, self.side());
        let mut stored = vec![0.0; filters.len() / (kernel * kernel) * side * side];
        for (from, to) in filters.chunks_exact(kernel * kernel).zip(stored.chunks_exact_mut(side * side)) {
            for (from, to) in from.chunks_exact(kernel).zip(to.chunks_exact_mut(side)) {
                to[..kernel].copy_from_slice(from);
            }
        }
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strided_kernel_gets_a_last_row_and_column_of_zeros() {
        let three = StoredKernel { kernel: 3, stride: 2 };
        let ones = three.store(&[1.0; 18]);
        let expected = [1., 1., 1., 0., 1., 1., 1., 0., 1., 1., 1., 0., 0., 0., 0., 0.];
        assert_eq!(ones, [expected, expected].concat());
        assert_eq!(StoredKernel::of(&centred(3, 2, Activation::Relu)), three);
        assert_eq!(StoredKernel { kernel: 1, stride: 2 }.store(&[3.0]), [3.0]);
        assert_eq!(StoredKernel { kernel: 3, stride: 1 }.store(&[2.0; 9]), [2.0; 9]);
    }
}
