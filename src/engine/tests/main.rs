//! The engine beside candle, its integer reference and itself.

mod agreement;
#[cfg(feature = "cuda")]
mod cuda_nvrtc;
mod example;
mod int8_agreement;
mod isas;
mod pixels;
mod refusals;
