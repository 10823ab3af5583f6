"""Sends images to a node with simulated time: without /clock, with it, after it has stopped, and after a jump back."""

from rosgraph_msgs.msg import Clock

from common import Peer, image

peer = Peer()
publisher = peer.image_publisher()
clock = peer.node.create_publisher(Clock, "/clock", 10)
time, advances, answer = 1000.0, False, {}


def told(test):
    def holds():
        global time
        if advances:
            time += 0.05
            clock.publish(Clock(clock=stamp(time)))
        peer.send(publisher, image(64, 48), peer.processed)
        return peer.diagnostics is not None and test(peer.diagnostics["message"])

    return holds


def stamp(seconds):
    from builtin_interfaces.msg import Time

    return Time(sec=int(seconds), nanosec=int(seconds % 1 * 1e9))


def node_values():
    return {v.key: v.value for v in peer.node_status.values}


peer.wait(told(lambda m: "/clock" in m), "the diagnostics naming /clock")
answer["without"] = [peer.diagnostics["level"], peer.diagnostics["message"], peer.node_status.message]
peer.wait(lambda: clock.get_subscription_count() > 0, "the node subscribing to /clock")
advances = True
peer.wait(told(lambda m: "/clock" not in m), "the end of the warning")
advances = False
peer.wait(told(lambda m: "stood still" in m), "the diagnostics saying that the clock stands still")
answer["stopped"] = peer.diagnostics["message"]
time, advances = 500.0, True
peer.wait(told(lambda m: node_values().get("clock_jumps_back") == "1"), "the jump back being counted")
peer.answer(answer)
