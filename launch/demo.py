#!/usr/bin/env python3
"""Demonstration: a camera, the perception node, and a viewer that prints detections and latencies.

    launch/demo.py                                  replays the sample frames at 30 Hz
    launch/demo.py --frames drive.mp4               replays a video (needs ffmpeg)
    launch/demo.py --frames drive                   replays a bag as it was recorded (needs rosbags)
    launch/demo.py --topic /camera/image_raw        looks at a camera that is there already
    launch/demo.py -p score_threshold:=0.5          sets a parameter of the node

Needs a ROS 2 environment: `. launch/setup/env.sh` first, or `make run`.
"""

import argparse
import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

try:
    import rclpy

    import replay_camera
    from viewer import Viewer
except ModuleNotFoundError as missing:
    sys.exit(f"demo: Python has no {missing.name}; run `. launch/setup/env.sh` first, and this with $PEREGRINE_PYTHON")

import bag
import picture

# The variable's name depends on the distribution. Without it Fast DDS loses every third image of
# this size; the file says why.
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent
WARM_UP = 3  # seconds left out of the summary
PATIENCE = 10  # seconds for a process to end by itself


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    replay_camera.add_arguments(parser)
    parser.add_argument("--topic", help="a camera's image topic, instead of the replay")
    parser.add_argument("--seconds", type=replay_camera.positive, help="end after so long (default: at Ctrl-C)")
    parser.add_argument("--node", type=pathlib.Path, help="perception_node to run (default: the newest in target/)")
    parser.add_argument("-p", dest="parameters", metavar="NAME:=VALUE", action="append", default=[], help="node parameter")
    parser.add_argument("--web-port", type=int, default=8080, help="port of the page to look at in a browser; 0 for none (default 8080, or a free one)")
    parser.add_argument("--pictures", type=int, default=6, help="annotated frames in the picture; 0 for none (default 6)")
    return parser.parse_args()


def node_program(wanted):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
    candidates = [wanted] if wanted else [target / p / "perception_node" for p in ("release", "debug")]
    found = [c for c in candidates if c.is_file()]
    if not found:
        sys.exit(f"demo: there is no {candidates[0]}; `make run` builds it")
    return max(found, key=lambda c: c.stat().st_mtime)


def free_port(wanted):
    """The port that is wanted, or another one if it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    return 0


def die_with_parent():
    """Runs in the child: the kernel ends it if this process is killed before it can do so itself."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def start(command):
    # In a session of its own, so that Ctrl-C reaches it through stop() alone, and once.
    return subprocess.Popen([str(c) for c in command], start_new_session=True, preexec_fn=die_with_parent)


def stop(process):
    """Interrupts a process, and kills it if it does not exit in time. Returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def watch(options, viewer, node, processes):
    """Prints a line a second until the time is up, Ctrl-C, or the end of a process. Returns the error, or None."""
    begun = last = time.monotonic()
    first_frame, measure_from = None, None
    while not options.seconds or time.monotonic() - begun < options.seconds:
        rclpy.spin_once(node, timeout_sec=0.05)
        for name, process in processes.items():
            if process.poll() is not None:
                return f"{name} exited with code {process.returncode}"
        pictures = viewer.take_pictures()
        if pictures:
            save(pictures)
            # Messages that arrived while drawing had to wait; that is not the node's latency.
            measure_from = time.monotonic() + WARM_UP
        now = time.monotonic()
        if now - last < 1.0:
            continue
        print(f"{now - begun:4.0f} s {viewer.line(now - last)}", flush=True)
        last = now
        if viewer.last_timing is not None and first_frame is None:
            first_frame, measure_from = now, now + WARM_UP
            if options.pictures > 0 and not options.compressed:
                # Every other sample frame; from a moving camera, half a second apart.
                moving = options.topic or not options.frames.is_dir() or bag.is_one(options.frames)
                apart = 0.5 if moving else 1.5 / options.rate
                viewer.start_capture(options.pictures, apart)
        if first_frame and viewer.capture and now - first_frame > PATIENCE:
            print("     no picture: images or road masks are missing (is segmentation off?)", flush=True)
            viewer.give_up_capture()
        if first_frame and (viewer.capture or now < measure_from):
            viewer.forget()
    return None


def save(pictures):
    folder = PROJECT / "target" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "detections.png"
    picture.strip(pictures).save(path)
    print(f"     picture: {path}", flush=True)


def main():
    options = parse()
    program = node_program(options.node)
    topic = options.topic or "image"
    arguments = [a for p in options.parameters for a in ("-p", p)]
    if options.compressed:
        arguments += ["-p", "image_transport:=compressed"]
    # Unless the parameters say it, or ask for none.
    if options.web_port and not any(p.startswith("web_port:=") for p in options.parameters):
        port = free_port(options.web_port)
        arguments += ["-p", f"web_port:={port}"]
        print(f"look at http://127.0.0.1:{port}/ in a browser", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))

    for variable in PROFILE_VARIABLES:
        os.environ.setdefault(variable, str(HERE / "fastdds.xml"))
    processes = {"perception_node": start([program, "--ros-args", "-r", f"image:={topic}", *arguments])}
    if not options.topic:
        camera = ["--frames", options.frames, "--rate", options.rate, "--size", "{}x{}".format(*options.size)]
        camera += ["--compressed"] if options.compressed else []
        camera += ["--bag-topic", options.bag_topic] if options.bag_topic else []
        processes["camera"] = start([sys.executable, HERE / "replay_camera.py", "--topic", topic, *camera])
    trouble = None
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    node = rclpy.create_node("viewer")
    viewer = Viewer(node, topic)
    try:
        trouble = watch(options, viewer, node, processes)
    except KeyboardInterrupt:
        print()
    # The camera first, so that no frame is in flight when the node counts.
    for name in reversed(list(processes)):
        code = stop(processes[name])
        if code != 0 and trouble is None:
            trouble = f"{name} ended with exit code {code}"
    print(viewer.summary())
    node.destroy_node()
    rclpy.try_shutdown()
    sys.exit(f"demo: {trouble}" if trouble else 0)


if __name__ == "__main__":
    main()
