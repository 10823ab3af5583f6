//! The tables of integer kernels, one for each instruction set.

use std::ops::Range;

use super::super::dispatch::{compiled_for, DepthwiseKernels, PanelKernels};
use super::super::layout::ThreadMemory;
use super::isa::IntegerIsa;
use super::layout::{ByteView, BLOCK, QUAD};
use super::movement;
use super::simd::{Lanes, Portable};
use super::tiles::{self, IntegerDenseTile, IntegerDepthwiseTile};
use super::winograd::{self, InputPatch, OutputPatch, ProductTile, WinogradKernels};
use crate::quantization::{LateActivation, TensorScale};

impl IntegerIsa {
    /// The kernels of this set, for weights whose adjacent pairs fit 16-bit sums or for any.
    ///
    /// # Panics
    /// When the processor lacks it.
    pub(super) fn kernels(self, pairs_fit: bool) -> &'static IntegerKernels {
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

/// Whether kernels filter by [`tiles::sliding`], for which weights are packed in another way.
pub fn is_sliding(kernels: &DepthwiseKernels<IntegerDepthwiseTile>) -> bool {
    kernels.stride == 1
}

/// The kernels of one instruction set.
pub struct IntegerKernels {
    pub name: &'static str,
    /// What they subtract from each byte before they multiply it.
    pub bias: u8,
    /// With 1, 2, … blocks.
    pub panels: &'static [PanelKernels<IntegerDenseTile>],
    /// The first that fits is used; the last fits all.
    pub depthwise: &'static [DepthwiseKernels<IntegerDepthwiseTile>],
    /// For F(4×4, 3×3), where it was measured to be worth it: not tried beside dot products of bytes.
    pub winograd: Option<&'static WinogradKernels>,
    /// [`movement::quantize_input`] in these vectors.
    pub quantize_input: unsafe fn(&ThreadMemory, &ByteView, TensorScale, Range<usize>),
    /// [`movement::quantize_pixels`] in these vectors.
    pub quantize_pixels: unsafe fn(&[[f32; QUAD]], *mut u8, TensorScale),
    /// [`tiles::activate`] in these vectors.
    pub activate: tiles::Activate,
    /// Multiplies and adds in registers for the given number of rounds; returns the number of
    /// operations.
    pub peak: unsafe fn(usize) -> usize,
}

macro_rules! kernels {
    ($table:ident, $name:literal, bias: $bias:literal, $module:ident, $lanes:ty, $features:tt,
     peak: [$pixels:literal, $vectors:literal], winograd: $winograd:expr, depthwise: [$($d:tt),*], panels: [$(($n:tt, [$($m:tt),*])),*]) => {
        compiled_for! { $module, $features,
            fn dense[L: Lanes, const M: usize, const N: usize, const PIXEL: usize](t: &IntegerDenseTile) {
                tiles::dense::<L, M, N, PIXEL>(t)
            }
            fn depthwise[const M: usize, const Q: usize, const PIXEL: usize](t: &IntegerDepthwiseTile) {
                tiles::depthwise::<$lanes, M, Q, PIXEL>(t)
            }
            fn sliding[const M: usize, const K: usize](t: &IntegerDepthwiseTile) {
                tiles::sliding::<$lanes, M, K>(t)
            }
            fn quantize_input[](memory: &ThreadMemory, to: &ByteView, scale: TensorScale, rows: Range<usize>) {
                movement::quantize_input(memory, to, scale, rows)
            }
            fn quantize_pixels[](pixels: &[[f32; QUAD]], out: *mut u8, scale: TensorScale) {
                movement::quantize_pixels(pixels, out, scale)
            }
            fn activate[](late: &LateActivation, pixels: &mut [[f32; BLOCK]]) {
                tiles::activate(late, pixels)
            }
            fn peak[](rounds: usize) -> usize {
                tiles::peak::<$lanes, $pixels, $vectors>(rounds)
            }
        }

        static $table: IntegerKernels = IntegerKernels {
            name: $name,
            bias: $bias,
            panels: &[$(PanelKernels {
                blocks: $n,
                stride_1: &[$($module::dense::<$lanes, $m, $n, 16>),*],
                any_stride: &[$($module::dense::<$lanes, $m, $n, 0>),*],
            }),*],
            depthwise: &[
                DepthwiseKernels { kernel: 3, stride: 1, tiles: &[$($module::sliding::<$d, 3>),*] },
                DepthwiseKernels { kernel: 5, stride: 1, tiles: &[$($module::sliding::<$d, 5>),*] },
                DepthwiseKernels { kernel: 3, stride: 2, tiles: &[$($module::depthwise::<$d, 1, 32>),*] },
                DepthwiseKernels { kernel: 5, stride: 2, tiles: &[$($module::depthwise::<$d, 2, 32>),*] },
                DepthwiseKernels { kernel: 0, stride: 0, tiles: &[$($module::depthwise::<$d, 0, 0>),*] },
            ],
            winograd: $winograd,
            quantize_input: $module::quantize_input,
            quantize_pixels: $module::quantize_pixels,
            activate: $module::activate,
            peak: $module::peak,
        };
    };
}

#[cfg(target_arch = "aarch64")]
use super::neon::NeonDot;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx2Wide, Avx512Vnni, AvxVnni};

