//! The processes that train one network together, each on its part of every batch: "ranks", as MPI
//! calls them.
//!
//! - [`launcher`]: whether this process is one of several, and how it joins them.
//! - `mpi` (feature `mpi`): ranks that MPI connects; `threads`: threads of one process, for tests.
//! - [`tensors`]: what the losses need of the other ranks' part of a batch.
//!
//! All ranks must make the same calls here in the same order, also one that has nothing to add: each
//! call waits for all. Sums are made in the order of the ranks and are equal on all to the last bit,
//! so that what they compute from them stays equal.

pub mod launcher;
#[cfg(feature = "mpi")]
mod mpi;
pub mod tensors;
#[cfg(test)]
pub(crate) mod threads;

use std::fmt;
use std::sync::Arc;

use anyhow::{anyhow, Context};

/// A connection between ranks.
pub trait Transport: Send + Sync {
    /// This process's number, from 0 on.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// Gives every rank the parts of all, which are of one length, in the ranks' order.
    fn gather(&self, part: &[u8], all: &mut [u8]);

    /// Sends the i-th of as many equal parts as there are ranks to rank i, and receives one from
    /// each, in the ranks' order.
    fn exchange(&self, parts: &[u8], received: &mut [u8]);

    /// Gives every rank the bytes of rank 0.
    fn broadcast(&self, bytes: &mut [u8]);

    /// Ends all ranks, without waiting for them.
    fn abort(&self);
}

/// The ranks of a training, as one of them sees them.
#[derive(Clone, Default)]
pub struct Ranks(Option<Arc<dyn Transport>>);

/// The error of a rank for which another one failed, and says why.
#[derive(Debug, thiserror::Error)]
#[error("another rank failed, and says why")]
struct Elsewhere;

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

impl Ranks {
    /// One process that trains alone: nothing here costs it anything.
    pub fn alone() -> Self {
        Self(None)
    }

    /// Those that `transport` connects.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self(Some(transport).filter(|transport| transport.size() > 1))
    }

    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |transport| transport.rank())
    }

    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |transport| transport.size())
    }

    pub fn is_alone(&self) -> bool {
        self.0.is_none()
    }

    /// Whether this is rank 0, which alone writes files and tells of the training.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Replaces `values` by their sums over the ranks.
    pub fn sum(&self, values: &mut [f64]) {
        let Some(transport) = &self.0 else { return };
        let mut all = vec![0.0f64; values.len() * transport.size()];
        transport.gather(bytemuck::cast_slice(values), bytemuck::cast_slice_mut(&mut all));
        add_in_order(&all, values);
    }

    /// The sum of a value over the ranks.
    pub fn total(&self, value: f64) -> f64 {
        let mut sum = [value];
        self.sum(&mut sum);
        sum[0]
    }

    /// As [`sum`](Self::sum) for many values: each rank sums a part of them, and tells the others.
    pub fn sum_many(&self, values: &mut [f32]) {
        let Some(transport) = &self.0 else { return };
        let part = values.len().div_ceil(transport.size());
        let mut parts = values.to_vec();
        parts.resize(part * transport.size(), 0.0);
        let mut received = vec![0.0f32; parts.len()];
        transport.exchange(bytemuck::cast_slice(&parts), bytemuck::cast_slice_mut(&mut received));
        let mut sums = vec![0.0f32; part];
        add_in_order(&received, &mut sums);
        transport.gather(bytemuck::cast_slice(&sums), bytemuck::cast_slice_mut(&mut parts));
        values.copy_from_slice(&parts[..values.len()]);
    }

    /// The values of each rank, of which each may have another number.
    pub fn gather(&self, values: &[f32]) -> Vec<Vec<f32>> {
        let Some(transport) = &self.0 else { return vec![values.to_vec()] };
        let mut lengths = vec![0.0; transport.size()];
        lengths[transport.rank()] = values.len() as f64;
        self.sum(&mut lengths);
        let longest = lengths.iter().fold(0.0f64, |a, &b| a.max(b)) as usize;
        let mut part = values.to_vec();
        part.resize(longest, 0.0);
        let mut all = vec![0.0f32; longest * transport.size()];
        transport.gather(bytemuck::cast_slice(&part), bytemuck::cast_slice_mut(&mut all));
        let of = |(rank, &length): (usize, &f64)| all[rank * longest..][..length as usize].to_vec();
        lengths.iter().enumerate().map(of).collect()
    }

    /// Replaces `values` by those of rank 0.
    pub fn broadcast(&self, values: &mut [f32]) {
        if let Some(transport) = &self.0 {
            transport.broadcast(bytemuck::cast_slice_mut(values));
        }
    }

    /// The number that rank 0 has (below 2⁵³).
    pub fn number_of_first(&self, number: u64) -> u64 {
        self.total(if self.is_first() { number as f64 } else { 0.0 }) as u64
    }

    /// Passes `result` on if no rank has failed.
    ///
    /// # Errors
    /// The lowest rank that failed keeps its error; that of all others names no cause.
    pub fn agree<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        let Some(transport) = &self.0 else { return result };
        let mut failed = vec![0.0; transport.size()];
        failed[transport.rank()] = f64::from(u8::from(result.is_err()));
        self.sum(&mut failed);
        match failed.iter().position(|&failed| failed > 0.0) {
            None => result,
            Some(first) if first == transport.rank() => {
                result.with_context(|| format!("rank {first} of {}", transport.size()))
            }
            Some(_) => Err(Elsewhere.into()),
        }
    }

    /// Does `work` on rank 0 alone, for which the others wait.
    ///
    /// # Errors
    /// As [`agree`](Self::agree).
    pub fn first<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        self.agree(self.is_first().then(work).transpose())
    }

    /// Does `work` on rank 0, and then, with what that has left on disk, on the others.
    ///
    /// # Errors
    /// As [`agree`](Self::agree).
    pub fn first_before_others<T>(&self, mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        match self.first(&mut work)? {
            Some(done) => self.agree(Ok(done)),
            None => self.agree(work()),
        }
    }

    /// Refuses ranks of which one has another `fingerprint` (hexadecimal) than rank 0.
    ///
    /// # Errors
    /// Names the rank, and `what` the fingerprint is of.
    pub fn refuse_unequal(&self, what: &str, fingerprint: &str) -> anyhow::Result<()> {
        let values: Vec<f32> = fingerprint.bytes().map(f32::from).collect();
        let all = self.gather(&values);
        let Some(other) = all.iter().position(|of_rank| of_rank != &all[0]) else { return Ok(()) };
        self.told_by_first(Err(anyhow!("rank {other} has another {what} than rank 0: give all ranks the same files")))
    }

    /// Passes on what is the same on all ranks: of an error only rank 0 says why.
    ///
    /// # Errors
    /// `result`'s.
    pub fn told_by_first<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        if self.is_first() {
            return result;
        }
        result.map_err(|_| Elsewhere.into())
    }

    /// The end of a training: an error is told once, in one line, and ends all ranks.
    ///
    /// # Errors
    /// `result`'s.
    pub fn end<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        if let (Some(transport), Err(error)) = (&self.0, &result) {
            if !error.is::<Elsewhere>() {
                tracing::error!("{error:#}");
                transport.abort();
            }
        }
        result
    }
}

