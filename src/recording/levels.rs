//! What a message does not say of its values, as options of a program.

use std::num::NonZeroU16;

use clap::Args;
use peregrine_core::encoding::{Levels, YuvRange};

/// Options for what raw images do not say of their values; the node has parameters of these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct LevelOptions {
    /// Range of raw images of yuyv, uyvy, nv12, nv21, nv24 and yuv420: limited (luma from 16 to 235) or full (0 to 255).
    #[arg(long, value_name = "limited|full", default_value_t)]
    pub yuv_range: YuvRange,
    /// Value of raw images of 16 bits that is white, and all above it: 4095 for 12 bits in the lower ones.
    #[arg(long, value_name = "VALUE", default_value_t = Levels::default().white)]
    pub white_level: NonZeroU16,
}

impl Default for LevelOptions {
    fn default() -> Self {
        let Levels { yuv, white } = Levels::default();
        Self { yuv_range: yuv, white_level: white }
    }
}

impl From<LevelOptions> for Levels {
    fn from(LevelOptions { yuv_range, white_level }: LevelOptions) -> Self {
        Self { yuv: yuv_range, white: white_level }
    }
}
