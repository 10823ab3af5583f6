"""A peer that drives a managed node with the requests of `ros2 lifecycle`."""

import rclpy
from lifecycle_msgs.msg import Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters

from common import Peer, stamp

NODE = "/perception"


class Manager(Peer):
    def __init__(self):
        super().__init__()
        self.events = []
        self.node.create_subscription(TransitionEvent, f"{NODE}/transition_event", self.events.append, 10)
        self.wait(lambda: self.node.count_publishers(f"{NODE}/transition_event") > 0, "discovery of the node")

    def call(self, kind, name, **fields):
        client = self.node.create_client(kind, f"{NODE}/{name}")
        self.wait(client.service_is_ready, f"the service {name}")
        future = client.call_async(kind.Request(**fields))
        self.wait(future.done, f"an answer of {name}")
        self.node.destroy_client(client)
        return future.result()

    def change(self, transition, label=""):
        """Whether it succeeded, and the state after it."""
        wanted = Transition(id=transition, label=label)
        success = self.call(ChangeState, "change_state", transition=wanted).success
        return [success, self.state()[1]]

    def state(self):
        return plain(self.call(GetState, "get_state").current_state)

    def states(self):
        return [plain(s) for s in self.call(GetAvailableStates, "get_available_states").available_states]

    def transitions(self, service):
        found = self.call(GetAvailableTransitions, service).available_transitions
        return [[d.transition.id, d.transition.label, *plain(d.start_state), *plain(d.goal_state)] for d in found]

    def set(self, name, text):
        return self.set_value(name, ParameterValue(type=4, string_value=text))

    def set_real(self, name, number):
        return self.set_value(name, ParameterValue(type=3, double_value=number))

    def set_value(self, name, value):
        parameters = [Parameter(name=name, value=value)]
        result = self.call(SetParameters, "set_parameters", parameters=parameters).results[0]
        return [result.successful, result.reason]

    def wait_a_little(self):
        rclpy.spin_once(self.node, timeout_sec=0.05)

    def send_until_answered(self, publisher, message):
        """For a node that may not have discovered the publisher yet. Returns the stamp that was answered."""
        sent, answered = set(), []

        def again():
            message.header.stamp = self.node.get_clock().now().to_msg()
            sent.add(stamp(message.header))
            publisher.publish(message)
            answered.extend(s for s in sent if self.processed(s))
            return answered

        self.wait(again, "an answer")
        return answered[0]

    def wait_for_state(self, label):
        self.wait(lambda: self.state()[1] == label, f"the node being {label}")


def plain(state):
    return [state.id, state.label]
