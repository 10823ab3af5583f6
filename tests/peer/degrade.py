"""Sends images that miss their deadline until the degraded mode is entered, then good ones until it is left."""

import sys
import time

from common import TIMEOUT, image
from managed import Manager

peer = Manager()
peer.wait_for_state("active")
publisher = peer.image_publisher()


def send_until(mode):
    """Images, one after the other, until the diagnostics report that mode; returns it."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        peer.send(publisher, image(64, 48), peer.processed)
        if peer.diagnostics and peer.diagnostics["mode"].startswith(mode):
            return peer.diagnostics["mode"]
    sys.exit(f"peer: the mode is never {mode}; diagnostics: {peer.diagnostics}")


answer = {"before": send_until("full")}
peer.set_real("deadline_ms", 0.0001)
answer["missed"] = send_until("degraded")
peer.set_real("deadline_ms", 10_000.0)
answer["after"] = send_until("full")
peer.answer(answer)
