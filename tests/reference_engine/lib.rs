//! What every engine must agree with, and random networks to try that on. For tests and benchmarks
//! only.
//!
//! - [`candle`]: candle, eager: slow and obvious. [`quantization`]: random 8-bit networks.
//! - [`graphs`]: random networks; [`random`]: weights and inputs, and how far outputs are apart.
//! - [`refusals`]: how many random networks an engine refuses.
//! - `cuda` (feature `cuda`): devices for tests where there is none.

pub mod candle;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod graphs;
pub mod quantization;
pub mod random;
pub mod refusals;

pub use candle::Reference;
pub use quantization::{random_quantization, reference_outputs, rounded};
pub use random::{outputs, random_input, random_weights, relative_error};
pub use refusals::Refusals;
