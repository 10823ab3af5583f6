//! Training on CUDA by kernels of our own: both passes over the graph, the losses between them, a
//! teacher, and the update of the parameters, which stay on the device.
//!
//! Tensors are channels-last. Kernels are compiled by NVRTC where the training starts and kept, as the
//! engine's are; nothing of CUDA is needed to build. Every sum has a fixed order, so that a step gives
//! the same bits whenever it is repeated on one device.
//!
//! - [`passes`]: a network in training; [`step`]: a whole step as one graph, and [`graphs`], those so far;
//!   [`teacher`]: a teacher in it.
//! - [`layout`]: its memory, planned once; `room`: whether it fits; [`parameters`]: the array of all parameters.
//! - [`nodes`]: the launches of a step: `forward`, [`losses`], `backward`, [`update`];
//!   [`optimizer`]: the latter's memory.
//! - [`pictures`]: inputs rendered on the device; [`image_store`]: the images that they show.
//! - [`loss_scale`]: the factor on gradients in half precision.
//! - [`kernels`]: the sources and the table of them; [`arguments`]: their parameters.
//!
//! **What is checked where.** Without a GPU: every kernel compiles for sm_75 to sm_120; on the engine's
//! emulation of a device, random networks of all operations give the CPU's values, gradients and
//! updated weights, losses and their gradients are candle's, and whole steps with every loss and method
//! follow the CPU's; no two buffers that are needed at one time overlap. On a GPU nothing of this has
//! run yet.

pub mod arguments;
mod backward;
mod forward;
pub mod graphs;
pub mod image_store;
pub mod kernels;
pub mod layout;
pub mod loss_scale;
pub mod losses;
mod memory;
pub mod nodes;
pub mod optimizer;
pub mod parameters;
pub mod passes;
pub mod pictures;
#[cfg(test)]
mod pictures_tests;
#[cfg(test)]
mod plan_tests;
mod room;
pub mod step;
#[cfg(test)]
mod step_tests;
pub mod teacher;
#[cfg(test)]
mod tests;
pub mod update;

pub use layout::Training;
pub use passes::CudaNet;
pub use teacher::Teaching;
pub use update::Rule;
