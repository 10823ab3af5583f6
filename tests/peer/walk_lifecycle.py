"""Leads a node without autostart through its whole lifecycle."""

from common import image
from managed import Manager, plain

peer = Manager()
answer = {
    "at_start": peer.state(),
    "states": peer.states(),
    "graph": peer.transitions("get_transition_graph"),
    "available": peer.transitions("get_available_transitions"),
    "impossible": [peer.change(3), peer.change(0, "cleanup"), peer.change(10), peer.change(77)],
    "configured": peer.change(1),
}
publisher = peer.image_publisher()
message = image(64, 48)


def ignored():
    """An inactive node ignores images: some are sent until the diagnostics have come twice."""
    seen = []
    for _ in range(2):
        peer.diagnostics = None
        while peer.diagnostics is None:
            message.header.stamp = peer.node.get_clock().now().to_msg()
            publisher.publish(message)
            peer.wait_a_little()
        seen.append(int(peer.diagnostics["arrived"]))
    return seen[-1]


answer["arrived_while_inactive"] = ignored()
answer["active"] = peer.change(3)
first = peer.send(publisher, message, peer.processed)
answer["first_sequence"] = peer.timings[first].sequence
answer["inactive"] = peer.change(4)
before = ignored()
answer["lost_while_inactive"] = ignored() - before
answer["in_flight_while_inactive"] = int(peer.diagnostics["in_flight"])
answer["clean"] = peer.change(2)
answer["again"] = [peer.change(0, "configure"), peer.change(0, "activate")]
second = peer.send_until_answered(publisher, message)
answer["counts_go_on"] = peer.timings[second].sequence > answer["first_sequence"]
answer["finalized"] = peer.change(0, "shutdown")
answer["available_at_the_end"] = peer.transitions("get_available_transitions")
peer.wait(lambda: len(peer.events) >= 14, "fourteen transition events")
answer["events"] = [[plain(e.start_state)[1], plain(e.goal_state)[1]] for e in peer.events]
peer.answer(answer)
