//! The kernels: their sources, and the one table of those that exist.
//!
//! A source file under `kernels/` is a module. Variants of a kernel are instances of one template,
//! appended to its source by [`Module::source`], together with checks that Rust and CUDA agree on
//! the size and the offset of every field of every argument. Kernels of other crates come to a
//! driver as a [`KernelSource`] likewise.

use std::fmt::Write as _;

use super::arguments;
use super::plain::Argument;
use super::variants::{convolutions, stems};
pub use super::variants::{stem, Element, FilterRun, Tile, DETECT_THREADS, STEM_CHANNELS, THREADS};

/// One source file, compiled and loaded as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Module {
    Convolution,
    Depthwise,
    Stem,
    Movement,
    Pooling,
    /// Of quantized networks alone, as the next.
    Integer,
    IntegerPooling,
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

/// A module as a driver takes it: one of the engine's, or another crate's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSource {
    /// Unique among all that a process loads.
    pub name: &'static str,
    /// Without what all modules [begin with](Module::common).
    pub own: String,
    pub kernels: Vec<Kernel>,
}

impl KernelSource {
    /// What NVRTC compiles.
    pub fn text(&self) -> String {
        Module::common().to_owned() + &self.own
    }
}

/// Lines for a source which check that its structure `name` is `A`, field for field.
pub fn agreement<A: Argument>(name: &'static str) -> String {
    Structure::of::<A>(name).checks()
}

impl Module {
    pub const ALL: [Self; 9] = [
        Self::Convolution,
        Self::Depthwise,
        Self::Stem,
        Self::Movement,
        Self::Pooling,
        Self::Integer,
        Self::IntegerPooling,
        Self::Image,
        Self::Decode,
    ];

