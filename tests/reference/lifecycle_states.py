"""What a managed node of rclpy (rcl_lifecycle) answers: its states, its transition graph, and what it publishes of them.

    . launch/setup/env.sh && python3 tests/reference/lifecycle_states.py > tests/reference/lifecycle_states.json
"""

import json

import rclpy
from lifecycle_msgs.msg import TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode

rclpy.init()
managed, client = LifecycleNode("managed"), rclpy.create_node("client")
executor = SingleThreadedExecutor()
executor.add_node(managed)
executor.add_node(client)
events = []
client.create_subscription(TransitionEvent, "/managed/transition_event", events.append, 10)
while client.count_publishers("/managed/transition_event") == 0:
    executor.spin_once(timeout_sec=0.1)


def call(kind, name, **fields):
    service = client.create_client(kind, f"/managed/{name}")
    service.wait_for_service()
    future = service.call_async(kind.Request(**fields))
    executor.spin_until_future_complete(future)
    return future.result()


def state(s):
    return [s.id, s.label]


def description(d):
    return [d.transition.id, d.transition.label, *state(d.start_state), *state(d.goal_state)]


def available():
    transitions = call(GetAvailableTransitions, "get_available_transitions").available_transitions
    return [description(d) for d in transitions]


def change(transition):
    request = ChangeState.Request()
    request.transition.id = transition
    success = call(ChangeState, "change_state", transition=request.transition).success
    return {"transition": transition, "success": success, "state": state(call(GetState, "get_state").current_state),
            "available": available()}


answer = {
    "states": [state(s) for s in call(GetAvailableStates, "get_available_states").available_states],
    "graph": [description(d) for d in call(GetAvailableTransitions, "get_transition_graph").available_transitions],
    "available_at_start": available(),
    "walk": [change(t) for t in (1, 3, 4, 2, 1, 3, 7)],
}
for _ in range(10):
    executor.spin_once(timeout_sec=0.1)
answer["events"] = [
    {"transition": [e.transition.id, e.transition.label], "start": state(e.start_state), "goal": state(e.goal_state)}
    for e in events
]
print(json.dumps(answer, indent=1))
