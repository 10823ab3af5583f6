//! The five counts add up on the real frame path under whatever the cameras and the clock do.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Mutex;
use std::time::Duration;

use peregrine_core::now_ns;
use peregrine_ros::clock::Instant;
use peregrine_ros::parameters::Parameters;
use proptest::prelude::*;
use r2r::ParameterValue;

use crate::in_process::{image, ros_is_absent, small, Parts};

const CAMERAS: usize = 2;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    /// Images of a camera arrive before the frame thread has time for any: stamped so many ms before now (negative
    /// for the future), some of them unusable.
    Burst { camera: usize, images: Vec<(i64, bool)> },
    /// The last image of a camera comes again, stamp and all, so many times.
    Repeat { camera: usize, times: u8 },
    /// The frame thread has time for so many. While it has none, the schedule stalls.
    Work(u8),
    /// The ROS clock jumps by so many ms, or simulated time starts anew.
    Jump(i64),
    /// Simulated time stands still, or runs again.
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
        4 => (1u8..5).prop_map(Event::Work),
        1 => prop_oneof![-100_000i64..100_000, Just(-1_700_000_000_000)].prop_map(Event::Jump),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => (0.0f64..150.0, any::<bool>()).prop_map(|(deadline_ms, drop_late)| Event::Policy { deadline_ms, drop_late }),
    ]
}

/// The node's real parts, and the clock that they live by.
struct Bench {
    parts: Parts,
    parameters: Parameters,
    ros_offset: i64,
    /// ROS time while it stands still.
    paused: Option<i64>,
    /// Of each camera, the stamp of its last image, and whether it could be used.
    last: [(i64, bool); CAMERAS],
}

impl Bench {
    fn new() -> Self {
        let parameters = small([]);
        let parts = Parts::new("accounting", CAMERAS, &parameters);
        Self { parts, parameters, ros_offset: 1_700_000_000_000_000_000, paused: None, last: [(0, true); CAMERAS] }
    }

    fn now(&self) -> Instant {
        let monotonic = now_ns();
        Instant { ros: self.paused.unwrap_or(monotonic as i64 + self.ros_offset), monotonic }
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
    fn the_five_counts_add_up_at_every_instant(events in prop::collection::vec(event(), 1..60)) {
        static BENCH: Mutex<Option<Bench>> = Mutex::new(None);
        if ros_is_absent() {
            return Ok(());
        }
        let mut bench = BENCH.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let bench = bench.get_or_insert_with(Bench::new);
        while bench.parts.path.turn(Duration::ZERO) {}
        let start: Vec<_> = bench.parts.shared.cameras.iter().map(|c| c.ledger.counts()).collect();
        let (mut arrived, mut unusable) = ([0; CAMERAS], [0; CAMERAS]);
        for event in events {
            match event {
                Event::Burst { camera, images } => for (age_ms, broken) in images {
                    // A stamp before 1970 does not fit the message; 0 stands for none.
                    let stamp = (bench.now().ros - age_ms * 1_000_000).max(0);
                    bench.arrive(camera, stamp, !broken);
                    arrived[camera] += 1;
                    unusable[camera] += u64::from(broken);
                },
                Event::Repeat { camera, times } => for _ in 0..times {
                    let (stamp, usable) = bench.last[camera];
                    bench.arrive(camera, stamp, usable);
                    arrived[camera] += 1;
                    unusable[camera] += u64::from(!usable);
                },
                Event::Work(frames) => for _ in 0..frames {
                    bench.parts.path.turn(Duration::ZERO);
                },
                Event::Jump(ms) => bench.ros_offset = (bench.ros_offset + ms * 1_000_000).max(1),
                Event::Pause(still) => bench.paused = still.then(|| bench.now().ros),
                Event::Policy { deadline_ms, drop_late } => {
                    let policy = if drop_late { "drop_late" } else { "publish_late" };
                    bench.parameters.set("deadline_ms", ParameterValue::Double(deadline_ms)).unwrap();
                    bench.parameters.set("deadline_policy", ParameterValue::String(policy.into())).unwrap();
                    bench.parts.shared.settings.store(&bench.parameters);
                }
            }
            for (camera, watched) in bench.parts.shared.cameras.iter().enumerate() {
                let counts = watched.ledger.counts();
                prop_assert_eq!(counts.arrived - start[camera].arrived, arrived[camera]);
                prop_assert_eq!(counts.arrived, counts.ended() + counts.in_flight);
                prop_assert!(counts.in_flight <= 1, "one frame waits at most, and none is in work");
                prop_assert_eq!(counts.rejected - start[camera].rejected, unusable[camera]);
            }
        }
        while bench.parts.path.turn(Duration::ZERO) {}
        prop_assert!(bench.parts.shared.is_idle());
        for (camera, watched) in bench.parts.shared.cameras.iter().enumerate() {
            // Each frame that got as far as that left one record, and no more are kept than there is room for.
            let counts = watched.ledger.counts();
            let worked_on = counts.ended() - counts.superseded - (start[camera].ended() - start[camera].superseded);
            prop_assert_eq!(watched.records.len() as u64, worked_on.min(watched.records.capacity() as u64));
            while watched.records.pop().is_some() {}
            watched.condition.store(0, Relaxed);
        }
    }
}
