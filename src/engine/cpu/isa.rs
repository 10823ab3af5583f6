//! Instruction sets of the f32 kernels: which the processor has.

/// An instruction set that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// The target that the crate was compiled for.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512F and VL, with 256-bit vectors where a panel has one block.
    Avx512,
    /// aarch64's vectors, a pair of them for a block.
    Neon,
}

impl Isa {
    /// The sets that this processor has, the best last.
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

    /// The best set that this processor has.
    pub fn best() -> Isa {
        *Self::available().last().expect("the portable one is always there")
    }

    /// A warning for the log if this is the portable set: that the processor lacks vectors. `None`
    /// otherwise.
    pub fn advice(self) -> Option<&'static str> {
        (self == Isa::Portable).then_some(
            "this processor lacks AVX2 with FMA, AVX-512 and NEON: the CPU engine runs its portable kernels, which \
             take several times as long",
        )
    }
}
