//! The losses of a step on the device: a record of tensors becomes launches between the two passes.
//!
//! - [`program`]: a record in order, apart from what changes from step to step; [`schedule`]: its launches
//!   and their memory; `pointwise`: what is computed value by value, together; `access`: views of memory.

mod access;
mod pointwise;
pub mod program;
pub mod schedule;
#[cfg(test)]
mod tests;
