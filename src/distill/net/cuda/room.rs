//! Whether a training fits into the device's memory, and if not, which batch does.

use anyhow::{bail, ensure};
use peregrine_engine::cuda::{CudaError, Driver};

use super::layout::{Layout, Training};

/// Memory that the driver itself takes for graphs and kernels, by experience.
const RESERVE: usize = 256 << 20;

/// The memory for images where the driver does not say how much is free.
const FOR_IMAGES: usize = 1 << 30;

/// Bytes of the device's memory that are left for images, once the training has its own.
pub fn for_images(driver: &dyn Driver) -> usize {
    let Some((free, total)) = driver.memory() else { return FOR_IMAGES };
    // What losses, graphs and other programs may still ask for. Memory that is the CPU's too is left for its
    // caches as well.
    let left = free.saturating_sub(RESERVE + total / 8);
    if driver.device().integrated {
        left / 2
    } else {
        left
    }
}

/// Says how much memory is missing, and which batch fits.
pub fn check(training: &Training, layout: &Layout, free: usize, multiprocessors: u32) -> anyhow::Result<()> {
    const SLOTS: usize = 2;
    let room = free.saturating_sub(RESERVE);
    let needed = layout.device_bytes(SLOTS);
    if needed <= room {
        return Ok(());
    }
    let fits =
        |batch: usize| training.layout(batch, multiprocessors).is_ok_and(|layout| layout.device_bytes(SLOTS) <= room);
    // The least batch that does not fit is in `least + 1..=most`.
    let (mut least, mut most) = (0, training.batch);
    while most - least > 1 {
        let middle = least + (most - least) / 2;
        if fits(middle) {
            least = middle;
        } else {
            most = middle;
        }
    }
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    let (needs, has) = (gib(needed + RESERVE), gib(free));
    ensure!(
        least > 0,
        "a batch of {} needs {needs:.2} GiB of the GPU's memory, of which {has:.2} GiB are free, and not even one image \
         fits; close other programs on it, choose a smaller input size, or use --device cpu",
        training.batch
    );
    bail!(
        "a batch of {} needs {needs:.2} GiB of the GPU's memory, of which {has:.2} GiB are free; batch = {least} fits: \
         set it, close other programs on the GPU, or use --device cpu",
        training.batch
    );
}

/// The same where the driver does not say beforehand what is free.
pub fn full(training: &Training, layout: &Layout, error: CudaError) -> anyhow::Error {
    match error {
        CudaError::OutOfMemory { .. } => anyhow::anyhow!(
            "a batch of {} needs {:.2} GiB of the GPU's memory, which it does not have; lower batch, close other \
             programs on the GPU, or use --device cpu",
            training.batch,
            layout.device_bytes(2) as f64 / f64::from(1 << 30)
        ),
        other => other.into(),
    }
}
