//! Each frame gets exactly one outcome on the real frame path, whatever the cameras and the clocks
//! do.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Mutex;
use std::time::Duration;

use peregrine_core::now_ns;
use peregrine_ros::clock::ClockSample;
use peregrine_ros::parameters::Parameters;
use peregrine_support::ros_is_absent;
use proptest::prelude::*;
use r2r::ParameterValue;

use crate::in_process::{image, small, Parts};

const CAMERAS: usize = 2;

/// One event.
#[derive(Debug, Clone)]
enum Event {
    /// Images of a camera arrive before the frame thread has time for any: their ages in ms
    /// (negative for the future), and whether each is unusable.
    Burst { camera: usize, images: Vec<(i64, bool)> },
    /// The last image of a camera is repeated, with its stamp.
    Repeat { camera: usize, times: u8 },
    /// The frame thread has time for this number of frames.
    Process(u8),
    /// The ROS clock jumps by this number of ms, or simulated time restarts.
    Jump(i64),
    /// Simulated time is paused, or runs again.
    Pause(bool),
    /// The policy changes.
    Policy { deadline_ms: f64, drop_late: bool },
}

fn event() -> impl Strategy<Value = Event> {
    let age = prop_oneof![Just(0i64), -100i64..200, Just(5_000_000), Just(-5_000_000)];
    let images = prop::collection::vec((age, prop::bool::weighted(0.2)), 1..6);
    prop_oneof![
        4 => (0..CAMERAS, images).prop_map(|(camera, images)| Event::Burst { camera, images }),
        1 => (0..CAMERAS, 1u8..4).prop_map(|(camera, times)| Event::Repeat { camera, times }),
        4 => (1u8..5).prop_map(Event::Process),
        1 => prop_oneof![-100_000i64..100_000, Just(-1_700_000_000_000)].prop_map(Event::Jump),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => (0.0f64..150.0, any::<bool>()).prop_map(|(deadline_ms, drop_late)| Event::Policy { deadline_ms, drop_late }),
    ]
}

/// The real parts of the node, and their clock.
struct Rig {
    parts: Parts,
    parameters: Parameters,
    ros_offset: i64,
    /// ROS time while it is paused.
    paused: Option<i64>,
    /// Of each camera, the stamp of its last image, and whether it was usable.
    last: [(i64, bool); CAMERAS],
}

impl Rig {
    fn new() -> Self {
        let parameters = small([]);
        let parts = Parts::new("accounting", CAMERAS, &parameters);
        Self { parts, parameters, ros_offset: 1_700_000_000_000_000_000, paused: None, last: [(0, true); CAMERAS] }
    }

    fn now(&self) -> ClockSample {
        let monotonic = now_ns();
        ClockSample { ros: self.paused.unwrap_or(monotonic as i64 + self.ros_offset), monotonic }
    }

    /// An image arrives, as the spinning thread would take it.
    fn arrive(&mut self, camera: usize, stamp: i64, usable: bool) {
        let now = self.now();
        self.parts.shared.ros_offset.store(now.ros - now.monotonic as i64, Relaxed);
        self.parts.arrivals[camera].accept(image(stamp, if usable { "mono8" } else { "mono12" }), now);
        self.last[camera] = (stamp, usable);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_counts_add_up_at_every_instant(events in prop::collection::vec(event(), 1..60)) {
        static RIG: Mutex<Option<Rig>> = Mutex::new(None);
        if ros_is_absent() {
            return Ok(());
        }
        let mut rig = RIG.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let rig = rig.get_or_insert_with(Rig::new);
        while rig.parts.path.process_next(Duration::ZERO) {}
        let start: Vec<_> = rig.parts.shared.cameras.iter().map(|c| c.accounting.counts()).collect();
        let (mut arrived, mut unusable) = ([0; CAMERAS], [0; CAMERAS]);
        for event in events {
            match event {
                Event::Burst { camera, images } => for (age_ms, broken) in images {
                    // A stamp before 1970 does not fit the message; 0 stands for none.
                    let stamp = (rig.now().ros - age_ms * 1_000_000).max(0);
                    rig.arrive(camera, stamp, !broken);
                    arrived[camera] += 1;
                    unusable[camera] += u64::from(broken);
                },
                Event::Repeat { camera, times } => for _ in 0..times {
                    let (stamp, usable) = rig.last[camera];
                    rig.arrive(camera, stamp, usable);
                    arrived[camera] += 1;
                    unusable[camera] += u64::from(!usable);
                },
                Event::Process(frames) => for _ in 0..frames {
                    rig.parts.path.process_next(Duration::ZERO);
                },
                Event::Jump(ms) => rig.ros_offset = (rig.ros_offset + ms * 1_000_000).max(1),
                Event::Pause(still) => rig.paused = still.then(|| rig.now().ros),
                Event::Policy { deadline_ms, drop_late } => {
                    let policy = if drop_late { "drop_late" } else { "publish_late" };
                    rig.parameters.set("deadline_ms", ParameterValue::Double(deadline_ms)).unwrap();
                    rig.parameters.set("deadline_policy", ParameterValue::String(policy.into())).unwrap();
                    rig.parts.shared.settings.store(&rig.parameters);
                }
            }
            for (camera, watched) in rig.parts.shared.cameras.iter().enumerate() {
                let counts = watched.accounting.counts();
                prop_assert_eq!(counts.arrived - start[camera].arrived, arrived[camera]);
                prop_assert_eq!(counts.arrived, counts.ended() + counts.in_flight);
                prop_assert!(counts.in_flight <= 1, "one frame waits at most, and none is being processed");
                prop_assert_eq!(counts.rejected - start[camera].rejected, unusable[camera]);
            }
        }
        while rig.parts.path.process_next(Duration::ZERO) {}
        prop_assert!(rig.parts.shared.is_idle());
        for (camera, watched) in rig.parts.shared.cameras.iter().enumerate() {
            // Each frame that was processed left one record, up to the capacity of the queue.
            let counts = watched.accounting.counts();
            let processed = counts.ended() - counts.superseded - (start[camera].ended() - start[camera].superseded);
            prop_assert_eq!(watched.records.len() as u64, processed.min(watched.records.capacity() as u64));
            while watched.records.pop().is_some() {}
            watched.condition.store(0, Relaxed);
        }
    }
}
