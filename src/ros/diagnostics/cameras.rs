//! The histories of the cameras, and what of them outlives a configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::board::{StatusBoard, StreamInfo};
use super::history::{Rejections, StreamHistory};
use crate::shared::{CameraShared, NodeShared};

/// The cameras of the current configuration, if there is one, and the rejections of all cameras
/// that there ever were: like the frame accounting, their counts continue when the node is
/// configured again.
#[derive(Default)]
pub struct Cameras {
    current: Option<Current>,
    /// By the camera's name.
    rejections: BTreeMap<String, Rejections>,
}

/// The cameras of a configuration, known by what it shares.
struct Current {
    shared: Arc<NodeShared>,
    histories: Vec<(String, StreamHistory)>,
}

impl Cameras {
    /// The cameras of `board`, in its order.
    pub fn of(
        &mut self,
        board: &StatusBoard,
        now: Instant,
    ) -> impl Iterator<Item = (&mut StreamHistory, &CameraShared)> {
        let is_known = match (&self.current, &board.shared) {
            (Some(current), Some(shared)) => Arc::ptr_eq(&current.shared, shared),
            (current, shared) => current.is_none() && shared.is_none(),
        };
        if !is_known {
            self.put_away(now);
            self.current = board.shared.as_ref().map(|shared| self.begin(shared, board, now));
        }
        let current = self.current.iter_mut();
        current
            .flat_map(|current| current.histories.iter_mut().map(|(_, history)| history).zip(&current.shared.cameras))
    }

    fn begin(&mut self, shared: &Arc<NodeShared>, board: &StatusBoard, now: Instant) -> Current {
        let history = |(camera, stream): (&CameraShared, &StreamInfo)| {
            let rejections = self.rejections.remove(&stream.name).unwrap_or_default();
            (stream.name.clone(), StreamHistory::new(now, camera, rejections))
        };
        let histories = shared.cameras.iter().zip(&board.streams).map(history).collect();
        Current { shared: Arc::clone(shared), histories }
    }

    /// Updates the histories of the previous configuration for the last time, and keeps what
    /// outlives it.
    fn put_away(&mut self, now: Instant) {
        let Some(Current { shared, histories }) = self.current.take() else { return };
        for ((name, mut history), camera) in histories.into_iter().zip(&shared.cameras) {
            history.update(camera, now);
            self.rejections.insert(name, history.into_rejections());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::LiveSettings;
    use crate::parameters::Parameters;
    use crate::record::{Record, Rejection};
    use peregrine_core::{FrameAccounting, FrameOutcome};

    /// A board of a node with one camera.
    fn board(accounting: &Arc<FrameAccounting>) -> StatusBoard {
        let shared = NodeShared::new(vec![Arc::clone(accounting)], LiveSettings::new(&Parameters::default()));
        let (name, topic) = ("rear".into(), "/rear/image".into());
        let stream = StreamInfo { name, topic, publishers: "".into(), rivals: None, ground: Ok("".into()) };
        StatusBoard { shared: Some(Arc::new(shared)), streams: vec![stream], ..StatusBoard::default() }
    }

    fn reject(board: &StatusBoard) {
        let camera = &board.shared.as_ref().unwrap().cameras[0];
        camera.accounting.arrive();
        camera.accounting.end(FrameOutcome::Rejected);
        camera.records.force_push(Record::Rejected(Rejection::Publishing));
    }

    #[test]
    fn rejections_are_counted_across_configurations() {
        let (now, accounting, mut cameras) = (Instant::now(), Arc::default(), Cameras::default());
        let mut rejected = |board: &StatusBoard| {
            let mut known: Vec<_> = cameras.of(board, now).collect();
            let counts: Vec<_> =
                known.iter_mut().map(|(m, camera)| (m.update(camera, now), m.rejected("publishing"))).collect();
            counts.first().map(|(counts, publishing)| (counts.rejected, *publishing))
        };
        let first = board(&accounting);
        reject(&first);
        assert_eq!(rejected(&first), Some((1, 1)));
        // Before the diagnostics look again, and the node is not configured for a while.
        reject(&first);
        assert_eq!(rejected(&StatusBoard::default()), None);
        let second = board(&accounting);
        assert_eq!(rejected(&second), Some((2, 2)));
        reject(&second);
        assert_eq!(rejected(&second), Some((3, 3)));
        assert_eq!(rejected(&board(&accounting)), Some((3, 3)), "at once after another configuration");
    }
}
