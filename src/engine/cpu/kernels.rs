//! The tables of f32 kernels, one for each instruction set.

use super::dispatch::{compiled_for, DepthwiseKernels, PanelKernels};
use super::elementwise::{self, ActivateRow};
use super::isa::Isa;
use super::pooling::{self, PoolRow};
use super::simd::{Portable, Vector};
use super::tiles::{self, DenseTile, DepthwiseTile};
use super::winograd::transforms::{self, InputPatch, OutputPatch};

impl Isa {
    /// The kernels of this set.
    ///
    /// # Panics
    /// When the processor lacks it.
    pub(super) fn kernels(self) -> &'static FloatKernels {
        assert!(Self::available().contains(&self), "this processor has no {self:?}");
        match self {
            Isa::Portable => &PORTABLE,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &AVX2,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &AVX512,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => &NEON,
            _ => unreachable!("asserted to be available"),
        }
    }
}

/// The kernels of one instruction set.
pub struct FloatKernels {
    /// The widest first; the last has one block.
    pub panels: &'static [PanelKernels<DenseTile>],
    /// The first that fits is used; the last fits all.
    pub depthwise: &'static [DepthwiseKernels<DepthwiseTile>],
    /// One row of a pooling, of maxima or of means.
    pub pool: unsafe fn(&PoolRow),
    pub average: unsafe fn(&PoolRow),
    /// One row of an activation by itself.
    pub activate: unsafe fn(&ActivateRow),
    /// The transforms around F(4×4, 3×3).
    pub winograd_input: unsafe fn(&InputPatch),
    pub winograd_output: unsafe fn(&OutputPatch),
    /// Multiplies and adds in registers for the given number of rounds; returns the number of
    /// operations.
    pub peak: unsafe fn(usize) -> usize,
}

macro_rules! kernels {
    ($table:ident, $module:ident, $block:ty, $wide:ty, $features:tt, depthwise: [$($d:tt),*],
     panels: [$(($vector:ty, $n:literal, [$($m:tt),*])),*]) => {
        compiled_for! { $module, $features,
            fn dense[V: Vector, const M: usize, const N: usize, const PIXEL: usize](t: &DenseTile) {
                tiles::dense::<V, M, N, PIXEL>(t)
            }
            fn depthwise[const M: usize, const K: usize, const S: usize](t: &DepthwiseTile) {
                tiles::depthwise::<$block, M, K, S>(t)
            }
            fn pool[](row: &PoolRow) {
                pooling::largest::<$block>(row)
            }
            fn average[](row: &PoolRow) {
                pooling::average::<$block>(row)
            }
            fn activate[](row: &ActivateRow) {
                elementwise::activate::<$block>(row)
            }
            fn winograd_input[](patch: &InputPatch) {
                transforms::input::<$block>(patch)
            }
            fn winograd_output[](patch: &OutputPatch) {
                transforms::output::<$block>(patch)
            }
            fn peak[](rounds: usize) -> usize {
                tiles::peak::<$wide>(rounds)
            }
        }

        static $table: FloatKernels = FloatKernels {
            panels: &[$(PanelKernels {
                blocks: $n * <$vector>::BLOCKS,
                stride_1: &[$($module::dense::<$vector, $m, $n, 8>),*],
                any_stride: &[$($module::dense::<$vector, $m, $n, 0>),*],
            }),*],
            depthwise: &[
                DepthwiseKernels { kernel: 3, stride: 1, tiles: &[$($module::depthwise::<$d, 3, 1>),*] },
                DepthwiseKernels { kernel: 3, stride: 2, tiles: &[$($module::depthwise::<$d, 3, 2>),*] },
                DepthwiseKernels { kernel: 5, stride: 1, tiles: &[$($module::depthwise::<$d, 5, 1>),*] },
                DepthwiseKernels { kernel: 5, stride: 2, tiles: &[$($module::depthwise::<$d, 5, 2>),*] },
                DepthwiseKernels { kernel: 0, stride: 0, tiles: &[$($module::depthwise::<$d, 0, 0>),*] },
            ],
            pool: $module::pool,
            average: $module::average,
            activate: $module::activate,
            winograd_input: $module::winograd_input,
            winograd_output: $module::winograd_output,
            peak: $module::peak,
        };
    };
}

// Tiles as large as the registers hold: 32 with AVX-512, 16 with AVX2; for the rest half of that
// (SSE2 has 16 of four lanes, so 8 blocks; NEON 32 of four).
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};

kernels!(PORTABLE, portable, Portable, Portable, [], depthwise: [1, 2, 3, 4], panels: [
    (Portable, 2, [1, 2]),
    (Portable, 1, [1, 2, 3, 4])
]);
#[cfg(target_arch = "x86_64")]
kernels!(AVX2, avx2, Avx2, Avx2, ["avx2,fma"], depthwise: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], panels: [
    (Avx2, 2, [1, 2, 3, 4, 5, 6]),
    (Avx2, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
]);
#[cfg(target_arch = "x86_64")]
kernels!(AVX512, avx512, Avx2, Avx512, ["avx512f,avx512vl,avx2,fma"], depthwise: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], panels: [
    (Avx512, 2, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    (Avx512, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
    (Avx2, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
]);

// 32 registers of four lanes: 12 blocks of accumulators leave eight for weights and pixels.
#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
#[cfg(target_arch = "aarch64")]
kernels!(NEON, neon, Neon, Neon, ["neon"], depthwise: [1, 2, 3, 4, 5, 6, 7, 8], panels: [
    (Neon, 2, [1, 2, 3, 4, 5, 6]),
    (Neon, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
]);
