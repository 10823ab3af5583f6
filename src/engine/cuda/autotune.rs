//! The fastest variant of each step's kernel, measured once on the device at hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::driver::{DeviceMemory, Driver, MemoryKind};
use super::kernels::Module;
use super::network::{Bases, Network, Variant};
use super::{cache, nvrtc, CudaError};

/// Times that each kernel is run; the least counts.
const RUNS: usize = 20;

/// A variant for each of the plan's steps: those kept in `folder` for this device, its driver, NVRTC, these
/// kernels and network, else the fastest as measured now, else (where the driver has no clock) a guess by
/// the number of blocks.
///
/// # Errors
/// When the device fails.
pub fn choose(driver: &Arc<dyn Driver>, network: &Network, folder: Option<&Path>) -> Result<Vec<Variant>, CudaError> {
    let steps = network.layout.plan.steps.len();
    let signatures: Vec<_> = (0..steps).map(|s| network.signature(s)).collect();
    let device = driver.device();
    // Kernels are as fast as the compiler that is found makes them.
    let compiler = nvrtc::version();
    let hardware = format!("{} sm_{} driver {} NVRTC {compiler:?}", device.name, device.architecture, device.driver);
    let sources: String = Module::ALL.iter().map(|module| module.source()).collect();
    let key = cache::key("variants", &[env!("CARGO_PKG_VERSION"), &hardware, &sources, &signatures.join("\n")]);
    let kept = folder.and_then(|f| cache::load(f, &key)).and_then(|bytes| parse(&bytes, network, &signatures));
    if let Some(variants) = kept {
        return Ok(variants);
    }
    let Some(best) = measure(driver, network, &signatures)? else {
        return Ok(network.guess(device.multiprocessors));
    };
    if let (Some(folder), Ok(json)) = (folder, serde_json::to_vec_pretty(&best)) {
        cache::store(folder, &key, &json);
    }
    Ok(signatures.iter().map(|s| best[s]).collect())
}

/// The fastest variant by signature; `None` if the driver has no clock.
fn measure(
    driver: &Arc<dyn Driver>,
    network: &Network,
    signatures: &[String],
) -> Result<Option<BTreeMap<String, Variant>>, CudaError> {
    // Every variant runs over the same memory: the weights of the largest, whatever they hold, and
    // the arena.
    let arena = DeviceMemory::new(driver, MemoryKind::Device, network.layout.arena)?;
    let weights = DeviceMemory::new(driver, MemoryKind::Device, most_weights(network))?;
    driver.upload(arena.device(), &vec![0; network.layout.arena])?;
    driver.upload(weights.device(), &vec![0; weights.len()])?;
    let bases = Bases { arena: arena.device(), weights: weights.device() };
    let mut best = BTreeMap::new();
    for (s, signature) in signatures.iter().enumerate() {
        if best.contains_key(signature) {
            continue;
        }
        let variants = network.variants(s);
        let mut fastest = (f32::INFINITY, variants[0]);
        for &variant in variants.iter().filter(|_| variants.len() > 1) {
            let nodes = network.step_nodes(s, variant, (0, 0), bases);
            driver.prepare(&nodes)?;
            let Some(times) = driver.time(&nodes, RUNS)? else { return Ok(None) };
            let time: f32 = times.iter().sum();
            if time < fastest.0 {
                fastest = (time, variant);
            }
        }
        best.insert(signature.clone(), fastest.1);
    }
    Ok(Some(best))
}

/// Bytes that hold any step's weights in any variant: padding at most doubles each side of a
/// matrix, up to 64 channels.
fn most_weights(network: &Network) -> usize {
    let plan = &network.layout.plan;
    let of = |s: &crate::plan::PlanStep| match s.work {
        crate::plan::Work::Conv { conv, .. } => {
            let (from, to) = (network.view(s.inputs[0]).shape.channels, network.view(s.output).shape.channels);
            4 * conv.kernel * conv.kernel * from.next_multiple_of(64) * to.next_multiple_of(128)
                + 16 * to.next_multiple_of(128)
                + 512
        }
        _ => 0,
    };
    plan.steps.iter().map(of).max().unwrap_or(0)
}

/// Reads what `measure` found; `None` if it does not fit the network.
fn parse(bytes: &[u8], network: &Network, signatures: &[String]) -> Option<Vec<Variant>> {
    let best: BTreeMap<String, Variant> = serde_json::from_slice(bytes).ok()?;
    let of = |(s, signature): (usize, &String)| {
        best.get(signature).copied().filter(|variant| network.variants(s).contains(variant))
    };
    signatures.iter().enumerate().map(of).collect()
}
