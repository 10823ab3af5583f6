//! States and transitions, with the numbers and names of `lifecycle_msgs`.

/// A state; `as u8` is its number in `lifecycle_msgs/State`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LifecycleState {
    Unconfigured = 1,
    Inactive = 2,
    Active = 3,
    Finalized = 4,
    Configuring = 10,
    CleaningUp = 11,
    ShuttingDown = 12,
    Activating = 13,
    Deactivating = 14,
    ErrorProcessing = 15,
}

use LifecycleState::*;

impl LifecycleState {
    /// All states, in the order in which `rcl_lifecycle` lists them (after the state 0, `unknown`).
    pub const ALL: [Self; 10] = [
        Unconfigured,
        Inactive,
        Active,
        Finalized,
        Configuring,
        CleaningUp,
        ShuttingDown,
        Activating,
        Deactivating,
        ErrorProcessing,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Unconfigured => "unconfigured",
            Inactive => "inactive",
            Active => "active",
            Finalized => "finalized",
            Configuring => "configuring",
            CleaningUp => "cleaningup",
            ShuttingDown => "shuttingdown",
            Activating => "activating",
            Deactivating => "deactivating",
            ErrorProcessing => "errorprocessing",
        }
    }
}

/// One transition of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Its number in `lifecycle_msgs/Transition`.
    pub id: u8,
    pub label: &'static str,
    pub start: LifecycleState,
    pub goal: LifecycleState,
}

const fn arrow(id: u8, label: &'static str, start: LifecycleState, goal: LifecycleState) -> Transition {
    Transition { id, label, start, goal }
}

const SUCCESS: &str = "transition_success";
const FAILURE: &str = "transition_failure";
const ERROR: &str = "transition_error";

/// The graph, in the order in which `rcl_lifecycle` lists it.
pub const TRANSITIONS: [Transition; 25] = [
    arrow(1, "configure", Unconfigured, Configuring),
    arrow(10, SUCCESS, Configuring, Inactive),
    arrow(11, FAILURE, Configuring, Unconfigured),
    arrow(12, ERROR, Configuring, ErrorProcessing),
    arrow(2, "cleanup", Inactive, CleaningUp),
    arrow(20, SUCCESS, CleaningUp, Unconfigured),
    arrow(21, FAILURE, CleaningUp, Inactive),
    arrow(22, ERROR, CleaningUp, ErrorProcessing),
    arrow(3, "activate", Inactive, Activating),
    arrow(30, SUCCESS, Activating, Active),
    arrow(31, FAILURE, Activating, Inactive),
    arrow(32, ERROR, Activating, ErrorProcessing),
    arrow(4, "deactivate", Active, Deactivating),
    arrow(40, SUCCESS, Deactivating, Inactive),
    arrow(41, FAILURE, Deactivating, Active),
    arrow(42, ERROR, Deactivating, ErrorProcessing),
    arrow(5, "shutdown", Unconfigured, ShuttingDown),
    arrow(6, "shutdown", Inactive, ShuttingDown),
    arrow(7, "shutdown", Active, ShuttingDown),
    arrow(50, SUCCESS, ShuttingDown, Finalized),
    arrow(51, FAILURE, ShuttingDown, Finalized),
    arrow(52, ERROR, ShuttingDown, ErrorProcessing),
    arrow(60, SUCCESS, ErrorProcessing, Unconfigured),
    arrow(61, FAILURE, ErrorProcessing, Finalized),
    arrow(62, ERROR, ErrorProcessing, Finalized),
];

/// The result of the work of a transition, as a callback of rclcpp's lifecycle node returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransitionResult {
    Success,
    Failure,
    Error,
}

/// The state machine of a managed node.
#[derive(Debug)]
pub struct LifecycleMachine {
    state: LifecycleState,
}

impl Default for LifecycleMachine {
    fn default() -> Self {
        Self { state: Unconfigured }
    }
}

impl LifecycleMachine {
    pub fn state(&self) -> LifecycleState {
        self.state
    }

