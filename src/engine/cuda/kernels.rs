//! The kernels: their sources, and the one table of the variants that exist.
//!
//! A source file under `kernels/` is a module. Variants of a kernel are instances of one template, appended to its source
//! by [`Module::source`], together with a check that Rust and CUDA agree on the size of every argument.

use std::fmt::Write as _;
use std::mem::size_of;

use super::arguments;

/// One source file, compiled and loaded as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Module {
    Convolution,
    Depthwise,
    Stem,
    Movement,
    Image,
    Decode,
}

/// A kernel of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    pub name: String,
    /// Of a block.
    pub threads: u32,
}

/// What a dense convolution multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Element {
    F16,
    S8,
}

impl Element {
    /// Of one value.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::S8 => 1,
        }
    }

    /// Channels that a lane loads at once (16 bytes). Channels of a tensor are padded to a multiple of it.
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
    /// Tensor-core tiles of 16 pixels, and of 8 channels, that a warp computes.
    pub rows: usize,
    pub columns: usize,
    /// Warps along the pixels, the output channels and the depth.
    pub warps: [usize; 3],
}

const fn tile(rows: usize, columns: usize, warps: [usize; 3]) -> Tile {
    Tile { rows, columns, warps }
}

impl Tile {
    /// For pointwise convolutions in half precision, by rising size.
    pub const POINT_F16: [Self; 8] = [
        tile(1, 1, [4, 1, 1]),
        tile(1, 2, [1, 1, 4]),
        tile(1, 4, [1, 1, 4]),
        tile(1, 4, [4, 1, 1]),
        tile(2, 4, [1, 1, 4]),
        tile(2, 2, [2, 2, 1]),
        tile(2, 4, [2, 2, 1]),
        tile(2, 4, [4, 2, 1]),
    ];
    /// For those over several pixels, which students have in the stem alone.
    pub const TAPS_F16: [Self; 2] = [tile(1, 2, [1, 1, 4]), tile(2, 4, [2, 2, 1])];
    pub const POINT_S8: [Self; 3] = [tile(1, 2, [1, 1, 4]), tile(1, 4, [4, 1, 1]), tile(2, 4, [2, 2, 1])];
    pub const TAPS_S8: [Self; 1] = [tile(2, 4, [2, 2, 1])];

    /// The variants to choose from.
    pub fn choices(element: Element, point: bool) -> &'static [Self] {
        match (element, point) {
            (Element::F16, true) => &Self::POINT_F16,
            (Element::F16, false) => &Self::TAPS_F16,
            (Element::S8, true) => &Self::POINT_S8,
            (Element::S8, false) => &Self::TAPS_S8,
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

    pub const fn threads(&self) -> u32 {
        32 * (self.warps[0] * self.warps[1] * self.warps[2]) as u32
    }

    /// Name of the kernel of this shape, such as `point_f16_16x32_k4`.
    pub fn kernel(&self, element: Element, point: bool) -> String {
        let kind = if point { "point" } else { "taps" };
        let element = match element {
            Element::F16 => "f16",
            Element::S8 => "s8",
        };
        let Self { rows, columns, warps: [m, n, k] } = self;
        format!("{kind}_{element}_{}x{}_w{rows}x{columns}_{m}{n}{k}", self.pixels(), self.channels())
    }
}

/// A depthwise kernel: what it is compiled for, and the pixels of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Run {
    /// Neighbouring output pixels that a thread filters.
    pub columns: usize,
}

impl Run {
    const SIZES: [(usize, usize); 4] = [(3, 1), (3, 2), (5, 1), (5, 2)];

    /// The variants for a kernel of `kernel` × `kernel` and `stride`.
    pub fn choices(kernel: usize, stride: usize) -> &'static [Self] {
        const MANY: [Run; 3] = [Run { columns: 1 }, Run { columns: 2 }, Run { columns: 4 }];
        if Self::SIZES.contains(&(kernel, stride)) {
            &MANY
        } else {
            &MANY[..1]
        }
    }

    /// Name of the kernel, such as `depthwise_5_s1_x4`; `depthwise_any` for sizes that have none of their own.
    pub fn kernel(&self, kernel: usize, stride: usize) -> String {
        if Self::SIZES.contains(&(kernel, stride)) {
            format!("depthwise_{kernel}_s{stride}_x{}", self.columns)
        } else {
            "depthwise_any".into()
        }
    }
}

/// Output channels of a thread of the stem.
pub const STEM_CHANNELS: [usize; 3] = [8, 16, 32];

/// Threads of a block of every kernel but the dense convolution and `detect`.
pub const THREADS: u32 = 128;

/// Threads of the one block of `detect`.
pub const DETECT_THREADS: u32 = 256;

impl Module {
    pub const ALL: [Self; 6] =
        [Self::Convolution, Self::Depthwise, Self::Stem, Self::Movement, Self::Image, Self::Decode];

