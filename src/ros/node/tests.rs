//! The node in this process, spun by the test, with a client node that sets parameters.

use std::sync::Once;

use futures::FutureExt;
use r2r::rcl_interfaces::{msg, srv::SetParametersAtomically};
use r2r::{Parameter, ParameterValue};

use super::loading::Purpose;
use super::*;
use crate::incoming::{Frame, ImageMessage};
use crate::lifecycle::LifecycleState;
use crate::realtime::RealtimeProfile;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/peregrine-s");
const LONGEST: Duration = Duration::from_secs(120);

struct Rig {
    perception: Perception,
    client_node: Node,
    client: r2r::Client<SetParametersAtomically::Service>,
}

impl Rig {
    /// An unconfigured node with the smallest network that there is; `None` without ROS 2.
    fn new(name: &str) -> Option<Self> {
        static ENVIRONMENT: Once = Once::new();
        if peregrine_support::ros_is_absent() {
            return None;
        }
        // Once, since tests run in threads of one process, and each of them reads the environment.
        ENVIRONMENT.call_once(|| {
            std::env::set_var("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST");
            std::env::set_var("ROS_DOMAIN_ID", (1 + std::process::id() % 101).to_string());
        });
        let context = r2r::Context::create().unwrap();
        let node = Node::create(context.clone(), name, "").unwrap();
        let overrides = [
            ("autostart", ParameterValue::Bool(false)),
            ("threads", ParameterValue::Integer(1)),
            ("input_width", ParameterValue::Integer(32)),
            ("input_height", ParameterValue::Integer(32)),
            ("image_topic", ParameterValue::String(format!("{name}/image"))),
        ];
        node.params.lock().unwrap().extend(overrides.map(|(name, value)| (name.to_owned(), Parameter::new(value))));
        let mut client_node = Node::create(context, &format!("client_of_{name}"), "").unwrap();
        let client =
            client_node.create_client(&format!("/{name}/set_parameters_atomically"), QosProfile::parameters()).unwrap();
        let mut rig = Self { perception: Perception::start(node, None).unwrap(), client_node, client };
        let mut available = Box::pin(Node::is_available(&rig.client).unwrap());
        rig.spin_until(|_| (&mut available).now_or_never()).unwrap();
        Some(rig)
    }

    /// Spins both nodes until `done` has a result.
    fn spin_until<T>(&mut self, mut done: impl FnMut(&mut Perception) -> Option<T>) -> T {
        let give_up = Instant::now() + LONGEST;
        loop {
            self.perception.spin_once().unwrap();
            self.client_node.spin_once(Duration::from_millis(1));
            if let Some(result) = done(&mut self.perception) {
                return result;
            }
            assert!(Instant::now() < give_up, "it takes too long");
        }
    }

    fn configure(&mut self) {
        self.perception.begin(1, "", None).unwrap();
        self.spin_until(|perception| (perception.machine.state() == LifecycleState::Inactive).then_some(()));
    }

    fn request(&self, wanted: &[(&str, ParameterValue)]) -> impl std::future::Future<Output = r2r::Result<Answer>> {
        let value = |value: &ParameterValue| match value {
            ParameterValue::String(text) => {
                msg::ParameterValue { type_: 4, string_value: text.clone(), ..Default::default() }
            }
            ParameterValue::Double(number) => {
                msg::ParameterValue { type_: 3, double_value: *number, ..Default::default() }
            }
            other => panic!("{other:?} is not needed here"),
        };
        let parameter = |(name, v): &(&str, ParameterValue)| msg::Parameter { name: (*name).into(), value: value(v) };
        let request = SetParametersAtomically::Request { parameters: wanted.iter().map(parameter).collect() };
        self.client.request(&request).unwrap()
    }

