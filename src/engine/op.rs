//! The operations of a network: what every engine, the trainer and the exporter know.
//!
//! The vocabulary is deliberately small: all that our own students contain folds into convolution +
//! bias + activation, an addition, a nearest upsampling or a concatenation, so that each engine
//! needs few kernels. ReLU and pooling are there for ResNet teachers, the rest for networks that
//! are imported.

use serde::{Deserialize, Serialize};

/// What follows a convolution's bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x itself.
    Identity,
    /// min(max(x, 0), 6): bounded, so that it quantizes well, and free of transcendental functions.
    Relu6,
    /// max(x, 0), as ResNets have it.
    Relu,
    /// x / (1 + e⁻ˣ) (Elfwing et al. 2017), as the YOLO family has it.
    Silu,
    /// x · min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, MobileNetV3).
    Hardswish,
    /// max(x, [`LEAK`] · x).
    LeakyRelu,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// min(max(x / 6 + 1 / 2, 0), 1), the gate of MobileNetV3.
    Hardsigmoid,
}

/// Slope of [`Activation::LeakyRelu`] below zero: NanoDet's and Darknet's.
pub const LEAK: f32 = 0.1;

impl Activation {
    /// The activation's definition; engines may approximate it as their documentation says.
    pub fn apply(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Relu => x.max(0.0),
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::Hardswish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Self::LeakyRelu => x.max(LEAK * x),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Hardsigmoid => (x / 6.0 + 0.5).clamp(0.0, 1.0),
        }
    }
}

/// What a [`Window`] finds beyond the edges of its input: how much of it, and where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// TensorFlow's rule: output = ⌈input / stride⌉, and the smaller half of the padding
    /// max((output − 1) · stride + kernel − input, 0) comes first. Students have it, since the
    /// ImageNet weights that their backbones start from were trained with it.
    #[default]
    Same,
    /// PyTorch's custom: ⌊(kernel − 1) / 2⌋ on both sides, output = ⌊(input + 2 · padding − kernel)
    /// / stride⌋ + 1. Imported networks have it.
    Even,
}

/// A square window that moves over a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// Its side, at least 1.
    pub kernel: usize,
    /// From one output pixel to the next, in input pixels, both ways; at least 1.
    pub stride: usize,
    /// What it finds beyond the edges.
    #[serde(default)]
    pub padding: Padding,
}

impl Window {
    /// With [`Padding::Same`].
    pub const fn same(kernel: usize, stride: usize) -> Self {
        Self { kernel, stride, padding: Padding::Same }
    }

    /// With [`Padding::Even`].
    pub const fn even(kernel: usize, stride: usize) -> Self {
        Self { kernel, stride, padding: Padding::Even }
    }

    /// Output rows (or columns) over an input of `size` rows (or columns), at least 1; 0 where the
    /// window does not fit.
    pub fn output(self, size: usize) -> usize {
        match self.padding {
            Padding::Same => size.div_ceil(self.stride),
            Padding::Even => match (size + 2 * self.before(size)).checked_sub(self.kernel) {
                Some(moves) => moves / self.stride + 1,
                None => 0,
            },
        }
    }

    /// Padding before the first of `size` rows (or columns).
    pub fn before(self, size: usize) -> usize {
        match self.padding {
            Padding::Same => self.beyond(size) / 2,
            Padding::Even => (self.kernel - 1) / 2,
        }
    }

    /// Padding before the first and after the last of `size` rows (or columns).
    pub fn around(self, size: usize) -> (usize, usize) {
        let before = self.before(size);
        match self.padding {
            Padding::Same => (before, self.beyond(size) - before),
            Padding::Even => {
                (before, ((self.output(size) - 1) * self.stride + self.kernel).saturating_sub(before + size))
            }
        }
    }

    /// The input rows (or columns), of `size`, under output row (or column) `at`: at least one.
    pub fn span(self, at: usize, size: usize) -> std::ops::Range<usize> {
        let before = self.before(size);
        (at * self.stride).saturating_sub(before)..(at * self.stride + self.kernel - before).min(size)
    }