    /// Of the source file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Convolution => "convolution",
            Self::Depthwise => "depthwise",
            Self::Stem => "stem",
            Self::Movement => "movement",
            Self::Pooling => "pooling",
            Self::Integer => "integer",
            Self::IntegerPooling => "integer_pooling",
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
            Self::Pooling => include_str!("kernels/pooling.cu"),
            Self::Integer => include_str!("kernels/integer.cu"),
            Self::IntegerPooling => include_str!("kernels/integer_pooling.cu"),
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
        self.structures().iter().for_each(|structure| line(structure.checks()));
        match self {
            Self::Convolution => {
                for (element, point, tile) in convolutions() {
                    let kind = if element == Element::F16 { "f16" } else { "u8" };
                    let Tile { rows, columns, warps: [m, n, k] } = tile;
                    let name = tile.kernel(element, point);
                    line(format!("CONVOLUTION({name}, {kind}, {rows}, {columns}, {m}, {n}, {k}, {point})"));
                }
            }
            Self::Depthwise => {
                FilterRun::instances(Element::F16).for_each(|(name, k, s, FilterRun { columns, channels })| {
                    line(format!("DEPTHWISE({name}, {k}, {s}, {columns}, {channels})"))
                })
            }
            Self::Stem => stems(Element::F16).for_each(|(name, k, c)| line(format!("STEM({name}, {k}, {c})"))),
            Self::Integer => {
                FilterRun::instances(Element::I8).for_each(|(name, k, s, FilterRun { columns, .. })| {
                    line(format!("INTEGER_DEPTHWISE({name}, {k}, {s}, {columns})"))
                });
                stems(Element::I8).for_each(|(name, _, c)| line(format!("INTEGER_STEM({name}, {c})")));
            }
            Self::Movement | Self::Pooling | Self::IntegerPooling | Self::Image | Self::Decode => {}
        }
        source
    }

    /// What NVRTC compiles.
    pub fn source(self) -> String {
        Self::common().to_owned() + &self.own_source()
    }

    /// The module as drivers take it.
    pub fn whole(self) -> KernelSource {
        KernelSource { name: self.name(), own: self.own_source(), kernels: self.kernels() }
    }

    /// The kernels of the module.
    pub fn kernels(self) -> Vec<Kernel> {
        let named =
            |names: Vec<String>| names.into_iter().map(|name| Kernel { name, threads: THREADS }).collect::<Vec<_>>();
        let plain = |names: &[&str]| named(names.iter().map(|&name| name.to_owned()).collect());
        match self {
            Self::Convolution => convolutions()
                .map(|(element, point, tile)| Kernel { name: tile.kernel(element, point), threads: tile.threads() })
                .collect(),
            Self::Depthwise => named(FilterRun::instances(Element::F16).map(|instance| instance.0).collect()),
            Self::Stem => named(stems(Element::F16).map(|instance| instance.0).collect()),
            Self::Movement => plain(&["pack_planar", "unpack_planar", "sum", "elementwise", "copy_part", "gather"]),
            Self::Pooling => plain(&["max_pool", "average_pool", "global_average", "bilinear"]),
            Self::Integer => {
                let depthwise = FilterRun::instances(Element::I8).map(|instance| instance.0);
                let mut kernels = named(depthwise.chain(stems(Element::I8).map(|instance| instance.0)).collect());
                kernels.extend(plain(&["sum_i8", "copy_part_i8", "gather_i8", "to_bytes", "to_halves", "pack_bytes"]));
                kernels
            }
            Self::IntegerPooling => {
                plain(&["max_pool_i8", "average_pool_i8", "global_average_i8", "scale_i8", "lookup_i8", "bilinear_i8"])
            }
            Self::Image => plain(&["letterbox"]),
            Self::Decode => {
                let mut kernels = plain(&["candidates", "mask"]);
                kernels.push(Kernel { name: "detect".into(), threads: DETECT_THREADS });
                kernels
            }
        }
    }

    /// The structures that the module's kernels share with Rust.
    fn structures(self) -> Vec<Structure> {
        use arguments as arg;
        let mut structures = vec![
            Structure::of::<arg::Window>("Window"),
            Structure::of::<arg::Residual>("Residual"),
            Structure::of::<arg::Channel>("Channel"),
            Structure::of::<arg::Requantization>("Requantization"),
        ];
        structures.extend(match self {
            Self::Convolution => vec![Structure::of::<arg::Convolution>("Convolution")],
            Self::Depthwise => vec![Structure::of::<arg::Depthwise>("Depthwise")],
            Self::Stem => vec![Structure::of::<arg::Stem>("Stem")],
            Self::Movement => vec![
                Structure::of::<arg::Repack>("Repack"),
                Structure::of::<arg::Sum>("Sum"),
                Structure::of::<arg::Elementwise>("Elementwise"),
                Structure::of::<arg::Part>("Part"),
                Structure::of::<arg::Source>("Source"),
                Structure::of::<arg::Gather>("Gather"),
            ],
            Self::Pooling => vec![
                Structure::of::<arg::Pool>("Pool"),
                Structure::of::<arg::GlobalAverage>("GlobalAverage"),
                Structure::of::<arg::Bilinear>("Bilinear"),
            ],
            Self::Integer => vec![
                Structure::of::<arg::IntegerDepthwise>("IntegerDepthwise"),
                Structure::of::<arg::IntegerStem>("IntegerStem"),
                Structure::of::<arg::IntegerSum>("IntegerSum"),
                Structure::of::<arg::Part>("Part"),
                Structure::of::<arg::Source>("Source"),
                Structure::of::<arg::Gather>("Gather"),
                Structure::of::<arg::Convert>("Convert"),
                Structure::of::<arg::PackBytes>("PackBytes"),
            ],
            Self::IntegerPooling => vec![
                Structure::of::<arg::IntegerPool>("IntegerPool"),
                Structure::of::<arg::IntegerGlobalAverage>("IntegerGlobalAverage"),
                Structure::of::<arg::IntegerScaling>("IntegerScaling"),
                Structure::of::<arg::Lookup>("Lookup"),
                Structure::of::<arg::Bilinear>("Bilinear"),
            ],
            Self::Image => vec![Structure::of::<arg::LetterboxImage>("Letterbox")],
            Self::Decode => vec![
                Structure::of::<arg::Level>("Level"),
                Structure::of::<arg::Decode>("Decode"),
                Structure::of::<arg::Mask>("Mask"),
                Structure::of::<arg::Found>("Detection"),
                Structure::of::<arg::FrameHeader>("FrameHeader"),
                // The detections follow.
                Structure { bytes: None, ..Structure::of::<arg::ResultHeader>("Result") },
            ],
        });
        structures
    }
}

/// A structure of the sources, as Rust lays it out.
struct Structure {
    name: &'static str,
    /// `None` where more follows in the sources.
    bytes: Option<usize>,
    /// Name and offset.
    fields: &'static [(&'static str, usize)],
}

impl Structure {
    fn of<A: Argument>(name: &'static str) -> Self {
        Self { name, bytes: Some(size_of::<A>()), fields: A::FIELDS }
    }

    /// Lines that fail to compile where the source has it otherwise.
    fn checks(&self) -> String {
        let Self { name, bytes, fields } = self;
        let size = bytes
            .map(|bytes| format!("static_assert(sizeof({name}) == {bytes}, \"{name} differs from arguments.rs\");\n"));
        // `window` is a base class in the sources, `unused` is padding there.
        let fields = fields.iter().filter(|(field, _)| !["window", "unused"].contains(field)).map(|(field, offset)| {
            format!(
                "static_assert(OFFSET_OF({name}, {field}) == {offset}, \"{name}::{field} differs from \
                 arguments.rs\");\n"
            )
        });
        size.into_iter().chain(fields).collect()
    }
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