/// `sums[i] = parts[0][i] + parts[1][i] + …`, in this order.
fn add_in_order<T: Copy + std::ops::AddAssign>(parts: &[T], sums: &mut [T]) {
    if sums.is_empty() {
        return;
    }
    let (first, others) = parts.split_at(sums.len());
    sums.copy_from_slice(first);
    for part in others.chunks(sums.len()) {
        sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += *value);
    }
}

#[cfg(test)]
mod tests {
    use super::threads::on_ranks;

    #[test]
    fn sums_are_those_of_all_ranks_and_equal_on_each() {
        for size in [1, 2, 3] {
            let sums = on_ranks(size, |ranks| {
                let rank = ranks.rank() as f32;
                let mut many: Vec<f32> = (0..7).map(|i| i as f32 + 10.0 * rank).collect();
                ranks.sum_many(&mut many);
                (ranks.total(f64::from(rank + 1.0)), many, ranks.gather(&vec![rank; ranks.rank()]))
            });
            let ranks = || (0..size).map(|rank| rank as f32);
            let many: Vec<f32> = (0..7).map(|i| ranks().map(|rank| i as f32 + 10.0 * rank).sum()).collect();
            let total = ranks().map(|rank| f64::from(rank + 1.0)).sum::<f64>();
            let gathered: Vec<Vec<f32>> = (0..size).map(|rank| vec![rank as f32; rank]).collect();
            assert!(sums.iter().all(|sum| *sum == (total, many.clone(), gathered.clone())), "{size}: {sums:?}");
        }
    }

    #[test]
    fn the_lowest_rank_that_failed_says_why() {
        let errors = on_ranks(3, |ranks| {
            let result = if ranks.rank() == 0 { Ok(()) } else { Err(anyhow::anyhow!("no disk")) };
            format!("{:#}", ranks.agree(result).unwrap_err())
        });
        assert_eq!(errors[1], "rank 1 of 3: no disk");
        assert!(errors[0] == errors[2] && !errors[0].contains("no disk"), "{errors:?}");
    }

    #[test]
    fn a_rank_with_other_files_is_named() {
        let errors = on_ranks(3, |ranks| {
            let text = if ranks.rank() == 2 { "ab" } else { "aa" };
            ranks.refuse_unequal("train.toml", text).map_err(|e| format!("{e:#}")).err()
        });
        let first = errors[0].as_ref().unwrap();
        assert!(first.contains("rank 2 has another train.toml"), "{first}");
        assert!(errors.iter().all(Option::is_some));
        assert_eq!(on_ranks(2, |ranks| ranks.refuse_unequal("train.toml", "a").is_ok()), [true, true]);
    }

    #[test]
    fn rank_0_goes_first_and_gives_its_values() {
        let found = on_ranks(2, |ranks| {
            let mut values = [ranks.rank() as f32 + 5.0; 3];
            ranks.broadcast(&mut values);
            (values, ranks.number_of_first(7 + ranks.rank() as u64), ranks.first(|| Ok(1)).unwrap())
        });
        assert_eq!(found, [([5.0; 3], 7, Some(1)), ([5.0; 3], 7, None)]);
    }
}
