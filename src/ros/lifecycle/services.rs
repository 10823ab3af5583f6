//! `~/change_state`, `~/get_state`, `~/get_available_states`, `~/get_available_transitions`,
//! `~/get_transition_graph` and `~/transition_event`: what `ros2 lifecycle` and launch_ros's
//! LifecycleNode speak to.

use r2r::lifecycle_msgs::msg;
use r2r::lifecycle_msgs::srv::{ChangeState, GetAvailableStates, GetAvailableTransitions, GetState};
use r2r::{Node, Publisher, QosProfile, ServiceRequest};

use super::machine::{LifecycleMachine, LifecycleState, Transition, TRANSITIONS};
use crate::requests::{next, Requests};

/// A request for a transition, to be answered when the transition has ended.
pub type ChangeRequest = ServiceRequest<ChangeState::Service>;

/// The services of one node. All work is done on the thread that spins the node.
pub struct LifecycleServices {
    change: Requests<ChangeState::Service>,
    state: Requests<GetState::Service>,
    states: Requests<GetAvailableStates::Service>,
    transitions: Requests<GetAvailableTransitions::Service>,
    graph: Requests<GetAvailableTransitions::Service>,
    events: Publisher<msg::TransitionEvent>,
}

impl LifecycleServices {
    /// # Errors
    /// When ROS refuses to make a service or the publisher.
    pub fn new(node: &mut Node) -> r2r::Result<Self> {
        let qos = QosProfile::services_default;
        Ok(Self {
            change: Box::new(node.create_service::<ChangeState::Service>("~/change_state", qos())?),
            state: Box::new(node.create_service::<GetState::Service>("~/get_state", qos())?),
            states: Box::new(node.create_service::<GetAvailableStates::Service>("~/get_available_states", qos())?),
            transitions: Box::new(
                node.create_service::<GetAvailableTransitions::Service>("~/get_available_transitions", qos())?,
            ),
            graph: Box::new(node.create_service::<GetAvailableTransitions::Service>("~/get_transition_graph", qos())?),
            events: node.create_publisher("~/transition_event", QosProfile::default())?,
        })
    }

    /// Answers every waiting query, and returns the next request for a transition.
    ///
    /// A client that has gone before its answer is not an error of this node, so failures to
    /// respond are ignored.
    pub fn serve(&mut self, machine: &LifecycleMachine) -> Option<ChangeRequest> {
        while let Some(request) = next(&mut self.state) {
            let _ = request.respond(GetState::Response { current_state: state(machine.state()) });
        }
        while let Some(request) = next(&mut self.states) {
            let unknown = msg::State { id: 0, label: "unknown".into() };
            let available_states = std::iter::once(unknown).chain(LifecycleState::ALL.map(state)).collect();
            let _ = request.respond(GetAvailableStates::Response { available_states });
        }
        while let Some(request) = next(&mut self.transitions) {
            let available_transitions = machine.available().map(description).collect();
            let _ = request.respond(GetAvailableTransitions::Response { available_transitions });
        }
        while let Some(request) = next(&mut self.graph) {
            let available_transitions = TRANSITIONS.iter().map(description).collect();
            let _ = request.respond(GetAvailableTransitions::Response { available_transitions });
        }
        next(&mut self.change)
    }

    /// Publishes that `transition` has happened.
    pub fn announce(&self, transition: &Transition) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let event = msg::TransitionEvent {
            timestamp: now.as_nanos() as u64,
            transition: msg::Transition { id: transition.id, label: transition.label.into() },
            start_state: state(transition.start),
            goal_state: state(transition.goal),
        };
        // If this fails, so does everything else that could report it.
        let _ = self.events.publish(&event);
    }
}

/// Answers a request for a transition.
pub fn answer(request: ChangeRequest, success: bool) {
    let _ = request.respond(ChangeState::Response { success });
}

fn state(state: LifecycleState) -> msg::State {
    msg::State { id: state as u8, label: state.label().into() }
}

fn description(transition: &Transition) -> msg::TransitionDescription {
    msg::TransitionDescription {
        transition: msg::Transition { id: transition.id, label: transition.label.into() },
        start_state: state(transition.start),
        goal_state: state(transition.goal),
    }
}