// Tiles as large as the registers hold.
kernels!(PORTABLE, "portable", bias: 0, portable, Portable, [], peak: [1, 1], winograd: Some(&PORTABLE_WINOGRAD), depthwise: [1, 2], panels: [(1, [1, 2])]);
#[cfg(target_arch = "x86_64")]
kernels!(AVX2, "avx2", bias: 0, avx2, Avx2, ["avx2"], peak: [1, 6], winograd: Some(&AVX2_WINOGRAD), depthwise: [1, 2, 3, 4], panels: [(1, [1, 2, 3, 4, 5])]);
#[cfg(target_arch = "x86_64")]
kernels!(AVX2_WIDE, "avx2, 16-bit", bias: 0, avx2_wide, Avx2Wide, ["avx2"], peak: [1, 3], winograd: Some(&AVX2_WINOGRAD), depthwise: [1, 2, 3], panels: [(1, [1, 2, 3])]);
#[cfg(target_arch = "x86_64")]
kernels!(AVX_VNNI, "avx-vnni", bias: 0, avx_vnni, AvxVnni, ["avx2,avxvnni"], peak: [1, 6], winograd: None, depthwise: [1, 2, 3, 4], panels: [
    (1, [1, 2, 3, 4, 5, 6])
]);
#[cfg(target_arch = "x86_64")]
kernels!(AVX512_VNNI, "avx512-vnni", bias: 0, avx512_vnni, Avx512Vnni, ["avx512f,avx512bw,avx512vnni,avx2"], peak: [6, 2], winograd: None,
    depthwise: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], panels: [
    (1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    (2, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    (3, [1, 2, 3, 4, 5, 6, 7, 8]),
    (4, [1, 2, 3, 4, 5, 6])
]);
#[cfg(target_arch = "aarch64")]
kernels!(NEON_DOT, "neon dot", bias: 128, neon_dot, NeonDot, ["neon,dotprod"], peak: [6, 1], winograd: None,
    depthwise: [1, 2, 3, 4], panels: [(1, [1, 2, 3, 4, 5, 6])]);

macro_rules! winograd_kernels {
    ($table:ident, $module:ident, $lanes:ty, $features:tt, tiles: [$($m:tt),*]) => {
        compiled_for! { $module, $features,
            fn input[](patch: &InputPatch) {
                winograd::input::<<$lanes as winograd::WinogradLanes>::Words>(patch)
            }
            fn multiply[const M: usize](tile: &ProductTile) {
                winograd::multiply::<$lanes, M>(tile)
            }
            fn output[](patch: &OutputPatch) {
                winograd::output::<$lanes>(patch)
            }
        }

        static $table: WinogradKernels = WinogradKernels {
            input: $module::input,
            multiply: &[$($module::multiply::<$m>),*],
            output: $module::output,
        };
    };
}

winograd_kernels!(PORTABLE_WINOGRAD, portable_winograd, Portable, [], tiles: [1, 2]);
#[cfg(target_arch = "x86_64")]
winograd_kernels!(AVX2_WINOGRAD, avx2_winograd, Avx2, ["avx2"], tiles: [1, 2, 3, 4, 5, 6]);
