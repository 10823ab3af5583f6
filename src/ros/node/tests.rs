//! The node in this process, turned by the test, with somebody beside it who sets parameters.

use futures::FutureExt;
use r2r::rcl_interfaces::{msg, srv::SetParametersAtomically};
use r2r::{Parameter, ParameterValue};

use super::*;
use crate::incoming::{Frame, ImageMessage};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/peregrine-s");
const LONGEST: Duration = Duration::from_secs(120);

struct Stage {
    perception: Perception,
    beside: Node,
    client: r2r::Client<SetParametersAtomically::Service>,
}

impl Stage {
    /// An unconfigured node with the smallest network there is; none where there is no ROS 2.
    fn new(name: &str) -> Option<Self> {
        if std::env::var_os("AMENT_PREFIX_PATH").is_none() {
            eprintln!("skipped: there is no ROS 2 environment; run `. launch/setup/env.sh` first");
            return None;
        }
        std::env::set_var("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST");
        std::env::set_var("ROS_DOMAIN_ID", (1 + std::process::id() % 101).to_string());
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
        let mut beside = Node::create(context, &format!("beside_{name}"), "").unwrap();
        let client =
            beside.create_client(&format!("/{name}/set_parameters_atomically"), QosProfile::parameters()).unwrap();
        let mut stage = Self { perception: Perception::start(node).unwrap(), beside, client };
        let mut available = Box::pin(Node::is_available(&stage.client).unwrap());
        stage.turn_until(|_| (&mut available).now_or_never()).unwrap();
        Some(stage)
    }

    /// Lets both live on until `done` has a result.
    fn turn_until<T>(&mut self, mut done: impl FnMut(&mut Perception) -> Option<T>) -> T {
        let give_up = Instant::now() + LONGEST;
        loop {
            self.perception.turn().unwrap();
            self.beside.spin_once(Duration::from_millis(1));
            if let Some(result) = done(&mut self.perception) {
                return result;
            }
            assert!(Instant::now() < give_up, "it takes too long");
        }
    }

    fn configure(&mut self) {
        self.perception.begin(1, "", None).unwrap();
        self.turn_until(|perception| (perception.machine.state() == State::Inactive).then_some(()));
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

    /// Sets all or nothing; the reason where it was nothing.
    fn set(&mut self, wanted: &[(&str, ParameterValue)]) -> Result<(), String> {
        let mut answer = Box::pin(self.request(wanted));
        let result = self.turn_until(|_| (&mut answer).now_or_never()).unwrap().result;
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
fn what_is_set_together_with_a_model_holds_for_the_frames_that_follow() {
    let Some(mut stage) = Stage::new("together") else { return };
    stage.configure();
    stage.set(&[("model", text(MODEL)), ("score_threshold", ParameterValue::Double(0.75))]).unwrap();
    let shared = Arc::clone(&stage.perception.configured.as_ref().unwrap().shared);
    assert_eq!(shared.settings.load().score_threshold, 0.75);
    stage.end();
}

#[test]
fn a_model_that_is_set_while_another_is_loaded_for_configuring_is_refused_and_the_parameter_stays() {
    let Some(mut stage) = Stage::new("loading") else { return };
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    assert!(stage.perception.machine.begin(1, "").is_some());
    let thread = thread::spawn(move || {
        let _ = finished.recv();
        Err(NodeError::Loading)
    });
    let purpose = Purpose::Configure(None, Profile::default(), Vec::new());
    stage.perception.loading = Some(Loading { thread, purpose });
    let refused = stage.set(&[("model", text(MODEL))]).unwrap_err();
    assert!(refused.contains("is being loaded already"), "{refused}");
    assert_eq!(stage.perception.parameters.text("model"), "");
    drop(finish);
    stage.turn_until(|perception| (perception.machine.state() == State::Unconfigured).then_some(()));
    stage.set(&[("model", text(MODEL))]).unwrap();
    stage.end();
}

#[test]
fn simulated_time_can_be_asked_for_before_configuring_and_given_up_again() {
    let Some(mut stage) = Stage::new("simulated") else { return };
    for simulated in [true, false] {
        stage.perception.parameters.set("use_sim_time", ParameterValue::Bool(simulated)).unwrap();
        stage.configure();
        let now = stage.perception.node.get_ros_clock().lock().unwrap().get_now().unwrap();
        // Nobody publishes /clock, so simulated time stands at zero.
        assert_eq!(now.is_zero(), simulated);
        stage.perception.begin(2, "", None).unwrap();
        assert_eq!(stage.perception.machine.state(), State::Unconfigured);
    }
    stage.end();
}

#[test]
fn after_the_frame_thread_has_died_the_node_can_be_led_through_its_life_again() {
    let Some(mut stage) = Stage::new("dying") else { return };
    let lead = |stage: &mut Stage, transition, state| {
        stage.perception.begin(transition, "", None).unwrap();
        assert_eq!(stage.perception.machine.state(), state);
    };
    stage.configure();
    lead(&mut stage, 3, State::Active);
    let shared = Arc::clone(&stage.perception.configured.as_ref().unwrap().shared);
    let message = ImageMessage::Raw(r2r::NativeMsg::new());
    let arrival = crate::clock::Instant { ros: 0, monotonic: 0 };
    let sequence = shared.cameras[0].ledger.arrive();
    // Of a camera that there is not, which is a panic.
    shared.waiting.put(0, Frame { message, arrival, camera: 7, sequence }, 0);
    stage.turn_until(|perception| (perception.machine.state() == State::Unconfigured).then_some(()));
    let counts = shared.cameras[0].ledger.counts();
    assert_eq!((counts.arrived, counts.rejected, counts.in_flight), (1, 1, 0));
    stage.configure();
    lead(&mut stage, 3, State::Active);
    lead(&mut stage, 4, State::Inactive);
    stage.end();
}
