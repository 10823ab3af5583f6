//! The CUDA engine on a real GPU, and quantized students on the emulated one.

mod agreement;
mod int8;