    /// The transitions that can be requested in this state.
    pub fn available(&self) -> impl Iterator<Item = &'static Transition> {
        let state = self.state;
        let is_requestable = |t: &&Transition| t.id < 10;
        TRANSITIONS.iter().filter(move |t| t.start == state).filter(is_requestable)
    }

    /// Begins the transition with the label or, if that is empty, with the number. `None`, and no
    /// change, if it is not available in this state.
    pub fn begin(&mut self, id: u8, label: &str) -> Option<&'static Transition> {
        let wanted = |t: &&Transition| if label.is_empty() { t.id == id } else { t.label == label };
        let transition = self.available().find(wanted)?;
        self.state = transition.goal;
        Some(transition)
    }

    /// Ends the current transition.
    ///
    /// # Panics
    /// If there is none.
    pub fn end(&mut self, result: TransitionResult) -> &'static Transition {
        let label = match result {
            TransitionResult::Success => SUCCESS,
            TransitionResult::Failure => FAILURE,
            TransitionResult::Error => ERROR,
        };
        let mut ends = TRANSITIONS.iter().filter(|t| t.start == self.state);
        let transition = ends.find(|t| t.label == label).expect("a transition is under way");
        self.state = transition.goal;
        transition
    }

    /// Begins error processing in an active node.
    pub fn fail(&mut self) -> LifecycleState {
        self.state = ErrorProcessing;
        self.state
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, Value};

    use super::*;

    /// What rclpy's lifecycle node answered; see the script beside it.
    fn reference() -> Value {
        serde_json::from_str(include_str!("../../../tests/reference/lifecycle_states.json")).unwrap()
    }

    fn state(state: LifecycleState) -> [Value; 2] {
        [json!(state as u8), json!(state.label())]
    }

    fn described(t: &Transition) -> Value {
        let ([start, start_label], [goal, goal_label]) = (state(t.start), state(t.goal));
        json!([t.id, t.label, start, start_label, goal, goal_label])
    }

    #[test]
    fn states_and_graph_are_those_of_rcl_lifecycle() {
        let mut states = vec![json!([0, "unknown"])];
        states.extend(LifecycleState::ALL.map(|s| json!(state(s))));
        assert_eq!(json!(states), reference()["states"]);
        assert_eq!(json!(TRANSITIONS.iter().map(described).collect::<Vec<_>>()), reference()["graph"]);
    }

    #[test]
    fn a_walk_through_all_states_is_that_of_rclpys_node() {
        let mut machine = LifecycleMachine::default();
        for step in reference()["walk"].as_array().unwrap() {
            let transition = machine.begin(step["transition"].as_u64().unwrap() as u8, "").unwrap();
            assert_eq!(machine.state(), transition.goal);
            assert_eq!(machine.available().count(), 0, "nothing can be asked for during a transition");
            machine.end(TransitionResult::Success);
            assert_eq!(json!(state(machine.state())), step["state"]);
            assert_eq!(json!(machine.available().map(described).collect::<Vec<_>>()), step["available"]);
        }
    }

    #[test]
    fn an_unavailable_transition_changes_nothing() {
        let mut machine = LifecycleMachine::default();
        for (id, label) in [(3, ""), (0, "activate"), (10, ""), (0, "transition_success"), (0, ""), (99, "")] {
            assert_eq!(machine.begin(id, label), None, "{id} {label}");
            assert_eq!(machine.state(), Unconfigured);
        }
    }

    #[test]
    fn shutdown_can_be_requested_by_name_in_every_primary_state() {
        let mut machine = LifecycleMachine::default();
        for (label, id) in [("shutdown", 5), ("configure", 1), ("shutdown", 6), ("activate", 3), ("shutdown", 7)] {
            let before = machine.state();
            assert_eq!(machine.begin(0, label).unwrap().id, id);
            if label == "shutdown" {
                machine.state = before;
            } else {
                machine.end(TransitionResult::Success);
            }
        }
    }

    #[test]
    fn failure_and_error_of_configuring_end_unconfigured() {
        let mut machine = LifecycleMachine::default();
        machine.begin(1, "").unwrap();
        machine.end(TransitionResult::Failure);
        assert_eq!(machine.state(), Unconfigured);
        machine.begin(1, "").unwrap();
        machine.end(TransitionResult::Error);
        assert_eq!(machine.state(), ErrorProcessing);
        machine.end(TransitionResult::Success);
        assert_eq!(machine.state(), Unconfigured);
    }
}
