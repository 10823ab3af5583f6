//! What graphs and memory on the device are made, run and read with.

use std::sync::Arc;
use std::time::Duration;

use peregrine_engine::cuda::driver::{DeviceMemory, Instance};
use peregrine_engine::cuda::launch::{dependencies, span, Node, NodeWork, Span};
use peregrine_engine::cuda::{CudaError, Driver, Wait};

use super::arguments::Step;

pub(super) fn instantiate(driver: &Arc<dyn Driver>, nodes: &[Node]) -> Result<Box<dyn Instance>, CudaError> {
    driver.prepare(nodes)?;
    driver.instantiate(nodes, &dependencies(nodes), Wait::Block, 0)
}

pub(super) fn run(instance: &mut Box<dyn Instance>) -> anyhow::Result<()> {
    instance.launch()?;
    Ok(instance.wait(Duration::MAX)?)
}

pub(super) fn whole(memory: &DeviceMemory) -> Span {
    span(memory.device(), memory.len())
}

pub(super) fn upload_step(host: &DeviceMemory, device: &DeviceMemory) -> Node {
    let work = NodeWork::Upload { host: host.host(), device: device.device(), bytes: size_of::<Step>() };
    Node { name: "step upload".into(), work, reads: vec![], writes: vec![whole(device)] }
}

pub(super) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

pub(super) fn values_of(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// # Panics
/// When there are more or fewer values than the memory holds.
pub(super) fn write_values(memory: &mut DeviceMemory, values: &[f32]) {
    let bytes = memory.as_mut_slice();
    assert_eq!(bytes.len(), 4 * values.len());
    bytes.chunks_exact_mut(4).zip(values).for_each(|(to, v)| to.copy_from_slice(&v.to_ne_bytes()));
}