    /// All padding of `size` rows (or columns) by [`Padding::Same`].
    fn beyond(self, size: usize) -> usize {
        ((size.div_ceil(self.stride) - 1) * self.stride + self.kernel).saturating_sub(size)
    }
}

/// A convolution with its activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// Side of the square kernel, at least 1.
    pub kernel: usize,
    /// From one output pixel to the next, in input pixels, both ways; at least 1.
    pub stride: usize,
    /// One filter a channel (groups = channels); otherwise dense (groups = 1).
    pub depthwise: bool,
    /// What follows the bias.
    pub activation: Activation,
    /// Zeros around the input.
    #[serde(default)]
    pub padding: Padding,
}

impl Conv {
    /// Whether this is but a scale, an offset and an activation for each channel: how a student
    /// writes an activation by itself, after a sum.
    pub fn is_channelwise(&self) -> bool {
        self.depthwise && self.kernel == 1 && self.stride == 1
    }

    /// The window that its filters see.
    pub fn window(&self) -> Window {
        Window { kernel: self.kernel, stride: self.stride, padding: self.padding }
    }

    /// Zeros before the first row (or column) of an input of `size` rows (or columns).
    pub fn pad_before(&self, size: usize) -> usize {
        self.window().before(size)
    }
}

/// Where the values of a larger map come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Pixel (y, x) is the input's (⌊y / 2⌋, ⌊x / 2⌋).
    Nearest,
    /// Between pixel centres ("half-pixel"), edges repeated: along each axis ¾ of the input pixel
    /// that an output pixel lies in and ¼ of the neighbour on its side.
    Bilinear,
}

/// One operation; its operands are the layers that [`Layer::inputs`](crate::Layer::inputs) names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// The normalised image, planar RGB. Always and only layer 0.
    Input,
    /// A convolution, its bias and its activation.
    Conv(Conv),
    /// Sum of two equal shapes.
    Add,
    /// Upsampling by two in both directions.
    Upsample2x(Interpolation),
    /// Concatenation along channels.
    Concat,
    /// The largest value under each window; padding never wins.
    MaxPool(Window),
    /// The mean of the values under each window; padding does not count.
    AveragePool(Window),
    /// The mean of each channel: `[c, h, w]` → `[c, 1, 1]`.
    GlobalAverage,
    /// `[c, h, w]` and `[c, 1, 1]`: each channel of the first, times its value in the second
    /// (squeeze-and-excitation, Hu et al. 2018).
    Scale,
    /// An activation that stands alone.
    Activate(Activation),
    /// As many channels as the layer's shape says, from `first` on.
    Slice {
        /// The first channel.
        first: usize,
    },
    /// Channel c·groups + g is the input's channel g·(channels / groups) + c (Zhang et al. 2017,
    /// ShuffleNet).
    Shuffle {
        /// A divisor of the number of channels.
        groups: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_puts_the_smaller_half_first() {
        let before = |kernel, stride, size| Window::same(kernel, stride).before(size);
        assert_eq!(before(3, 1, 7), 1);
        assert_eq!(before(3, 2, 8), 0);
        assert_eq!(before(3, 2, 7), 1);
        assert_eq!(before(5, 2, 8), 1);
        assert_eq!(before(1, 1, 8), 0);
    }

    #[test]
    fn even_padding_is_what_pytorch_computes() {
        // (kernel, stride, size) → output and padding of torch.nn.Conv2d(…, padding=(kernel - 1) // 2).
        let cases = [
            ((3, 2, 8), 4, (1, 0)),
            ((3, 2, 7), 4, (1, 1)),
            ((3, 1, 5), 5, (1, 1)),
            ((6, 2, 16), 8, (2, 2)),
            ((6, 2, 15), 7, (2, 1)),
            ((2, 2, 7), 3, (0, 0)),
            ((1, 2, 8), 4, (0, 0)),
            ((5, 3, 10), 4, (2, 2)),
        ];
        for ((kernel, stride, size), output, around) in cases {
            let window = Window::even(kernel, stride);
            assert_eq!((window.output(size), window.around(size)), (output, around), "{kernel} / {stride} over {size}");
            assert!((0..output).all(|at| !window.span(at, size).is_empty()));
        }
        assert_eq!(Window::even(4, 1).output(1), 0);
    }
}
