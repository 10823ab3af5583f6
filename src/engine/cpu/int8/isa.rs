//! Instruction sets for integers: which the processor has, and the tables of tile kernels compiled for each.

use std::ops::Range;

use super::super::layout::Memory;
use super::layout::{ByteView, QUAD};
use super::movement;
use super::simd::{Lanes, Portable};
use super::tiles::{self, DenseTile, DepthwiseTile};
use crate::quantization::TensorScale;

/// An instruction set that the integer kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IntegerIsa {
    /// Whatever the crate was compiled for.
    Portable,
    Avx2,
    /// AVX2 with 256-bit VNNI.
    AvxVnni,
    /// AVX-512 with F, BW and VNNI.
    Avx512Vnni,
    /// NEON with dot products. Run under an emulator only.
    NeonDot,
}

impl IntegerIsa {
    /// Those that this processor has, the best last.
    pub fn available() -> Vec<IntegerIsa> {
        #[cfg_attr(
            not(any(target_arch = "x86_64", target_arch = "aarch64")),
            allow(unused_mut, reason = "nothing else is there")
        )]
        let mut list = vec![IntegerIsa::Portable];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            list.push(IntegerIsa::Avx2);
            if is_x86_feature_detected!("avxvnni") {
                list.push(IntegerIsa::AvxVnni);
            }
            let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            if avx512 && is_x86_feature_detected!("avx512vnni") {
                list.push(IntegerIsa::Avx512Vnni);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            list.push(IntegerIsa::NeonDot);
        }
        list
    }

    /// The best that this processor has.
    pub fn best() -> IntegerIsa {
        *Self::available().last().expect("the portable one is always there")
    }

    /// The kernels of this set, for weights whose adjacent pairs fit 16-bit sums or for any.
    ///
    /// # Panics
    /// When the processor lacks it.
    pub(super) fn kernels(self, pairs_fit: bool) -> &'static Kernels {
        assert!(Self::available().contains(&self), "this processor has no {self:?}");
        match self {
            IntegerIsa::Portable => &PORTABLE,
            #[cfg(target_arch = "x86_64")]
            IntegerIsa::Avx2 if pairs_fit => &AVX2,
            #[cfg(target_arch = "x86_64")]
            IntegerIsa::Avx2 => &AVX2_WIDE,
            #[cfg(target_arch = "x86_64")]
            IntegerIsa::AvxVnni => &AVX_VNNI,
            #[cfg(target_arch = "x86_64")]
            IntegerIsa::Avx512Vnni => &AVX512_VNNI,
            #[cfg(target_arch = "aarch64")]
            IntegerIsa::NeonDot => &NEON_DOT,
            _ => unreachable!("asserted to be available; {pairs_fit}"),
        }
    }
}

/// Kernels for 1, 2, … pixels of a dense convolution's panel of `blocks` output blocks.
pub struct Panel {
    pub blocks: usize,
    /// For stride 1 over blocks of 16, and for any.
    pub stride_1: &'static [unsafe fn(&DenseTile)],
    pub any_stride: &'static [unsafe fn(&DenseTile)],
}

/// Kernels for 1, 2, … pixels of one kernel size and stride of a depthwise convolution; 0 stands for any.
pub struct Depthwise {
    pub kernel: usize,
    pub stride: usize,
    /// Whether the weights are to be packed for [`tiles::sliding`].
    pub sliding: bool,
    pub tiles: &'static [unsafe fn(&DepthwiseTile)],
}

/// The kernels of one instruction set.
pub struct Kernels {
    pub name: &'static str,
    /// What they take off each byte before they multiply it.
    pub bias: u8,
    /// With 1, 2, … blocks.
    pub panels: &'static [Panel],
    /// The first that fits serves; the last fits all.
    pub depthwise: &'static [Depthwise],
    /// [`movement::quantize_input`] in these vectors.
    pub quantize_input: unsafe fn(&Memory, &ByteView, TensorScale, Range<usize>),
    /// [`movement::quantize_pixels`] in these vectors.
    pub quantize_pixels: unsafe fn(&[[f32; QUAD]], *mut u8, TensorScale),
    /// Multiplies and adds for so many rounds; returns the number of operations.
    pub peak: unsafe fn(usize) -> usize,
}

impl Kernels {
    /// The depthwise kernels for a kernel size and stride.
    pub fn depthwise(&self, kernel: usize, stride: usize) -> &'static Depthwise {
        let fits = |d: &&Depthwise| d.kernel == 0 || (d.kernel, d.stride) == (kernel, stride);
        self.depthwise.iter().find(fits).expect("the last fits all")
    }
}

