//! Lower bounds of latency on this GPU: launching a graph, a dependency within it, and transferring
//! an image.

use std::sync::Arc;
use std::time::Instant;

use peregrine_engine::cuda::arguments as arg;
use peregrine_engine::cuda::driver::{DeviceMemory, MemoryKind};
use peregrine_engine::cuda::kernels::THREADS;
use peregrine_engine::cuda::launch::{dependencies, span, Launch, Node, NodeWork};
use peregrine_engine::cuda::{Driver, Wait};

/// Kernels of the longer chain.
const CHAIN: usize = 65;

/// Median microseconds by name, for an image of `bytes`.
pub fn measure(driver: &Arc<dyn Driver>, bytes: usize, runs: usize) -> anyhow::Result<Vec<(String, f64)>> {
    let mut floors = vec![];
    for wait in [Wait::Block, Wait::Spin] {
        let one = graph(driver, &chain(driver, 1)?, wait, runs)?;
        floors.push((format!("a graph of one small kernel, {wait:?}"), one));
        if wait == Wait::Spin {
            let many = graph(driver, &chain(driver, CHAIN)?, wait, runs)?;
            floors.push((
                "each further small kernel that waits for the one before".into(),
                (many - one) / (CHAIN - 1) as f64,
            ));
        }
    }
    let device = DeviceMemory::new(driver, MemoryKind::Device, bytes)?;
    let image: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
    for (name, place) in [("write-combined", MemoryKind::Upload), ("cached", MemoryKind::Download)] {
        let mut pinned = DeviceMemory::new(driver, place, bytes)?;
        let staged = median(runs, || {
            pinned.as_mut_slice().copy_from_slice(&image);
            Ok(())
        })?;
        floors.push((format!("copying {} KiB to pinned memory, {name}", bytes / 1024), staged));
        let upload = Node {
            name: "upload".into(),
            work: NodeWork::Upload { host: pinned.host(), device: device.device(), bytes },
            reads: vec![],
            writes: vec![span(device.device(), bytes)],
        };
        let sent = graph(driver, &(vec![upload], vec![]), Wait::Spin, runs)?;
        floors.push((format!("a graph of the upload of that, {name}"), sent));
    }
    Ok(floors)
}

/// `length` sums of eight values, each reading what the one before has written.
fn chain(driver: &Arc<dyn Driver>, length: usize) -> anyhow::Result<(Vec<Node>, Vec<DeviceMemory>)> {
    let values = [DeviceMemory::holding(driver, &[0; 256])?, DeviceMemory::holding(driver, &[0; 256])?];
    let nodes = (0..length).map(|i| {
        let [from, to] = [values[i % 2].device(), values[(i + 1) % 2].device()];
        let argument = arg::Sum {
            a: arg::Residual { values: from, pitch: 8, width: 0 },
            b: arg::Residual::default(),
            output: to,
            // Sums of zeros lie within any range.
            saturated: 0,
            width: 1,
            pixels: 1,
            pitch: 8,
            channels: 8,
        };
        Node {
            name: "sum".into(),
            work: NodeWork::Kernel(Launch::flat("sum", 1, THREADS, &argument)),
            reads: vec![span(from, 16)],
            writes: vec![span(to, 16)],
        }
    });
    Ok((nodes.collect(), values.into()))
}

fn graph(
    driver: &Arc<dyn Driver>,
    (nodes, _memory): &(Vec<Node>, Vec<DeviceMemory>),
    wait: Wait,
    runs: usize,
) -> anyhow::Result<f64> {
    driver.prepare(nodes)?;
    let mut instance = driver.instantiate(nodes, &dependencies(nodes), wait, 0)?;
    median(runs, || {
        instance.launch()?;
        Ok(instance.wait(std::time::Duration::MAX)?)
    })
}

fn median(runs: usize, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut times = vec![];
    for _ in 0..runs.max(10) {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
