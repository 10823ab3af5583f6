"""Waits until the node is active."""

from common import Peer

peer = Peer()
peer.wait(lambda: peer.node_status and peer.node_status.message.startswith("active"), "the node being active")
peer.answer({"state": {v.key: v.value for v in peer.node_status.values}["state"]})
