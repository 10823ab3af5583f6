//! The arguments of the training kernels, field for field as in `kernels/*.cu`. Addresses are the
//! device's; 0 stands for none. The sources check size and offset of every field.

use peregrine_engine::{kernel_arguments, Shape, Window};

/// A size that the kernels count in 32 bits, as [`Layout`](super::layout::Layout) checks.
pub fn int(n: usize) -> i32 {
    i32::try_from(n).expect("checked when the network was laid out")
}

kernel_arguments! {
    /// A window over the maps of a batch.
    pub struct Windowed {
        pub images: i32,
        pub in_height: i32,
        pub in_width: i32,
        pub in_channels: i32,
        pub out_height: i32,
        pub out_width: i32,
        pub out_channels: i32,
        pub kernel: i32,
        pub stride: i32,
        pub pad_top: i32,
        pub pad_left: i32,
        /// Whether a result is added to what is there.
        pub keep: i32,
    }

    /// A convolution, dense or depthwise.
    pub struct Forward {
        pub window: Windowed,
        pub input: u64,
        pub weights: u64,
        pub bias: u64,
        pub output: u64,
        pub alone: u64,
        pub activation: i32,
        pub unused: i32,
    }

    /// The gradient of a convolution's input.
    pub struct InputGradient {
        pub window: Windowed,
        pub gradient: u64,
        pub weights: u64,
        pub result: u64,
    }

    /// The gradient of a convolution's weights, in parts.
    pub struct WeightGradient {
        pub window: Windowed,
        pub input: u64,
        pub gradient: u64,
        pub partial: u64,
        pub chunk: i32,
        pub unused: i32,
    }

    /// Sums parts.
    pub struct Reduce {
        pub partial: u64,
        pub sums: u64,
        pub count: i32,
        pub parts: i32,
    }

    /// Batch-norm and activation.
    pub struct Norm {
        pub z: u64,
        pub y: u64,
        pub gradient: u64,
        pub gamma: u64,
        pub beta: u64,
        pub running: u64,
        pub affine: u64,
        pub partial: u64,
        pub means: u64,
        pub d_gamma: u64,
        pub d_beta: u64,
        /// Of the whole batch.
        pub pixels: i32,
        pub channels: i32,
        pub chunk: i32,
        pub chunks: i32,
        pub activation: i32,
        pub stay: i32,
    }

    /// Between planar and packed values.
    pub struct Repack {
        pub planar: u64,
        pub packed: u64,
        pub factor: u64,
        pub images: i32,
        pub channels: i32,
        /// Of an image.
        pub pixels: i32,
        pub keep: i32,
    }

    /// Value by value.
    pub struct Elementwise {
        pub first: u64,
        pub second: u64,
        pub result: u64,
        pub count: i64,
        pub activation: i32,
        pub keep: i32,
    }

    /// Channels of one tensor to channels of another.
    pub struct Select {
        pub input: u64,
        pub result: u64,
        /// Of the whole batch.
        pub pixels: i32,
        pub channels: i32,
        pub in_channels: i32,
        pub out_channels: i32,
        pub groups: i32,
        pub keep: i32,
    }

    /// Upsampling by two.
    pub struct Upsample {
        pub input: u64,
        pub result: u64,
        pub images: i32,
        pub height: i32,
        pub width: i32,
        pub channels: i32,
        pub bilinear: i32,
        pub keep: i32,
    }

    /// A factor for each channel of each image.
    pub struct Scale {
        pub input: u64,
        pub factors: u64,
        pub result: u64,
        pub images: i32,
        /// Of an image.
        pub pixels: i32,
        pub channels: i32,
        pub keep: i32,
    }

    /// A maximum or a mean over windows.
    pub struct Pool {
        pub window: Windowed,
        pub input: u64,
        pub result: u64,
        pub largest: u64,
    }

    /// A sum over each image, or a value for each image.
    pub struct Whole {
        pub first: u64,
        pub second: u64,
        pub result: u64,
        pub factor: f32,
        pub images: i32,
        /// Of an image.
        pub pixels: i32,
        pub channels: i32,
        pub keep: i32,
        pub unused: i32,
    }

    /// A part of an input, and the image that it shows.
    pub struct PictureTile {
        pub pixels: u64,
        pub width: i32,
        pub height: i32,
        pub origin: [f32; 2],
        pub step: [f32; 2],
        pub taps: [i32; 2],
        pub saturation: f32,
        pub gain: f32,
        pub offset: f32,
        pub left: i32,
        pub top: i32,
        pub right: i32,
        pub bottom: i32,
        pub unused: i32,
    }

    /// An input: its tiles, and those that are blended in.
    pub struct Picture {
        pub tiles: i32,
        pub blended: i32,
        pub share: f32,
        pub unused: i32,
        pub tile: [PictureTile; 8],
    }

    /// Renders the inputs of a batch.
    pub struct Pictures {
        pub pictures: u64,
        pub planar: u64,
        pub mean: [f32; 3],
        pub std: [f32; 3],
        pub images: i32,
        pub height: i32,
        pub width: i32,
        pub unused: i32,
    }

    /// What changes from step to step.
    pub struct Step {
        /// With AdamW divided by 1 − β₁ᵗ.
        pub rate: f32,
        /// With AdamW times the rate.
        pub decay: f32,
        /// 1 / √(1 − β₂ᵗ).
        pub root: f32,
        pub momentum: f32,
        pub clip: f32,
        /// Of the moving average.
        pub keep: f32,
        /// By which the gradients are too large.
        pub loss_scale: f32,
        pub unused: f32,
    }

    /// What came of a step.
    pub struct Outcome {
        /// Of the gradients, before clipping.
        pub norm: f32,
        pub scale: f32,
        /// 1 where the norm is finite.
        pub sound: f32,
        pub unused: f32,
    }

    /// Of a block of parameters.
    pub struct Group {
        /// Factor on the learning rate.
        pub rate: f32,
        /// Factor on the decay.
        pub decay: f32,
    }

    /// The update of all parameters.
    pub struct Update {
        pub values: u64,
        pub gradients: u64,
        pub first: u64,
        pub second: u64,
        pub average: u64,
        pub groups: u64,
        pub step: u64,
        pub partial: u64,
        pub outcome: u64,
        pub loss: u64,
        pub count: i64,
        pub follows: i64,
        pub chunk: i32,
        pub parts: i32,
    }

    /// What is done to each value of a loss's tensors.
    pub struct Pointwise {
        pub result: u64,
        pub numbers: u64,
        pub inputs: [u64; 6],
        /// In values; 0 along an axis where one value stands for all.
        pub strides: [[i32; 4]; 6],
        pub sizes: [i32; 4],
        pub result_strides: [i32; 4],
        pub count: i32,
        pub inputs_used: i32,
        pub instructions_used: i32,
        pub unused: i32,
        /// Operation, two registers, index of the first number.
        pub instructions: [[u16; 4]; 24],
    }

    /// A sum or the largest along an axis.
    pub struct Along {
        pub input: u64,
        pub result: u64,
        pub outer: i32,
        pub n: i32,
        pub inner: i32,
        pub chunk: i32,
        pub chunks: i32,
        pub largest: i32,
    }

    /// Rows of values.
    pub struct Rows {
        pub input: u64,
        pub result: u64,
        pub rows: i32,
        pub n: i32,
    }

    /// Parts of an axis, gathered or scattered.
    pub struct Parts {
        pub input: u64,
        pub result: u64,
        pub index: u64,
        pub starts: u64,
        pub outer: i32,
        pub n: i32,
        pub inner: i32,
        pub parts: i32,
    }

    /// A product of matrices.
    pub struct Product {
        pub first: u64,
        pub second: u64,
        pub result: u64,
        pub first_strides: [i32; 3],
        pub second_strides: [i32; 3],
        pub batch: i32,
        pub m: i32,
        pub k: i32,
        pub n: i32,
    }
}

impl Windowed {
    /// `window` over `images` maps, from shape `input` to `output`.
    pub fn new(images: usize, window: Window, input: Shape, output: Shape) -> Self {
        Self {
            images: int(images),
            in_height: int(input.height),
            in_width: int(input.width),
            in_channels: int(input.channels),
            out_height: int(output.height),
            out_width: int(output.width),
            out_channels: int(output.channels),
            kernel: int(window.kernel),
            stride: int(window.stride),
            pad_top: int(window.before(input.height)),
            pad_left: int(window.before(input.width)),
            keep: 0,
        }
    }

    /// The same, adding to what is there.
    pub fn keeping(self, keep: bool) -> Self {
        Self { keep: i32::from(keep), ..self }
    }
}
