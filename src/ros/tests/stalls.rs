//! A frame that hangs in any stage is noticed and named, one that panics in any stage is lost alone,
//! and rejections count as missed deadlines: on the real frame path.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{mpsc, Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use peregrine_core::now_ns;
use peregrine_pipeline::monitor::Condition;
use peregrine_pipeline::{Stage, StageObserver};
use peregrine_ros::clock::ClockSample;
use peregrine_ros::diagnostics::StatusBoard;
use peregrine_ros::intake::Arrivals;
use peregrine_ros::lifecycle::LifecycleState;
use peregrine_ros::record::Record;
use peregrine_ros::service_manager::ServiceManager;
use peregrine_ros::shared::NodeShared;
use peregrine_ros::watch::FrameWatch;
use peregrine_ros::watchdog::Watchdog;
use peregrine_support::ros_is_absent;
use r2r::ParameterValue;

use crate::in_process::{image, small, Parts};

const EPOCH: i64 = 1_700_000_000_000_000_000;
const LONGEST: Duration = Duration::from_secs(60);
const STALL_MS: f64 = 40.0;

/// What happens to a frame that enters a stage.
enum Fault {
    Hang(Mutex<bool>, Condvar),
    Panic(AtomicBool),
}

/// Tells the node's watch of each stage, and does what it is told to in one of them.
struct Faulty {
    watch: Arc<FrameWatch>,
    stage: Stage,
    fault: Fault,
}

impl Faulty {
    fn hang(watch: &Arc<FrameWatch>, stage: Stage) -> Arc<Self> {
        let fault = Fault::Hang(Mutex::new(true), Condvar::new());
        Arc::new(Self { watch: Arc::clone(watch), stage, fault })
    }

    fn panic(watch: &Arc<FrameWatch>, stage: Stage) -> Arc<Self> {
        Arc::new(Self { watch: Arc::clone(watch), stage, fault: Fault::Panic(AtomicBool::new(true)) })
    }

    /// Frames pass from now on.
    fn release(&self) {
        match &self.fault {
            Fault::Hang(hangs, released) => {
                *hangs.lock().unwrap() = false;
                released.notify_all();
            }
            Fault::Panic(panics) => panics.store(false, Relaxed),
        }
    }
}

impl StageObserver for Faulty {
    fn enter(&self, stage: Stage) {
        self.watch.enter(stage);
        match &self.fault {
            Fault::Hang(hangs, released) if stage == self.stage => {
                drop(released.wait_while(hangs.lock().unwrap(), |hangs| *hangs).unwrap());
            }
            Fault::Panic(panics) if stage == self.stage && panics.load(Relaxed) => {
                panic!("a fault in {}", stage.name())
            }
            _ => {}
        }
    }
}

fn arrive(arrivals: &mut Arrivals, encoding: &str) {
    let arrival = ClockSample { ros: EPOCH, monotonic: now_ns() };
    arrivals.accept(image(EPOCH, encoding), arrival);
}

fn pass(parts: &mut Parts, encoding: &str) -> bool {
    arrive(&mut parts.arrivals[0], encoding);
    parts.path.process_next(Duration::ZERO)
}

/// The stages of a frame on the CPU.
const STAGES: [Stage; 7] =
    [Stage::Unpack, Stage::Preprocess, Stage::Inference, Stage::Decode, Stage::Track, Stage::Publish, Stage::Outputs];

/// A watchdog of its own for `shared`, with a service manager that waits for 40 ms.
pub fn watchdog(
    shared: &Arc<NodeShared>,
    manager: Option<ServiceManager>,
) -> (thread::JoinHandle<()>, Arc<AtomicBool>) {
    let stop = Arc::new(AtomicBool::new(false));
    let board = StatusBoard { state: LifecycleState::Active, shared: Some(Arc::clone(shared)), ..Default::default() };
    let watchdog = Watchdog {
        board: Arc::new(Mutex::new(board)),
        spun: Arc::new(AtomicU64::new(now_ns())),
        diagnostics: thread::current(),
        manager,
        autostart: true,
        stop: Arc::clone(&stop),
    };
    (watchdog.start().unwrap(), stop)
}

fn wait_for<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + LONGEST;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < give_up, "it takes too long");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_frame_that_hangs_in_any_stage_is_noticed_within_100_ms() {
    if ros_is_absent() {
        return;
    }
    let parameters = small([("stall_after_ms", ParameterValue::Double(STALL_MS))]);
    let mut parts = Parts::new("stalls", 1, &parameters);
    let shared = Arc::clone(&parts.shared);
    let mut arrivals = parts.arrivals.remove(0);
    let (observe, observers) = mpsc::channel::<Arc<Faulty>>();
    // One thread for all of them: the mailbox knows one consumer.
    let frames = thread::spawn(move || {
        for observer in observers {
            parts.path.set_observer(observer);
            assert!(parts.path.process_next(LONGEST));
        }
    });
    let (thread, stop) = watchdog(&shared, None);
    let mut delays = Vec::new();
    for (hung, stage) in STAGES.into_iter().enumerate() {
        let faulty = Faulty::hang(&shared.watch, stage);
        observe.send(faulty.clone()).unwrap();
        arrive(&mut arrivals, "mono8");
        let stall = wait_for(|| shared.watch.stall().filter(|stall| stall.stage == stage));
        delays.push((now_ns() - stall.begun) as f64 / 1e6 - STALL_MS);
        assert_eq!((stall.camera, shared.watch.stalls()), (0, hung as u64 + 1));
        faulty.release();
        wait_for(|| shared.watch.stall().is_none().then_some(()));
    }
    drop(observe);
    frames.join().unwrap();
    stop.store(true, Relaxed);
    thread.join().unwrap();
    assert_eq!(shared.cameras[0].accounting.counts().published(), STAGES.len() as u64, "no frame is lost");
    // Half of them: the machine may be busy, and then nobody is on time.
    delays.sort_by(f64::total_cmp);
    assert!(delays[STAGES.len() / 2] < 100.0, "{delays:?}");
}