    /// Of the source file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Convolution => "convolution",
            Self::Depthwise => "depthwise",
            Self::Stem => "stem",
            Self::Movement => "movement",
            Self::Image => "image",
            Self::Decode => "decode",
        }
    }

    fn body(self) -> &'static str {
        match self {
            Self::Convolution => include_str!("kernels/convolution.cu"),
            Self::Depthwise => include_str!("kernels/depthwise.cu"),
            Self::Stem => include_str!("kernels/stem.cu"),
            Self::Movement => include_str!("kernels/movement.cu"),
            Self::Image => include_str!("kernels/image.cu"),
            Self::Decode => include_str!("kernels/decode.cu"),
        }
    }

    /// What all modules begin with.
    pub fn common() -> &'static str {
        include_str!("kernels/common.cuh")
    }

    /// The module without [`common`](Self::common): its file and its instances.
    pub fn own_source(self) -> String {
        let mut source = self.body().to_owned();
        let mut line = |text: String| writeln!(source, "{text}").expect("a String takes all");
        for (structure, bytes) in self.arguments() {
            line(format!("static_assert(sizeof({structure}) == {bytes}, \"{structure} differs from arguments.rs\");"));
        }
        match self {
            Self::Convolution => {
                for (element, point, tile) in convolutions() {
                    let kind = if element == Element::F16 { "f16" } else { "s8" };
                    let Tile { rows, columns, warps: [m, n, k] } = tile;
                    let name = tile.kernel(element, point);
                    line(format!("CONVOLUTION({name}, {kind}, {rows}, {columns}, {m}, {n}, {k}, {point})"));
                }
            }
            Self::Depthwise => {
                for (kernel, stride) in Run::SIZES {
                    for run in Run::choices(kernel, stride) {
                        let name = run.kernel(kernel, stride);
                        line(format!("DEPTHWISE({name}, {kernel}, {stride}, {})", run.columns));
                    }
                }
                line("DEPTHWISE(depthwise_any, 0, 0, 1)".into());
            }
            Self::Stem => STEM_CHANNELS.iter().for_each(|c| line(format!("STEM(stem_{c}, {c})"))),
            Self::Movement | Self::Image | Self::Decode => {}
        }
        source
    }

    /// What NVRTC compiles.
    pub fn source(self) -> String {
        Self::common().to_owned() + &self.own_source()
    }

    /// The kernels of the module.
    pub fn kernels(self) -> Vec<Kernel> {
        let plain = |names: &[&str]| names.iter().map(|n| Kernel { name: (*n).into(), threads: THREADS }).collect();
        match self {
            Self::Convolution => convolutions()
                .map(|(element, point, tile)| Kernel { name: tile.kernel(element, point), threads: tile.threads() })
                .collect(),
            Self::Depthwise => {
                let sized =
                    Run::SIZES.iter().flat_map(|&(k, s)| Run::choices(k, s).iter().map(move |r| r.kernel(k, s)));
                let names: Vec<_> = sized.chain(["depthwise_any".into()]).collect();
                names.into_iter().map(|name| Kernel { name, threads: THREADS }).collect()
            }
            Self::Stem => {
                STEM_CHANNELS.iter().map(|c| Kernel { name: format!("stem_{c}"), threads: THREADS }).collect()
            }
            Self::Movement => plain(&["pack_planar", "unpack_planar", "sum", "max_pool", "copy_part", "quantize"]),
            Self::Image => plain(&["letterbox"]),
            Self::Decode => {
                let mut kernels: Vec<Kernel> = plain(&["candidates", "mask"]);
                kernels.push(Kernel { name: "detect".into(), threads: DETECT_THREADS });
                kernels
            }
        }
    }

    fn arguments(self) -> Vec<(&'static str, usize)> {
        match self {
            Self::Convolution => vec![("Convolution", size_of::<arguments::Convolution>())],
            Self::Depthwise => vec![("Depthwise", size_of::<arguments::Depthwise>())],
            Self::Stem => vec![("Stem", size_of::<arguments::Stem>())],
            Self::Movement => vec![
                ("Repack", size_of::<arguments::Repack>()),
                ("Sum", size_of::<arguments::Sum>()),
                ("Pool", size_of::<arguments::Pool>()),
                ("Part", size_of::<arguments::Part>()),
                ("Quantize", size_of::<arguments::Quantize>()),
            ],
            Self::Image => vec![("Letterbox", size_of::<arguments::LetterboxImage>())],
            Self::Decode => vec![
                ("Decode", size_of::<arguments::Decode>()),
                ("Mask", size_of::<arguments::Mask>()),
                ("Detection", size_of::<arguments::Found>()),
                ("FrameHeader", size_of::<arguments::FrameHeader>()),
            ],
        }
    }
}

/// All instances of the dense convolution: what it multiplies, whether it is pointwise, and its shape.
fn convolutions() -> impl Iterator<Item = (Element, bool, Tile)> {
    [(Element::F16, true), (Element::F16, false), (Element::S8, true), (Element::S8, false)]
        .into_iter()
        .flat_map(|(element, point)| Tile::choices(element, point).iter().map(move |&tile| (element, point, tile)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kernel_has_a_name_of_its_own() {
        let names: Vec<_> = Module::ALL.iter().flat_map(|m| m.kernels()).map(|k| k.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn every_kernel_of_the_table_is_in_the_source_of_its_module() {
        for module in Module::ALL {
            let source = module.source();
            for kernel in module.kernels() {
                assert!(
                    source.contains(&format!("{}(", kernel.name)) || source.contains(&format!("({},", kernel.name))
                );
            }
        }
    }
}
