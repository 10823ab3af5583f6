//! Ranks that MPI connects.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use mpi::Threading;

use super::Transport;

/// All processes that were started together.
pub(super) struct Mpi {
    /// MPI ends with it.
    _universe: Universe,
    /// Held during a call: MPI is asked for no more than one at a time.
    calling: Mutex<()>,
}

impl Mpi {
    /// Starts MPI in this process.
    pub fn start() -> anyhow::Result<Self> {
        let started = mpi::initialize_with_threading(Threading::Serialized).context("MPI was started before")?;
        Ok(Self { _universe: started.0, calling: Mutex::new(()) })
    }

    fn calling(&self) -> (MutexGuard<'_, ()>, SimpleCommunicator) {
        (self.calling.lock().unwrap_or_else(PoisonError::into_inner), SimpleCommunicator::world())
    }
}

/// An error of MPI itself, as when a connection breaks, ends all processes, with MPI's own message.
impl Transport for Mpi {
    fn rank(&self) -> usize {
        usize::try_from(SimpleCommunicator::world().rank()).expect("MPI counts from 0 on")
    }

    fn size(&self) -> usize {
        usize::try_from(SimpleCommunicator::world().size()).expect("MPI counts from 0 on")
    }

    fn gather(&self, part: &[u8], all: &mut [u8]) {
        let (_calling, world) = self.calling();
        world.all_gather_into(part, all);
    }

    fn exchange(&self, parts: &[u8], received: &mut [u8]) {
        let (_calling, world) = self.calling();
        world.all_to_all_into(parts, received);
    }

    fn broadcast(&self, bytes: &mut [u8]) {
        let (_calling, world) = self.calling();
        world.process_at_rank(0).broadcast_into(bytes);
    }

    fn abort(&self) {
        SimpleCommunicator::world().abort(1)
    }
}

/// A rank that panics ends all others, which would wait for it.
impl Drop for Mpi {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort();
        }
    }
}
