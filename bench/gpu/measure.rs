//! Times of many calls.

use std::time::Instant;

/// Wall-clock microseconds of `work`, as [`summary`] returns them.
pub fn measure<E: std::error::Error + Send + Sync + 'static>(
    frames: usize,
    mut work: impl FnMut() -> Result<(), E>,
) -> anyhow::Result<[f64; 4]> {
    summary(frames, || {
        let start = Instant::now();
        work()?;
        Ok((start.elapsed().as_secs_f64() * 1e6) as f32)
    })
}

/// p50, p99, p99.9 and maximum in microseconds of `frames` calls, after a tenth as many to warm up.
pub fn summary(frames: usize, mut time: impl FnMut() -> anyhow::Result<f32>) -> anyhow::Result<[f64; 4]> {
    let frames = frames.max(10);
    let mut times = Vec::with_capacity(frames);
    for i in 0..frames + frames / 10 {
        let us = time()?;
        if i >= frames / 10 {
            times.push(f64::from(us));
        }
    }
    Ok(percentiles(times))
}

/// The same of `kinds` kinds of work by the wall clock, of which `work` is told the number: in turn, so that what the clock
/// rates of the device or other programs do, they do to all of them.
pub fn interleaved(
    frames: usize,
    kinds: usize,
    mut work: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<[f64; 4]>> {
    let frames = frames.max(10);
    let mut times = vec![Vec::with_capacity(frames); kinds];
    for i in 0..frames + frames / 10 {
        for (kind, times) in times.iter_mut().enumerate() {
            let start = Instant::now();
            work(kind)?;
            let us = start.elapsed().as_secs_f64() * 1e6;
            if i >= frames / 10 {
                times.push(us);
            }
        }
    }
    Ok(times.into_iter().map(percentiles).collect())
}

fn percentiles(mut times: Vec<f64>) -> [f64; 4] {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((share * times.len() as f64).ceil() as usize).clamp(1, times.len()) - 1];
    [at(0.5), at(0.99), at(0.999), at(1.0)]
}
