//! The variants of the kernels: the shape of a block, or what a thread computes, and their names.

/// What the values of a tensor are, and what a dense convolution multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Element {
    /// Half precision.
    F16,
    /// Bytes without sign, and weights with sign.
    I8,
}

impl Element {
    /// Of one value.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::I8 => 1,
        }
    }

    /// Name in a kernel's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::I8 => "i8",
        }
    }

    /// Channels that a lane loads at once (16 bytes). Channels of a tensor are padded to a multiple
    /// of it.
    pub const fn per_lane(self) -> usize {
        16 / self.bytes()
    }

    /// Channels of one step along the depth of the product (64 bytes).
    pub const fn chunk(self) -> usize {
        64 / self.bytes()
    }
}

/// The shape of a block of the dense convolution; see `kernels/convolution.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Tile {
    /// Tensor-core tiles of 16 pixels that a warp computes.
    pub rows: usize,
    /// Tensor-core tiles of 8 channels that a warp computes.
    pub columns: usize,
    /// Warps along the pixels, the output channels and the depth.
    pub warps: [usize; 3],
}

const fn tile(rows: usize, columns: usize, warps: [usize; 3]) -> Tile {
    Tile { rows, columns, warps }
}

impl Tile {
    /// For pointwise convolutions in half precision, by rising size.
    pub const POINT_F16: [Self; 16] = [
        tile(1, 1, [1, 1, 4]),
        tile(1, 1, [1, 4, 1]),
        tile(1, 1, [4, 1, 1]),
        tile(1, 2, [1, 1, 4]),
        tile(1, 2, [1, 1, 8]),
        tile(1, 2, [2, 2, 1]),
        tile(1, 4, [1, 1, 4]),
        tile(1, 4, [1, 1, 8]),
        tile(1, 4, [1, 3, 1]),
        tile(1, 6, [2, 1, 1]),
        tile(1, 6, [4, 1, 1]),
        tile(1, 4, [4, 1, 1]),
        tile(2, 4, [1, 1, 4]),
        tile(2, 2, [2, 2, 1]),
        tile(2, 4, [2, 2, 1]),
        tile(2, 4, [4, 2, 1]),
    ];
    /// For those over several pixels, of which today's students are made.
    pub const TAPS_F16: [Self; 5] = [
        tile(1, 2, [1, 1, 4]),
        tile(1, 2, [1, 1, 8]),
        tile(1, 4, [1, 1, 4]),
        tile(2, 4, [1, 1, 4]),
        tile(2, 4, [2, 2, 1]),
    ];
    /// For pointwise convolutions in bytes.
    pub const POINT_I8: [Self; 3] = [tile(1, 2, [1, 1, 4]), tile(1, 4, [4, 1, 1]), tile(2, 4, [2, 2, 1])];
    /// For those over several pixels in bytes.
    pub const TAPS_I8: [Self; 4] =
        [tile(1, 2, [1, 1, 4]), tile(1, 4, [1, 1, 4]), tile(2, 4, [1, 1, 4]), tile(2, 4, [2, 2, 1])];

    /// The variants to choose from.
    pub fn choices(element: Element, point: bool) -> &'static [Self] {
        match (element, point) {
            (Element::F16, true) => &Self::POINT_F16,
            (Element::F16, false) => &Self::TAPS_F16,
            (Element::I8, true) => &Self::POINT_I8,
            (Element::I8, false) => &Self::TAPS_I8,
        }
    }

    /// Pixels of a block.
    pub const fn pixels(&self) -> usize {
        16 * self.rows * self.warps[0]
    }

    /// Channels of a block.
    pub const fn channels(&self) -> usize {
        self.warp_channels() * self.warps[1]
    }

    /// Channels of a warp.
    pub const fn warp_channels(&self) -> usize {
        8 * self.columns
    }

    /// Threads of a block.
    pub const fn threads(&self) -> u32 {
        32 * (self.warps[0] * self.warps[1] * self.warps[2]) as u32
    }

    /// Name of the kernel of this shape, such as `point_f16_16x32_k4`.
    pub fn kernel(&self, element: Element, point: bool) -> String {
        let kind = if point { "point" } else { "taps" };
        let Self { rows, columns, warps: [m, n, k] } = self;
        format!("{kind}_{}_{}x{}_w{rows}x{columns}_{m}{n}{k}", element.name(), self.pixels(), self.channels())
    }
}