#[test]
fn the_service_manager_hears_of_the_node_only_while_no_frame_hangs() {
    if ros_is_absent() {
        return;
    }
    let name = format!("peregrine-watchdog-{}", std::process::id());
    let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    listener.set_read_timeout(Some(LONGEST)).unwrap();
    let heard = || {
        let mut buffer = [0; 256];
        let length = listener.recv(&mut buffer).expect("it is told in time");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let parameters = small([("stall_after_ms", ParameterValue::Double(STALL_MS))]);
    let mut parts = Parts::new("service", 1, &parameters);
    let shared = Arc::clone(&parts.shared);
    let manager = ServiceManager::connect(OsStr::new(&format!("@{name}")), Some(Duration::from_millis(40)));
    let (thread, stop) = watchdog(&shared, Some(manager.unwrap()));
    assert_eq!(heard(), "READY=1\nSTATUS=active");
    assert_eq!((heard().as_str(), heard().as_str()), ("WATCHDOG=1", "WATCHDOG=1"), "while it is idle");

    let faulty = Faulty::hang(&shared.watch, Stage::Publish);
    parts.path.set_observer(faulty.clone());
    arrive(&mut parts.arrivals[0], "mono8");
    let frames = thread::spawn(move || parts.path.process_next(Duration::ZERO));
    wait_for(|| shared.watch.stall());
    // What was under way at that moment is heard still.
    thread::sleep(Duration::from_millis(50));
    listener.set_nonblocking(true).unwrap();
    while listener.recv(&mut [0; 256]).is_ok() {}
    thread::sleep(Duration::from_millis(200));
    assert!(listener.recv(&mut [0; 256]).is_err(), "nothing while a frame hangs");
    listener.set_nonblocking(false).unwrap();
    faulty.release();
    frames.join().unwrap();
    assert_eq!(heard(), "WATCHDOG=1");
    stop.store(true, Relaxed);
    thread.join().unwrap();
    while heard() != "STOPPING=1" {}
}

#[test]
fn a_panic_in_any_stage_costs_one_frame() {
    if ros_is_absent() {
        return;
    }
    let mut parts = Parts::new("panics", 1, &small([("deadline_ms", ParameterValue::Double(0.0))]));
    let shared = Arc::clone(&parts.shared);
    pass(&mut parts, "mono8");
    while shared.cameras[0].records.pop().is_some() {}
    for stage in STAGES {
        let before = shared.cameras[0].accounting.counts();
        let faulty = Faulty::panic(&shared.watch, stage);
        parts.path.set_observer(faulty.clone());
        assert!(pass(&mut parts, "mono8"));
        assert_eq!(shared.watch.in_flight(now_ns()), None, "the next frame is waited for");
        let records: Vec<_> = std::iter::from_fn(|| shared.cameras[0].records.pop()).collect();
        let panicked =
            |record: &Record| matches!(record, Record::Panicked(text) if text.to_string().contains(stage.name()));
        assert!(records.iter().any(panicked), "{stage:?}: {records:?}");
        // After its detections are published, a frame has its outcome, and keeps it.
        let published = stage == Stage::Outputs;
        let rejected = records.iter().filter(|r| matches!(r, Record::Rejected(why) if why.reason() == "panic")).count();
        assert_eq!(rejected, usize::from(!published), "{stage:?}");
        faulty.release();
        assert!(pass(&mut parts, "mono8"));
        let counts = shared.cameras[0].accounting.counts();
        assert_eq!(counts.published() - before.published(), if published { 2 } else { 1 }, "{stage:?}");
        assert_eq!((counts.rejected - before.rejected, counts.in_flight), (u64::from(!published), 0), "{stage:?}");
        while shared.cameras[0].records.pop().is_some() {}
    }
}

#[test]
fn rejected_frames_reach_the_monitor_and_the_degraded_mode() {
    if ros_is_absent() {
        return;
    }
    let integer = ParameterValue::Integer;
    let parameters = small([
        ("degraded_mode", ParameterValue::String("no_segmentation".into())),
        ("degrade_after_misses", integer(3)),
        ("restore_after_frames", integer(4)),
        ("max_consecutive_misses", integer(3)),
        ("recover_after_frames", integer(4)),
        ("deadline_ms", ParameterValue::Double(10_000.0)),
    ]);
    // By the frame thread, and on arrival.
    for encoding in ["mono8", "mono12"] {
        let mut parts = Parts::new(&format!("rejected_{encoding}"), 1, &parameters);
        let shared = Arc::clone(&parts.shared);
        let condition = || Condition::from_number(shared.cameras[0].condition.load(Relaxed));
        pass(&mut parts, "mono8");
        assert_eq!((condition(), shared.degraded.load(Relaxed)), (Condition::Good, false));
        let faulty = Faulty::panic(&shared.watch, Stage::Inference);
        parts.path.set_observer(faulty.clone());
        for expected in [Condition::Missing, Condition::Missing, Condition::Failing] {
            pass(&mut parts, encoding);
            assert_eq!(condition(), expected, "{encoding}");
        }
        assert!(shared.degraded.load(Relaxed), "{encoding}");
        assert_eq!(shared.cameras[0].accounting.counts().rejected, 3);
        faulty.release();
        (0..4).for_each(|_| assert!(pass(&mut parts, "mono8")));
        assert_eq!((condition(), shared.degraded.load(Relaxed)), (Condition::Good, false), "{encoding}");
    }
}
