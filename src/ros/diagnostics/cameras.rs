//! What the diagnostics remember of each camera, from one time to the next and from one configuration to the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::stream::{Memory, Rejections};
use super::Board;
use crate::shared::{Camera, Shared};

/// The cameras of the configuration that there is, if there is one, and rejections of all that there ever was: like the
/// ledgers, their counts go on when the node is configured anew.
#[derive(Default)]
pub struct Cameras {
    current: Option<Current>,
    /// By the camera's name.
    rejections: BTreeMap<String, Rejections>,
}

/// The cameras of a configuration, known by what it shares.
struct Current {
    shared: Arc<Shared>,
    memories: Vec<(String, Memory)>,
}

impl Cameras {
    /// The cameras that `board` is about, in its order.
    pub fn of(&mut self, board: &Board, now: Instant) -> impl Iterator<Item = (&mut Memory, &Camera)> {
        let is_known = match (&self.current, &board.shared) {
            (Some(current), Some(shared)) => Arc::ptr_eq(&current.shared, shared),
            (current, shared) => current.is_none() && shared.is_none(),
        };
        if !is_known {
            self.put_away(now);
            self.current = board.shared.as_ref().map(|shared| self.begin(shared, board, now));
        }
        let current = self.current.iter_mut();
        current.flat_map(|current| current.memories.iter_mut().map(|(_, m)| m).zip(&current.shared.cameras))
    }

    fn begin(&mut self, shared: &Arc<Shared>, board: &Board, now: Instant) -> Current {
        let memory = |(camera, stream): (&Camera, &super::Stream)| {
            let rejections = self.rejections.remove(&stream.name).unwrap_or_default();
            (stream.name.clone(), Memory::new(now, camera, rejections))
        };
        let memories = shared.cameras.iter().zip(&board.streams).map(memory).collect();
        Current { shared: Arc::clone(shared), memories }
    }

    /// Learns the last of the configuration that was, and keeps what outlives it.
    fn put_away(&mut self, now: Instant) {
        let Some(Current { shared, memories }) = self.current.take() else { return };
        for ((name, mut memory), camera) in memories.into_iter().zip(&shared.cameras) {
            memory.learn(camera, now);
            self.rejections.insert(name, memory.into_rejections());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::Stream;
    use crate::live::LiveSettings;
    use crate::parameters::Parameters;
    use crate::record::{Record, Rejection};
    use peregrine_core::{FrameAccounting, FrameOutcome};

    /// A board of a node with one camera.
    fn board(ledger: &Arc<FrameAccounting>) -> Board {
        let shared = Shared::new(vec![Arc::clone(ledger)], LiveSettings::new(&Parameters::default()));
        let stream =
            Stream { name: "rear".into(), topic: "/rear/image".into(), publishers: "".into(), ground: "".into() };
        Board { shared: Some(Arc::new(shared)), streams: vec![stream], ..Board::default() }
    }

    fn reject(board: &Board) {
        let camera = &board.shared.as_ref().unwrap().cameras[0];
        camera.ledger.arrive();
        camera.ledger.end(FrameOutcome::Rejected);
        camera.records.force_push(Record::Rejected(Rejection::Publishing));
    }

    #[test]
    fn rejections_are_counted_on_when_the_node_is_configured_anew() {
        let (now, ledger, mut cameras) = (Instant::now(), Arc::default(), Cameras::default());
        let mut rejected = |board: &Board| {
            let mut known: Vec<_> = cameras.of(board, now).collect();
            let counts: Vec<_> =
                known.iter_mut().map(|(m, camera)| (m.learn(camera, now), m.rejected("publishing"))).collect();
            counts.first().map(|(counts, publishing)| (counts.rejected, *publishing))
        };
        let first = board(&ledger);
        reject(&first);
        assert_eq!(rejected(&first), Some((1, 1)));
        // Before the diagnostics look again, and the node is not configured for a while.
        reject(&first);
        assert_eq!(rejected(&Board::default()), None);
        let second = board(&ledger);
        assert_eq!(rejected(&second), Some((2, 2)));
        reject(&second);
        assert_eq!(rejected(&second), Some((3, 3)));
        assert_eq!(rejected(&board(&ledger)), Some((3, 3)), "at once after another configuration");
    }
}