/// What a thread of a depthwise kernel filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct FilterRun {
    /// Neighbouring output pixels.
    pub columns: usize,
    /// Neighbouring channels.
    pub channels: usize,
}

const fn run(columns: usize, channels: usize) -> FilterRun {
    FilterRun { columns, channels }
}

impl FilterRun {
    const SIZES: [(usize, usize); 4] = [(3, 1), (3, 2), (5, 1), (5, 2)];
    const F16: [Self; 6] = [run(1, 2), run(2, 2), run(1, 4), run(2, 4), run(2, 8), run(4, 8)];
    const I8: [Self; 3] = [run(1, 8), run(2, 8), run(4, 8)];
    const ANY: [Self; 1] = [run(1, 8)];
    /// Channels of a block.
    const SLICE: usize = 32;

    /// Blocks for `channels` channels of `width` × `height` pixels: tiles, and slices of channels
    /// (`Filtered` in kernels/common.cuh).
    pub fn blocks(&self, channels: usize, width: usize, height: usize) -> [usize; 2] {
        let items = THREADS as usize / (Self::SLICE / self.channels);
        let rows = if items < 16 { 2 } else { 4 };
        let tiles = width.div_ceil(items / rows * self.columns) * height.div_ceil(rows);
        [tiles, channels.div_ceil(Self::SLICE)]
    }

    /// The variants for a kernel of `kernel` × `kernel` and `stride`.
    pub fn choices(element: Element, kernel: usize, stride: usize) -> &'static [Self] {
        match element {
            _ if !Self::SIZES.contains(&(kernel, stride)) => &Self::ANY,
            Element::F16 => &Self::F16,
            Element::I8 => &Self::I8,
        }
    }

    /// Name of the kernel, such as `depthwise_f16_5_s1_x4_c8`; `depthwise_f16_any` for sizes that
    /// have none of their own.
    pub fn kernel(&self, element: Element, kernel: usize, stride: usize) -> String {
        let (Self { columns, channels }, element) = (self, element.name());
        if Self::SIZES.contains(&(kernel, stride)) {
            format!("depthwise_{element}_{kernel}_s{stride}_x{columns}_c{channels}")
        } else {
            format!("depthwise_{element}_any")
        }
    }

    /// All instances: the size that each is compiled for, 0 for the one that is for all.
    pub(super) fn instances(element: Element) -> impl Iterator<Item = (String, usize, usize, Self)> {
        let sizes = Self::SIZES.into_iter().chain([(0, 0)]);
        sizes.flat_map(move |(k, s)| {
            Self::choices(element, k, s).iter().map(move |run| (run.kernel(element, k, s), k, s, *run))
        })
    }
}

/// Output channels of a thread of the stem.
pub const STEM_CHANNELS: [usize; 3] = [8, 16, 32];

/// Threads of a block of every kernel but the dense convolution and `detect`.
pub const THREADS: u32 = 128;

/// Threads of the one block of `detect`.
pub const DETECT_THREADS: u32 = 512;

/// The kernels of first layers that have an instance of their own.
const STEM_KERNEL: usize = 3;

/// Name of the kernel of first layers of `kernel` × `kernel` that makes `channels` output channels
/// a thread.
pub fn stem(element: Element, kernel: usize, channels: usize) -> String {
    if element == Element::F16 && kernel == STEM_KERNEL {
        format!("stem_{}_{kernel}_c{channels}", element.name())
    } else {
        format!("stem_{}_any_c{channels}", element.name())
    }
}

/// All instances of it: the size that each is compiled for, 0 for all, and its channels.
pub(super) fn stems(element: Element) -> impl Iterator<Item = (String, usize, usize)> {
    let kernels: &[usize] = if element == Element::F16 { &[STEM_KERNEL, 0] } else { &[0] };
    kernels.iter().flat_map(move |&k| STEM_CHANNELS.iter().map(move |&c| (stem(element, k, c), k, c)))
}

/// All instances of the dense convolution: what it multiplies, whether it is pointwise, and its
/// shape.
pub(super) fn convolutions() -> impl Iterator<Item = (Element, bool, Tile)> {
    [(Element::F16, true), (Element::F16, false), (Element::I8, true), (Element::I8, false)]
        .into_iter()
        .flat_map(|(element, point)| Tile::choices(element, point).iter().map(move |&tile| (element, point, tile)))
}
