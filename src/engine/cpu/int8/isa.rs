//! Instruction sets of the integer kernels: which the processor has, and what they are worth.

use crate::{Conv, Graph};

/// An instruction set that the integer kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IntegerIsa {
    /// The target that the crate was compiled for.
    Portable,
    /// AVX2.
    Avx2,
    /// AVX2 with 256-bit VNNI.
    AvxVnni,
    /// AVX-512 with F, BW and VNNI.
    Avx512Vnni,
    /// NEON with dot products. Run under an emulator only.
    NeonDot,
}

impl IntegerIsa {
    /// The sets that this processor has, the best last.
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

    /// Whether `graph` takes less time in 8 bits than in f32, by measurement (bench/FIGURES.md): with
    /// Intel's dot products of 8-bit integers (VNNI) whatever the network; with AVX2 where at least half of
    /// the operations are in dense 3×3 convolutions of stride 1, of which Winograd's transforms leave a
    /// quarter.
    pub fn is_faster_than_f32(self, graph: &Graph) -> bool {
        let dense_3x3 = |conv: Conv| (conv.kernel, conv.stride, conv.depthwise) == (3, 1, false);
        match self {
            Self::AvxVnni | Self::Avx512Vnni => true,
            Self::Avx2 => 2 * graph.flops_where(dense_3x3) >= graph.flops(),
            Self::Portable | Self::NeonDot => false,
        }
    }

    /// The best set that this processor has.
    pub fn best() -> IntegerIsa {
        *Self::available().last().expect("the portable one is always there")
    }
}