    /// Sets all or nothing; the reason if it is nothing.
    fn set(&mut self, wanted: &[(&str, ParameterValue)]) -> Result<(), String> {
        let mut answer = Box::pin(self.request(wanted));
        let result = self.spin_until(|_| (&mut answer).now_or_never()).unwrap().result;
        if result.successful {
            Ok(())
        } else {
            Err(result.reason)
        }
    }

    fn end(self) {
        self.perception.stop(Ok(())).unwrap();
    }
}

type Answer = SetParametersAtomically::Response;

fn text(text: &str) -> ParameterValue {
    ParameterValue::String(text.into())
}

#[test]
fn parameters_set_with_a_model_apply_to_the_next_frames() {
    let Some(mut rig) = Rig::new("together") else { return };
    rig.configure();
    rig.set(&[("model", text(MODEL)), ("score_threshold", ParameterValue::Double(0.75))]).unwrap();
    let shared = Arc::clone(&rig.perception.configured.as_ref().unwrap().shared);
    assert_eq!(shared.settings.load().score_threshold, 0.75);
    rig.end();
}

#[test]
fn a_model_set_during_configuring_is_refused() {
    let Some(mut rig) = Rig::new("loading") else { return };
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    assert!(rig.perception.machine.begin(1, "").is_some());
    let thread = thread::spawn(move || {
        let _ = finished.recv();
        Err(NodeError::Loading)
    });
    let purpose = Purpose::Configure(None, RealtimeProfile::default(), Vec::new());
    rig.perception.loading = Some(Loading { thread, purpose });
    let refused = rig.set(&[("model", text(MODEL))]).unwrap_err();
    assert!(refused.contains("is being loaded already"), "{refused}");
    assert_eq!(rig.perception.parameters.text("model"), "");
    drop(finish);
    rig.spin_until(|perception| (perception.machine.state() == LifecycleState::Unconfigured).then_some(()));
    rig.set(&[("model", text(MODEL))]).unwrap();
    rig.end();
}

#[test]
fn simulated_time_can_be_switched_on_and_off_before_configuring() {
    let Some(mut rig) = Rig::new("simulated") else { return };
    for simulated in [true, false] {
        rig.perception.parameters.set("use_sim_time", ParameterValue::Bool(simulated)).unwrap();
        rig.configure();
        let now = rig.perception.node.get_ros_clock().lock().unwrap().get_now().unwrap();
        // Without a publisher of /clock, simulated time is zero.
        assert_eq!(now.is_zero(), simulated);
        rig.perception.begin(2, "", None).unwrap();
        assert_eq!(rig.perception.machine.state(), LifecycleState::Unconfigured);
    }
    rig.end();
}

#[test]
fn after_a_panic_of_the_frame_thread_the_node_can_be_configured() {
    let Some(mut rig) = Rig::new("dying") else { return };
    let lead = |rig: &mut Rig, transition, state| {
        rig.perception.begin(transition, "", None).unwrap();
        assert_eq!(rig.perception.machine.state(), state);
    };
    rig.configure();
    lead(&mut rig, 3, LifecycleState::Active);
    let shared = Arc::clone(&rig.perception.configured.as_ref().unwrap().shared);
    let message = Arc::new(ImageMessage::Raw(r2r::NativeMsg::new(), Default::default()));
    let arrival = crate::clock::ClockSample { ros: 0, monotonic: 0 };
    let sequence = shared.cameras[0].accounting.arrive();
    // Of a camera that does not exist, which is a panic.
    shared.mailbox.put(0, Frame { message, arrival, camera: 7, sequence }, 0);
    rig.spin_until(|perception| (perception.machine.state() == LifecycleState::Unconfigured).then_some(()));
    let counts = shared.cameras[0].accounting.counts();
    assert_eq!((counts.arrived, counts.rejected, counts.in_flight), (1, 1, 0));
    rig.configure();
    lead(&mut rig, 3, LifecycleState::Active);
    lead(&mut rig, 4, LifecycleState::Inactive);
    rig.end();
}