macro_rules! kernels {
    ($table:ident, $name:literal, bias: $bias:literal, $module:ident, $lanes:ty, [$($features:literal)?], peak: [$pixels:literal, $vectors:literal],
     depthwise: [$($d:tt),*],
     panels: [$(($n:tt, [$($m:tt),*])),*]) => {
        /// Every function here is its namesake, compiled for the instruction set: safe where that is safe and the processor has it.
        mod $module {
            use super::*;

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn dense<L: Lanes, const M: usize, const N: usize, const PIXEL: usize>(t: &DenseTile) {
                tiles::dense::<L, M, N, PIXEL>(t)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn depthwise<const M: usize, const Q: usize, const PIXEL: usize>(t: &DepthwiseTile) {
                tiles::depthwise::<$lanes, M, Q, PIXEL>(t)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn sliding<const M: usize, const K: usize>(t: &DepthwiseTile) {
                tiles::sliding::<$lanes, M, K>(t)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn quantize_input(m: &Memory, to: &ByteView, scale: TensorScale, rows: Range<usize>) {
                movement::quantize_input(m, to, scale, rows)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn quantize_pixels(pixels: &[[f32; QUAD]], out: *mut u8, scale: TensorScale) {
                movement::quantize_pixels(pixels, out, scale)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn peak(rounds: usize) -> usize {
                tiles::peak::<$lanes, $pixels, $vectors>(rounds)
            }
        }

        static $table: Kernels = Kernels {
            name: $name,
            bias: $bias,
            panels: &[$(Panel {
                blocks: $n,
                stride_1: &[$($module::dense::<$lanes, $m, $n, 16>),*],
                any_stride: &[$($module::dense::<$lanes, $m, $n, 0>),*],
            }),*],
            depthwise: &[
                Depthwise { kernel: 3, stride: 1, sliding: true, tiles: &[$($module::sliding::<$d, 3>),*] },
                Depthwise { kernel: 5, stride: 1, sliding: true, tiles: &[$($module::sliding::<$d, 5>),*] },
                Depthwise { kernel: 3, stride: 2, sliding: false, tiles: &[$($module::depthwise::<$d, 1, 32>),*] },
                Depthwise { kernel: 5, stride: 2, sliding: false, tiles: &[$($module::depthwise::<$d, 2, 32>),*] },
                Depthwise { kernel: 0, stride: 0, sliding: false, tiles: &[$($module::depthwise::<$d, 0, 0>),*] },
            ],
            quantize_input: $module::quantize_input,
            quantize_pixels: $module::quantize_pixels,
            peak: $module::peak,
        };
    };
}

#[cfg(target_arch = "aarch64")]
use super::neon::NeonDot;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx2Wide, Avx512Vnni, AvxVnni};

// Tiles as large as the registers hold.
kernels!(PORTABLE, "portable", bias: 0, portable, Portable, [], peak: [1, 1], depthwise: [1, 2], panels: [(1, [1, 2])]);
#[cfg(target_arch = "x86_64")]
kernels!(AVX2, "avx2", bias: 0, avx2, Avx2, ["avx2"], peak: [1, 6], depthwise: [1, 2, 3, 4], panels: [(1, [1, 2, 3, 4, 5])]);
#[cfg(target_arch = "x86_64")]
kernels!(AVX2_WIDE, "avx2, 16-bit", bias: 0, avx2_wide, Avx2Wide, ["avx2"], peak: [1, 3], depthwise: [1, 2, 3], panels: [(1, [1, 2, 3])]);
#[cfg(target_arch = "x86_64")]
kernels!(AVX_VNNI, "avx-vnni", bias: 0, avx_vnni, AvxVnni, ["avx2,avxvnni"], peak: [1, 6], depthwise: [1, 2, 3, 4], panels: [
    (1, [1, 2, 3, 4, 5, 6])
]);
#[cfg(target_arch = "x86_64")]
kernels!(AVX512_VNNI, "avx512-vnni", bias: 0, avx512_vnni, Avx512Vnni, ["avx512f,avx512bw,avx512vnni,avx2"], peak: [6, 2],
    depthwise: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], panels: [
    (1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    (2, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    (3, [1, 2, 3, 4, 5, 6, 7, 8]),
    (4, [1, 2, 3, 4, 5, 6])
]);
#[cfg(target_arch = "aarch64")]
kernels!(NEON_DOT, "neon dot", bias: 128, neon_dot, NeonDot, ["neon,dotprod"], peak: [6, 1],
    depthwise: [1, 2, 3, 4], panels: [(1, [1, 2, 3, 4, 5, 6])]);
