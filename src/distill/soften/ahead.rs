//! Images that are read and decoded while the teachers look at those before.

use std::sync::mpsc::sync_channel;
use std::thread;

use image::RgbImage;
use peregrine_core::files::sha256;

use crate::data::{load_image, DataError, Sample};

/// Images that wait at most: decoding takes a fraction of a teacher's time.
const AHEAD: usize = 4;

/// An image, and the SHA-256 of its file.
pub(super) type Loaded = Result<(RgbImage, String), DataError>;

/// Calls `f` with each sample and its image, in order, until it fails.
///
/// # Errors
/// Those of `f`.
pub(super) fn for_each<'a>(
    samples: &'a [Sample],
    mut f: impl FnMut(&'a Sample, Loaded) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (ready, next) = sync_channel(AHEAD);
    thread::scope(|scope| {
        scope.spawn(move || {
            for sample in samples {
                // Nobody takes it where `f` has failed.
                if ready.send((sample, load(sample))).is_err() {
                    return;
                }
            }
        });
        next.into_iter().try_for_each(|(sample, loaded)| f(sample, loaded))
    })
}

fn load(sample: &Sample) -> Loaded {
    let image = load_image(&sample.image)?;
    let bytes = std::fs::read(&sample.image).map_err(|source| DataError::Io { path: sample.image.clone(), source })?;
    Ok((image, sha256(&bytes)))
}
