"""Stops simulated time at 1000 s and sends an image stamped 0.25 s before. Reports its timing."""

from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock

from common import Peer, image, stamp, timing

peer = Peer()
clock = peer.node.create_publisher(Clock, "/clock", QoSProfile(depth=1))
now = Clock()
now.clock.sec = 1000
peer.node.create_timer(0.05, lambda: clock.publish(now))
publisher = peer.image_publisher()
peer.wait(lambda: clock.get_subscription_count() > 0, "the node listening to /clock")

message = image(64, 48)
message.header.stamp.sec, message.header.stamp.nanosec = 999, 750_000_000
sent = stamp(message.header)


def in_sim_time():
    """The first images may come before the first tick of the clock reaches the node."""
    publisher.publish(message)
    return sent in peer.timings and peer.timings[sent].arrival.sec == 1000


peer.wait(in_sim_time, "a frame in simulated time")
peer.answer(timing(peer.timings[sent]))
