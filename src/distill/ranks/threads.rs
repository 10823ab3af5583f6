//! Ranks that are threads of one process: for tests, which need no MPI.

use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::{Ranks, Transport};

/// One of several threads, each with a channel to and from every other.
struct Thread {
    rank: usize,
    senders: Vec<Sender<Vec<u8>>>,
    receivers: Mutex<Vec<Receiver<Vec<u8>>>>,
}

impl Thread {
    fn send(&self, to: usize, bytes: &[u8]) {
        self.senders[to].send(bytes.to_vec()).expect("the other rank has ended");
    }

    /// What each rank sent, in their order.
    fn receive(&self, into: &mut [u8]) {
        if into.is_empty() {
            return;
        }
        let part = into.len() / self.senders.len();
        let receivers = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        for (into, from) in into.chunks_mut(part).zip(&*receivers) {
            into.copy_from_slice(&from.recv().expect("the other rank has ended"));
        }
    }
}

impl Transport for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.senders.len()
    }

    fn gather(&self, part: &[u8], all: &mut [u8]) {
        if !part.is_empty() {
            (0..self.size()).for_each(|to| self.send(to, part));
        }
        self.receive(all);
    }

    fn exchange(&self, parts: &[u8], received: &mut [u8]) {
        let part = (parts.len() / self.size()).max(1);
        parts.chunks(part).enumerate().for_each(|(to, part)| self.send(to, part));
        self.receive(received);
    }

    fn broadcast(&self, bytes: &mut [u8]) {
        let mut all = vec![0; bytes.len() * self.size()];
        self.gather(bytes, &mut all);
        bytes.copy_from_slice(&all[..bytes.len()]);
    }

    fn abort(&self) {
        panic!("rank {} ends all", self.rank);
    }
}

/// Runs `work` on as many ranks as `size` says; what each returns, in their order.
///
/// # Panics
/// When `work` panics on one of them.
pub fn on_ranks<T: Send>(size: usize, work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    // To each rank, from each.
    let mut to: Vec<Vec<Sender<Vec<u8>>>> = (0..size).map(|_| Vec::new()).collect();
    let mut from: Vec<Vec<Receiver<Vec<u8>>>> = (0..size).map(|_| Vec::new()).collect();
    for sender in &mut to {
        for receiver in &mut from {
            let (send, receive) = channel();
            sender.push(send);
            receiver.push(receive);
        }
    }
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = to
            .into_iter()
            .zip(from)
            .enumerate()
            .map(|(rank, (senders, receivers))| {
                let thread = Thread { rank, senders, receivers: Mutex::new(receivers) };
                scope.spawn(move || work(Ranks::new(Arc::new(thread))))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a rank panicked")).collect()
    })
}
