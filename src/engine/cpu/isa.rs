//! Instruction sets: which the processor has, and the tables of tile kernels compiled for each.

use super::pooling::{self, PoolRow};
use super::simd::{Portable, Vector};
use super::tiles::{self, DenseTile, DepthwiseTile};
use super::winograd::{self, InputPatch, OutputPatch};

/// An instruction set that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Whatever the crate was compiled for.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512F and VL, with 256-bit vectors where a panel has one block.
    Avx512,
    /// aarch64's vectors, a pair of them for a block.
    Neon,
}

impl Isa {
    /// Those that this processor has, the best last.
    pub fn available() -> Vec<Isa> {
        let mut list = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            list.push(Isa::Avx2);
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
                list.push(Isa::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            list.push(Isa::Neon);
        }
        list
    }

    /// The best that this processor has.
    pub fn best() -> Isa {
        *Self::available().last().expect("the portable one is always there")
    }

    /// A sentence for who would not expect it to be this one: that vectors are missing.
    pub fn advice(self) -> Option<&'static str> {
        (self == Isa::Portable).then_some(
            "this processor has none of AVX2 with FMA, AVX-512 and NEON: the CPU engine runs its portable kernels, which \
             take several times as long",
        )
    }

    /// The kernels of this set.
    ///
    /// # Panics
    /// When the processor lacks it.
    pub(super) fn kernels(self) -> &'static Kernels {
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

/// Kernels for 1, 2, … pixels of a dense convolution's panel of `blocks` output blocks.
pub struct Panel {
    pub blocks: usize,
    /// For stride 1, and for any.
    pub stride_1: &'static [unsafe fn(&DenseTile)],
    pub any_stride: &'static [unsafe fn(&DenseTile)],
}

/// Kernels for 1, 2, … pixels of one kernel size and stride of a depthwise convolution; 0 stands for any.
pub struct Depthwise {
    pub kernel: usize,
    pub stride: usize,
    pub tiles: &'static [unsafe fn(&DepthwiseTile)],
}

/// The kernels of one instruction set.
pub struct Kernels {
    /// The widest first; the last has one block.
    pub panels: &'static [Panel],
    /// The first that fits serves; the last fits all.
    pub depthwise: &'static [Depthwise],
    /// One row of a max-pooling.
    pub pool: unsafe fn(&PoolRow),
    /// The transforms around F(4×4, 3×3).
    pub winograd_input: unsafe fn(&InputPatch),
    pub winograd_output: unsafe fn(&OutputPatch),
    /// Multiplies and adds in registers for so many rounds; returns the number of operations.
    pub peak: unsafe fn(usize) -> usize,
}

impl Kernels {
    /// The depthwise kernels for a kernel size and stride.
    pub fn depthwise(&self, kernel: usize, stride: usize) -> &'static Depthwise {
        let fits = |d: &&Depthwise| d.kernel == 0 || (d.kernel, d.stride) == (kernel, stride);
        self.depthwise.iter().find(fits).expect("the last fits all")
    }
}

/// Splits `n` pixels into the fewest runs of at most `max`, as even as can be: `(first, length)` of the `i`-th.
#[inline]
pub fn run(n: usize, max: usize, i: usize) -> (usize, usize) {
    let runs = n.div_ceil(max);
    let (length, longer) = (n / runs, n % runs);
    (i * length + i.min(longer), length + usize::from(i < longer))
}

macro_rules! kernels {
    ($table:ident, $module:ident, $block:ty, $wide:ty, [$($features:literal)?], depthwise: [$($d:tt),*],
     panels: [$(($vector:ty, $n:literal, [$($m:tt),*])),*]) => {
        /// Every function here is its namesake, compiled for the instruction set: safe where that is safe and the processor has it.
        mod $module {
            use super::*;

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn dense<V: Vector, const M: usize, const N: usize, const PIXEL: usize>(t: &DenseTile) {
                tiles::dense::<V, M, N, PIXEL>(t)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn depthwise<const M: usize, const K: usize, const S: usize>(t: &DepthwiseTile) {
                tiles::depthwise::<$block, M, K, S>(t)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn pool(row: &PoolRow) {
                pooling::row::<$block>(row)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn winograd_input(patch: &InputPatch) {
                winograd::input::<$block>(patch)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn winograd_output(patch: &OutputPatch) {
                winograd::output::<$block>(patch)
            }

            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn peak(rounds: usize) -> usize {
                tiles::peak::<$wide>(rounds)
            }
        }

        static $table: Kernels = Kernels {
            panels: &[$(Panel {
                blocks: $n * <$vector>::BLOCKS,
                stride_1: &[$($module::dense::<$vector, $m, $n, 8>),*],
                any_stride: &[$($module::dense::<$vector, $m, $n, 0>),*],
            }),*],
            depthwise: &[
                Depthwise { kernel: 3, stride: 1, tiles: &[$($module::depthwise::<$d, 3, 1>),*] },
                Depthwise { kernel: 3, stride: 2, tiles: &[$($module::depthwise::<$d, 3, 2>),*] },
                Depthwise { kernel: 5, stride: 1, tiles: &[$($module::depthwise::<$d, 5, 1>),*] },
                Depthwise { kernel: 5, stride: 2, tiles: &[$($module::depthwise::<$d, 5, 2>),*] },
                Depthwise { kernel: 0, stride: 0, tiles: &[$($module::depthwise::<$d, 0, 0>),*] },
            ],
            pool: $module::pool,
            winograd_input: $module::winograd_input,
            winograd_output: $module::winograd_output,
            peak: $module::peak,
        };
    };
}

// Tiles as large as the registers hold: 32 with AVX-512, 16 with AVX2; for the rest half of that (SSE2 has 16 of four
// lanes, so 8 blocks; NEON 32 of four).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_their_pixels_in_order_and_evenly() {
        for n in 1..50_usize {
            for max in 1..14 {
                let runs: Vec<_> = (0..n.div_ceil(max)).map(|i| run(n, max, i)).collect();
                assert_eq!(runs.iter().fold(0, |at, &(first, len)| if at == first { at + len } else { usize::MAX }), n);
                let (min, most) = (runs.iter().map(|r| r.1).min().unwrap(), runs.iter().map(|r| r.1).max().unwrap());
                assert!(most <= max && most - min <= 1);
            }
        }
    }
}
