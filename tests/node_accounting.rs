//! The five counts add up on the real frame path under whatever the cameras and the clock do.
#![cfg(feature = "ros")]

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peregrine::pipeline::monitor::Monitor;
use peregrine::pipeline::{now_ns, Ledger};
use peregrine::ros::clock::Instant;
use peregrine::ros::engines::Recipe;
use peregrine::ros::frame_path::{FramePath, Outlet, Shared};
use peregrine::ros::incoming::ImageMessage;
use peregrine::ros::intake::Arrivals;
use peregrine::ros::live::LiveSettings;
use peregrine::ros::parameters::Parameters;
use peregrine::ros::qos::TopicQos;
use peregrine::ros::realtime::Profile;
use peregrine::ros::scene::Scene;
use peregrine::ros::topics::CameraTopics;
use proptest::prelude::*;
use r2r::{NativeMsg, ParameterValue, QosProfile};

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

fn image(stamp: i64, usable: bool) -> ImageMessage {
    let mut message = NativeMsg::<r2r::sensor_msgs::msg::Image>::new();
    message.header.stamp.sec = (stamp.div_euclid(1_000_000_000)) as i32;
    message.header.stamp.nanosec = stamp.rem_euclid(1_000_000_000) as u32;
    message.encoding.assign(if usable { "mono8" } else { "mono12" });
    (message.width, message.height, message.step) = (32, 32, 32);
    message.data.update(&[127u8; 32 * 32]);
    ImageMessage::Raw(message)
}

/// The node's real parts but for the subscription.
struct Bench {
    _node: r2r::Node,
    path: FramePath,
    arrivals: Vec<Arrivals>,
    shared: Arc<Shared>,
    parameters: Parameters,
    ros_offset: i64,
    /// ROS time while it stands still.
    paused: Option<i64>,
    /// Of each camera, the stamp of its last image, and whether it could be used.
    last: [(i64, bool); CAMERAS],
}

// SAFETY: used by one thread at a time, behind a mutex; what it holds is the frame thread's, which is sent there too.
unsafe impl Send for Bench {}

impl Bench {
    fn new() -> Self {
        std::env::set_var("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST");
        std::env::set_var("ROS_DOMAIN_ID", (1 + std::process::id() % 101).to_string());
        let mut node = r2r::Node::create(r2r::Context::create().unwrap(), "accounting", "").unwrap();
        let small = |name: &str, n| (name.to_owned(), ParameterValue::Integer(n));
        let parameters =
            Parameters::with([small("input_width", 32), small("input_height", 32), small("threads", 1)]).unwrap();
        let (engines, _) = Recipe::new(&parameters, Profile::default()).build().unwrap();
        let ledgers = (0..CAMERAS).map(|_| Arc::new(Ledger::new())).collect();
        let shared = Arc::new(Shared::new(ledgers, LiveSettings::new(&parameters)));
        let architecture = engines.architecture.clone();
        let mut outlet = |camera: usize| Outlet {
            detections: node.create_publisher(&format!("c{camera}/detections"), QosProfile::default()).unwrap(),
            timing: node.create_publisher(&format!("c{camera}/timing"), QosProfile::default()).unwrap(),
            road_mask: node.create_publisher(&format!("c{camera}/road_mask"), QosProfile::default()).unwrap(),
            segmentation: node.create_publisher(&format!("c{camera}/segmentation"), QosProfile::default()).unwrap(),
            scene: {
                let qos = TopicQos::new(&node, &parameters).unwrap();
                let name = format!("c{camera}");
                let topics = CameraTopics::new(&name, &qos);
                Scene::create(&mut node, &parameters, &architecture, "/image", &topics).unwrap().0
            },
            monitor: Monitor::default(),
            last_arrival: 0,
        };
        let outlets = (0..CAMERAS).map(&mut outlet).collect();
        let path = FramePath::new(engines, outlets, Arc::clone(&shared), false);
        let mut arrivals: Vec<_> = (0..CAMERAS).map(|camera| Arrivals::new(camera, Arc::clone(&shared))).collect();
        arrivals.iter_mut().for_each(|a| a.active = true);
        Self {
            _node: node,
            path,
            arrivals,
            shared,
            parameters,
            ros_offset: 1_700_000_000_000_000_000,
            paused: None,
            last: [(0, true); CAMERAS],
        }
    }

    fn now(&self) -> Instant {
        let monotonic = now_ns();
        Instant { ros: self.paused.unwrap_or(monotonic as i64 + self.ros_offset), monotonic }
    }

    /// An image arrives, as the spinning thread would take it.
    fn arrive(&mut self, camera: usize, stamp: i64, usable: bool) {
        let now = self.now();
        self.shared.ros_offset.store(now.ros - now.monotonic as i64, Relaxed);
        self.arrivals[camera].accept(image(stamp, usable), now);
        self.last[camera] = (stamp, usable);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_five_counts_add_up_at_every_instant(events in prop::collection::vec(event(), 1..60)) {
        static BENCH: Mutex<Option<Bench>> = Mutex::new(None);
        if std::env::var_os("AMENT_PREFIX_PATH").is_none() {
            eprintln!("skipped: there is no ROS 2 environment; run `. launch/setup/env.sh` first");
            return Ok(());
        }
        let mut bench = BENCH.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let bench = bench.get_or_insert_with(Bench::new);
        while bench.path.turn(Duration::ZERO) {}
        let start: Vec<_> = bench.shared.cameras.iter().map(|c| c.ledger.counts()).collect();
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
                    bench.path.turn(Duration::ZERO);
                },
                Event::Jump(ms) => bench.ros_offset = (bench.ros_offset + ms * 1_000_000).max(1),
                Event::Pause(still) => bench.paused = still.then(|| bench.now().ros),
                Event::Policy { deadline_ms, drop_late } => {
                    let policy = if drop_late { "drop_late" } else { "publish_late" };
                    bench.parameters.set("deadline_ms", ParameterValue::Double(deadline_ms)).unwrap();
                    bench.parameters.set("deadline_policy", ParameterValue::String(policy.into())).unwrap();
                    bench.shared.settings.store(&bench.parameters);
                }
            }
            for (camera, watched) in bench.shared.cameras.iter().enumerate() {
                let counts = watched.ledger.counts();
                prop_assert_eq!(counts.arrived - start[camera].arrived, arrived[camera]);
                prop_assert_eq!(counts.arrived, counts.ended() + counts.in_hand);
                prop_assert!(counts.in_hand <= 1, "one frame waits at most, and none is in work");
                prop_assert_eq!(counts.rejected - start[camera].rejected, unusable[camera]);
            }
        }
        while bench.path.turn(Duration::ZERO) {}
        prop_assert!(bench.shared.is_idle());
        for (camera, watched) in bench.shared.cameras.iter().enumerate() {
            // Each frame that got as far as that left one record, and no more are kept than there is room for.
            let counts = watched.ledger.counts();
            let worked_on = counts.ended() - counts.superseded - (start[camera].ended() - start[camera].superseded);
            prop_assert_eq!(watched.records.len() as u64, worked_on.min(watched.records.capacity() as u64));
            while watched.records.pop().is_some() {}
            watched.condition.store(0, Relaxed);
        }
    }
}
