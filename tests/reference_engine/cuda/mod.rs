//! Devices for tests where there is none.
//!
//! - [`emulation`]: the kernels, compiled for the CPU. [`failing`]: a driver that fails when it is
//!   told to.

pub mod emulation;
pub mod failing;

pub use emulation::Emulated;
