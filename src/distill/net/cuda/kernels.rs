//! The training kernels: their sources, and the table of them.

use std::fmt::Write as _;

use peregrine_engine::cuda::kernels::{agreement, Kernel, KernelSource};

use super::arguments as arg;

/// Threads of every block.
pub const BLOCK: usize = 256;

/// Channels and rows of pixels of a block that sums over pixels.
pub const CHANNELS: usize = 32;

/// How tensors and their gradients are stored; parameters and sums are in single precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    Single,
    Half,
}

impl Precision {
    /// Of a value.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Single => 4,
            Self::Half => 2,
        }
    }

    /// A kernel's name.
    pub fn kernel(self, name: &str) -> String {
        match self {
            Self::Single => format!("{name}_f32"),
            Self::Half => format!("{name}_f16"),
        }
    }

    /// The modules whose kernels train in this precision.
    pub fn modules(self) -> Vec<KernelSource> {
        MODULES.iter().map(|module| module.source(self)).collect()
    }
}

/// A source file.
struct Module {
    /// In single and in half precision.
    names: [&'static str; 2],
    body: &'static str,
    kernels: &'static [&'static str],
    /// The structures that it shares with [`super::arguments`].
    checks: fn() -> String,
}

const MODULES: [Module; 8] = [
    Module {
        names: ["training_dense_f32", "training_dense_f16"],
        body: include_str!("kernels/dense.cu"),
        kernels: &[
            "dense_forward",
            "dense_forward_narrow",
            "dense_input",
            "dense_input_narrow",
            "dense_weights",
            "dense_weights_flat",
            "dense_weights_narrow",
            "reduce",
        ],
        checks: || {
            agreement::<arg::Windowed>("Windowed")
                + &agreement::<arg::Forward>("DenseForward")
                + &agreement::<arg::InputGradient>("DenseInput")
                + &agreement::<arg::WeightGradient>("DenseWeights")
                + &agreement::<arg::Reduce>("Reduce")
        },
    },
    Module {
        names: ["training_channelwise_f32", "training_channelwise_f16"],
        body: include_str!("kernels/channelwise.cu"),
        kernels: &["depthwise_forward", "depthwise_input", "depthwise_weights"],
        checks: || {
            agreement::<arg::Forward>("DepthwiseForward")
                + &agreement::<arg::InputGradient>("DepthwiseInput")
                + &agreement::<arg::WeightGradient>("DepthwiseWeights")
        },
    },
    Module {
        names: ["training_norm_f32", "training_norm_f16"],
        body: include_str!("kernels/norm.cu"),
        kernels: &[
            "norm_sums",
            "norm_statistics",
            "norm_running",
            "norm_apply",
            "norm_gradient_sums",
            "norm_parameters",
            "norm_gradient",
        ],
        checks: || agreement::<arg::Norm>("Norm"),
    },
    Module {
        names: ["training_movement_f32", "training_movement_f16"],
        body: include_str!("kernels/movement.cu"),
        kernels: &[
            "pack",
            "unpack",
            "sum",
            "accumulate",
            "zero",
            "activation",
            "activation_gradient",
            "select",
            "upsample",
            "upsample_gradient",
            "scale",
        ],
        checks: || {
            agreement::<arg::Repack>("Repack")
                + &agreement::<arg::Elementwise>("Elementwise")
                + &agreement::<arg::Select>("Select")
                + &agreement::<arg::Upsample>("Upsample")
                + &agreement::<arg::Scale>("Scale")
        },
    },
    Module {
        names: ["training_pooling_f32", "training_pooling_f16"],
        body: include_str!("kernels/pooling.cu"),
        kernels: &[
            "max_pool",
            "max_pool_gradient",
            "average_pool",
            "average_pool_gradient",
            "whole_sum",
            "whole_spread",
        ],
        checks: || agreement::<arg::Pool>("Pool") + &agreement::<arg::Whole>("Whole"),
    },
    Module {
        names: ["training_pictures_f32", "training_pictures_f16"],
        body: include_str!("kernels/pictures.cu"),
        kernels: &["render"],
        checks: || {
            agreement::<arg::PictureTile>("PictureTile")
                + &agreement::<arg::Picture>("Picture")
                + &agreement::<arg::Pictures>("Pictures")
        },
    },
    Module {
        names: ["training_update_f32", "training_update_f16"],
        body: include_str!("kernels/update.cu"),
        kernels: &["squares", "clip", "adamw", "sgd", "average", "clear"],
        checks: || {
            agreement::<arg::Step>("Step")
                + &agreement::<arg::Outcome>("Outcome")
                + &agreement::<arg::Group>("Group")
                + &agreement::<arg::Update>("Update")
        },
    },
    Module {
        names: ["training_losses_f32", "training_losses_f16"],
        body: include_str!("kernels/losses.cu"),
        kernels: &[
            "pointwise",
            "along",
            "along_wide",
            "log_softmax",
            "log_softmax_wide",
            "one_hot_of_max",
            "gather",
            "scatter",
            "product",
        ],
        checks: || {
            agreement::<arg::Pointwise>("Pointwise")
                + &agreement::<arg::Along>("Along")
                + &agreement::<arg::Rows>("Rows")
                + &agreement::<arg::Parts>("Parts")
                + &agreement::<arg::Product>("Product")
        },
    },
];

impl Module {
    fn source(&self, precision: Precision) -> KernelSource {
        let half = precision == Precision::Half;
        let mut own = String::new();
        let mut add = |text: &str| writeln!(own, "{text}").expect("a String takes all");
        if half {
            add("#define PEREGRINE_HALF");
        }
        add(include_str!("kernels/training.cuh"));
        add(self.body);
        add(&(self.checks)());
        // Several may be compiled as one file, for the emulation.
        ["PEREGRINE_HALF", "KERNEL", "ENTRY"].iter().for_each(|name| add(&format!("#undef {name}")));
        let kernel = |name: &&str| Kernel { name: precision.kernel(name), threads: BLOCK as u32 };
        KernelSource { name: self.names[usize::from(half)], own, kernels: self.kernels.iter().map(kernel).collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kernel_has_a_name_of_its_own_and_is_in_its_source() {
        let modules: Vec<_> = [Precision::Single, Precision::Half].iter().flat_map(|p| p.modules()).collect();
        let mut names = BTreeSet::new();
        for KernelSource { own, kernels, .. } in &modules {
            for kernel in kernels {
                assert!(names.insert(&kernel.name), "{}", kernel.name);
                let (name, _) = kernel.name.rsplit_once('_').unwrap();
                assert!(own.contains(&format!("ENTRY({name}, ")), "{name}");
            }
            assert_eq!(own.matches("\nENTRY(").count(), kernels.len());
        }
    }
}
