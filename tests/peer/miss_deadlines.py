"""Sends images on time, one that misses its deadline, many that do, then good ones, then none. Reports diagnostics."""

import sys
import time

from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters

from common import TIMEOUT, Peer, image

peer = Peer()
publisher = peer.image_publisher()
good = image(64, 48)
said = {}


def send_until(level, part, what):
    """Images, one after the other, until the diagnostics have that level and text."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        peer.send(publisher, good, peer.processed)
        if reported(level, part):
            said[what] = peer.diagnostics["message"]
            return
    sys.exit(f"peer: no {what}; diagnostics: {peer.diagnostics}")


def reported(level, part):
    return peer.diagnostics and peer.diagnostics["level"] == level and part in peer.diagnostics["message"]


def set_deadline(ms):
    client = peer.node.create_client(SetParameters, "/perception/set_parameters")
    peer.wait(client.service_is_ready, "the service set_parameters")
    value = Parameter(name="deadline_ms", value=ParameterValue(type=3, double_value=ms))
    future = client.call_async(SetParameters.Request(parameters=[value]))
    peer.wait(future.done, "the deadline being set")


send_until(0, "Hz", "ok")
set_deadline(0.0001)
peer.send(publisher, good, peer.processed)
peer.wait(lambda: reported(1, "missed the deadline"), "one miss being a warning")
send_until(2, "consecutive frames missed", "error")
set_deadline(10_000.0)
send_until(2, "recovering", "recovering")
# Until the misses have left the window as well.
send_until(0, "Hz", "ok_again")
peer.wait(lambda: reported(2, "no image on"), "silence being an error")
said["silent"] = peer.diagnostics["message"]
peer.answer(said)
