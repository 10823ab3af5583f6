#!/usr/bin/env python3
"""Configures and activates a managed node, whenever it comes up: manage.py /perception

It waits for the node's services as long as it takes, and goes on from the state that it finds: a node that is active
already is left as it is. Ends with 1 when the node refuses a transition; the node's log has the reason.
"""

import argparse
import sys
import time

import rclpy
import rclpy.utilities
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import ExternalShutdownException

# What to ask for in each state, and what it is called.
STEPS = {
    State.PRIMARY_STATE_UNCONFIGURED: (Transition.TRANSITION_CONFIGURE, "configure"),
    State.PRIMARY_STATE_INACTIVE: (Transition.TRANSITION_ACTIVATE, "activate"),
}
# Seconds: for an answer about the state, for the end of a transition (a model is loaded in it), between two sentences
# about a node that is not there, and between two looks.
ANSWER, TRANSITION, PATIENCE, PAUSE = 5.0, 600.0, 10.0, 0.2


class Manager:
    def __init__(self, name):
        self.name = "/" + name.strip("/")
        self.node = rclpy.create_node("peregrine_manager")
        self.get_state = self.node.create_client(GetState, f"{self.name}/get_state")
        self.change_state = self.node.create_client(ChangeState, f"{self.name}/change_state")

    def log(self, sentence):
        self.node.get_logger().info(sentence)

    def wait_for_services(self):
        last = time.monotonic()
        while not all(client.wait_for_service(timeout_sec=PAUSE) for client in (self.get_state, self.change_state)):
            if time.monotonic() - last > PATIENCE:
                last = time.monotonic()
                self.log(f"waiting for {self.name}, which is not there")

    def call(self, client, request, seconds):
        """The answer; None if none comes, as when the node has gone."""
        future = client.call_async(request)
        rclpy.spin_until_future_complete(self.node, future, timeout_sec=seconds)
        return future.result() if future.done() else None

    def activate(self):
        """Whether the node is active at the end."""
        while True:
            self.wait_for_services()
            answer = self.call(self.get_state, GetState.Request(), ANSWER)
            if answer is None:
                continue
            state = answer.current_state
            if state.id == State.PRIMARY_STATE_ACTIVE:
                self.log(f"{self.name} is active")
                return True
            if state.id == State.PRIMARY_STATE_FINALIZED:
                self.log(f"{self.name} is finalized: start it again")
                return False
            if state.id not in STEPS:  # in a transition that somebody else has asked for
                time.sleep(PAUSE)
                continue
            transition, verb = STEPS[state.id]
            answer = self.call(self.change_state, ChangeState.Request(transition=Transition(id=transition)), TRANSITION)
            if answer is not None and not answer.success:
                self.log(f"{self.name} could not {verb}: its log and /diagnostics say why")
                return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("node", help="full name of the node, such as /perception")
    options = parser.parse_args(rclpy.utilities.remove_ros_args(sys.argv)[1:])
    rclpy.init()
    try:
        return 0 if Manager(options.node).activate() else 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130


if __name__ == "__main__":
    sys.exit(main())
