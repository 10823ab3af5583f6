//! The arguments of the kernels, field for field as in `kernels/*.cu`. Addresses are the device's;
//! 0 stands for none.
//!
//! The sources check the sizes and the offset of every field
//! ([`Module::source`](super::kernels::Module::source)).

use crate::{kernel_arguments, Activation};

kernel_arguments! {
    /// A window that moves over a map: what the arguments of all layers that have one begin with.
    pub struct Window {
        pub in_height: i32,
        pub in_width: i32,
        pub in_pitch: i32,
        pub out_height: i32,
        pub out_width: i32,
        pub out_pitch: i32,
        /// Of the result.
        pub pixels: i32,
        pub kernel: i32,
        pub stride: i32,
        pub pad_top: i32,
        pub pad_left: i32,
        /// What follows, by its number; of no effect on bytes.
        pub activation: i32,
    }

    /// A tensor that is added to a result.
    pub struct Residual {
        pub values: u64,
        pub pitch: i32,
        /// Of the map that is read through an upsampling by two; 0 where it is read as it is.
        pub width: i32,
    }

    /// Of an output channel of a quantized convolution.
    pub struct Channel {
        /// Minus the input's zero point times the sum of the weights.
        pub correction: i32,
        pub factor: f32,
        pub offset: f32,
        pub unused: i32,
    }

    /// What becomes of a quantized step's sums:
    /// [`Requantization`](crate::quantization::Requantization).
    pub struct Requantization {
        pub low: f32,
        pub high: f32,
        pub residual_zero: i32,
        pub residual_factor: f32,
        /// 0 where the result is real, in half precision.
        pub to_bytes: i32,
        /// Four times the input's zero point.
        pub fill: u32,
        /// One that is computed in real numbers, by its number; 0 for none.
        pub activation: i32,
        /// What brings its result to the output's scale.
        pub late_factor: f32,
        pub late_zero: f32,
        pub unused: i32,
    }

    /// A dense convolution.
    pub struct Convolution {
        pub window: Window,
        pub input: u64,
        pub weights: u64,
        /// Biases, or of bytes [`Channel`]s.
        pub constants: u64,
        pub residual: Residual,
        pub output: u64,
        /// Where results beyond the range of half precision are counted.
        pub saturated: u64,
        pub quantized: Requantization,
        pub channels_in: i32,
        pub channels_out: i32,
        pub chunks: i32,
        pub unused: i32,
    }

    /// A depthwise convolution in half precision.
    pub struct Depthwise {
        pub window: Window,
        pub input: u64,
        pub weights: u64,
        pub bias: u64,
        pub residual: Residual,
        pub output: u64,
        /// Where results beyond the range of half precision are counted.
        pub saturated: u64,
        pub channels: i32,
        pub unused: i32,
    }

    /// The first convolution, of an image, in half precision.
    pub struct Stem {
        pub window: Window,
        pub input: u64,
        pub weights: u64,
        pub bias: u64,
        pub output: u64,
        /// Where results beyond the range of half precision are counted.
        pub saturated: u64,
        pub channels: i32,
        pub written: i32,
    }

    /// Planar single precision to or from channels-last half precision.
    pub struct Repack {
        pub planar: u64,
        pub packed: u64,
        pub channels: i32,
        pub pixels: i32,
        pub pitch: i32,
        pub unused: i32,
    }

    /// The sum of one or two operands in half precision.
    pub struct Sum {
        pub a: Residual,
        pub b: Residual,
        pub output: u64,
        /// Where results beyond the range of half precision are counted.
        pub saturated: u64,
        pub width: i32,
        pub pixels: i32,
        pub pitch: i32,
        pub channels: i32,
    }

    /// The largest value or the mean of each window.
    pub struct Pool {
        pub window: Window,
        pub input: u64,
        pub output: u64,
        pub channels: i32,
        pub unused: i32,
    }

    /// The mean of each channel.
    pub struct GlobalAverage {
        pub input: u64,
        pub output: u64,
        pub pixels: i32,
        pub pitch: i32,
    }

    /// A bilinear upsampling by two, of either element.
    pub struct Bilinear {
        pub input: u64,
        pub output: u64,
        pub in_height: i32,
        pub in_width: i32,
        pub in_pitch: i32,
        pub out_pitch: i32,
        pub channels: i32,
        pub unused: i32,
    }

    /// Each value times its channel's factor, then an activation.
    pub struct Elementwise {
        pub input: u64,
        /// One pixel; 0 for none.
        pub factors: u64,
        pub output: u64,
        /// Where results beyond the range of half precision are counted.
        pub saturated: u64,
        pub pixels: i32,
        pub in_pitch: i32,
        pub out_pitch: i32,
        pub channels: i32,
        pub activation: i32,
        pub unused: i32,
    }

    /// A part of a concatenation, of either element.
    pub struct Part {
        pub input: u64,
        pub output: u64,
        pub pixels: i32,
        pub in_pitch: i32,
        pub out_pitch: i32,
        pub channels: i32,
        pub written: i32,
        pub unused: i32,
    }

    /// Where a channel of a gathered tensor is found.
    pub struct Source {
        /// Bytes from the arena's first; negative where there is none, and zeros are written.
        pub at: i64,
        pub pitch: i32,
        pub unused: i32,
    }

    /// Channels of any tensors in any order, of either element.
    pub struct Gather {
        pub arena: u64,
        pub sources: u64,
        pub output: u64,
        pub pixels: i32,
        pub pitch: i32,
        pub channels: i32,
        pub unused: i32,
    }

    /// A depthwise convolution of bytes.
    pub struct IntegerDepthwise {
        pub window: Window,
        pub input: u64,
        pub weights: u64,
        pub channels: u64,
        pub residual: Residual,
        pub output: u64,
        pub quantized: Requantization,
        pub written: i32,
        pub weight_pitch: i32,
    }

    /// The first convolution, of an image in bytes.
    pub struct IntegerStem {
        pub window: Window,
        pub input: u64,
        pub weights: u64,
        pub constants: u64,
        pub output: u64,
        pub quantized: Requantization,
        pub channels: i32,
        pub written: i32,
    }

    /// The sum of one or two operands in bytes.
    pub struct IntegerSum {
        pub a: Residual,
        pub b: Residual,
        pub output: u64,
        pub width: i32,
        pub pixels: i32,
        pub pitch: i32,
        pub channels: i32,
        pub a_zero: i32,
        pub b_zero: i32,
        pub a_factor: f32,
        pub b_factor: f32,
        pub zero: i32,
        pub unused: i32,
    }

    /// The largest byte or the mean of each window; the last three of means alone.
    pub struct IntegerPool {
        pub window: Window,
        pub input: u64,
        pub output: u64,
        pub channels: i32,
        pub in_zero: i32,
        pub factor: f32,
        pub zero: f32,
    }

    /// The mean of each channel in bytes.
    pub struct IntegerGlobalAverage {
        pub input: u64,
        pub output: u64,
        pub pixels: i32,
        pub pitch: i32,
        pub in_zero: i32,
        pub factor: f32,
        pub zero: f32,
        pub unused: i32,
    }

    /// Each channel in bytes times its factor.
    pub struct IntegerScaling {
        pub input: u64,
        pub factors: u64,
        pub output: u64,
        pub pixels: i32,
        pub in_pitch: i32,
        pub out_pitch: i32,
        pub channels: i32,
        pub in_zero: i32,
        pub factors_zero: i32,
        pub factor: f32,
        pub zero: f32,
    }

    /// What a table says of each byte.
    pub struct Lookup {
        pub input: u64,
        pub table: u64,
        pub output: u64,
        pub pixels: i32,
        pub in_pitch: i32,
        pub out_pitch: i32,
        pub channels: i32,
    }

    /// A tensor to bytes, or from bytes.
    pub struct Convert {
        pub input: u64,
        pub output: u64,
        pub pixels: i32,
        pub in_pitch: i32,
        pub out_pitch: i32,
        pub channels: i32,
        pub written: i32,
        pub scale: f32,
        pub zero: i32,
        pub unused: i32,
    }

    /// Planar single precision to channels-last bytes.
    pub struct PackBytes {
        pub planar: u64,
        pub packed: u64,
        pub channels: i32,
        pub pixels: i32,
        pub pitch: i32,
        pub scale: f32,
        pub zero: i32,
        pub unused: i32,
    }

    /// An image to the network's input.
    pub struct LetterboxImage {
        pub image: u64,
        pub columns: u64,
        pub rows: u64,
        pub output: u64,
        pub candidates: u64,
        /// The count of results beyond the range of half precision, and where it is put down.
        pub saturated: u64,
        pub saturated_so_far: u64,
        pub row_bytes: i32,
        pub column_taps: i32,
        pub row_taps: i32,
        pub source_width: i32,
        pub source_height: i32,
        pub width: i32,
        pub height: i32,
        pub left: i32,
        pub top: i32,
        pub content_width: i32,
        pub content_height: i32,
        pub pitch: i32,
        /// 0: interleaved; 1: pairs of pixels share chroma; 2: planes; 3: a Bayer mosaic.
        pub form: i32,
        pub numbers: i32,
        pub at: [i32; 3],
        pub chroma_bytes: i32,
        pub halved: i32,
        pub by_turns: i32,
        pub wide: i32,
        pub big_endian: i32,
        pub white: i32,
        pub shift: i32,
        pub white_factor: i32,
        pub black: f32,
        pub luma: f32,
        pub chroma: [f32; 4],
        pub factor: [f32; 3],
        pub offset: [f32; 3],
        /// Of the output's bytes; 0 where it is in half precision.
        pub scale: f32,
        pub zero: i32,
        pub unused: i32,
    }

    /// Travels in front of each image.
    pub struct FrameHeader {
        /// Least logit of a detection, exclusive.
        pub logit: f32,
        /// Of two boxes of one class.
        pub iou: f32,
        pub cross_class_iou: f32,
        pub unused: i32,
    }

    /// A level of the detection head.
    pub struct Level {
        pub classes: u64,
        pub box_distribution: u64,
        pub class_pitch: i32,
        pub distribution_pitch: i32,
        pub width: i32,
        pub cells: i32,
        pub stride: i32,
        pub first: i32,
    }

    /// All levels of the detection head to boxes.
    pub struct Decode {
        pub levels: [Level; 3],
        pub header: u64,
        pub keys: u64,
        pub counter: u64,
        pub result: u64,
        pub classes: i32,
        pub bins: i32,
        pub places: i32,
        pub most: i32,
        pub scale: [f32; 2],
        pub pad: [f32; 2],
        pub source: [f32; 2],
    }

    /// The segmentation head's logits to a mask.
    pub struct Mask {
        pub logits: u64,
        pub columns: u64,
        pub rows: u64,
        pub output: u64,
        pub pitch: i32,
        pub classes: i32,
        pub map_width: i32,
        pub width: i32,
        pub height: i32,
        pub unused: i32,
    }

    /// What a result begins with; as many [`Found`] as `count` follow.
    pub struct ResultHeader {
        pub count: u32,
        /// Above the threshold, before suppression.
        pub candidates: u32,
        pub unused: [u32; 2],
    }

    /// One object of a result, in source pixels.
    pub struct Found {
        /// Its class.
        pub label: u32,
        pub score: f32,
        pub bbox: [f32; 4],
    }
}

/// The number by which the kernels know an activation, as common.cuh has it.
pub const fn number(activation: Activation) -> i32 {
    match activation {
        Activation::Identity => 0,
        Activation::Relu6 => 1,
        Activation::Silu => 2,
        Activation::Hardswish => 3,
        Activation::LeakyRelu => 4,
        Activation::Relu => 5,
        Activation::Sigmoid => 6,
        Activation::Hardsigmoid => 7,
    }
}
