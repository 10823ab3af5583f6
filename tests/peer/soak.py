"""A node among faults for SECONDS: what each took to recover from, its memory, and its account.

    soak.py SECONDS PID_OF_THE_NODE MODEL OTHER_MODEL

Goes round through the faults below, with quiet seconds between. Recovery is the time from the first good image's
stamp, or the end of the fault, to the arrival of a timing message for an image that was sent since.
"""

import pathlib
import signal
import subprocess
import sys
import time

import rclpy

from managed import Manager

FAULT, QUIET = 2.0, 3.0  # seconds; of a run of less than two minutes a quarter
WARM_UP = 600.0  # seconds, after which memory may not grow
# All, what is the node's own, and what it shares with cameras and subscribers.
MEMORY = ["VmRSS", "RssAnon", "RssShmem"]
HERE = pathlib.Path(__file__).resolve().parent
SUBSCRIBER = """
import rclpy
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray
rclpy.init()
node = rclpy.create_node("stalled")
for kind, topic in ((Detection2DArray, "detections"), (Image, "segmentation"), (Image, "road_mask")):
    node.create_subscription(kind, topic, lambda message: None, 10)
rclpy.spin(node)
"""

LISTENER = """
import time, rclpy
from diagnostic_msgs.msg import DiagnosticArray
from peregrine_msgs.msg import FrameTiming
rclpy.init()
node, heard = rclpy.create_node("listener"), {"diagnostics": 0, "timing": 0}
def count(name):
    heard[name] += 1
node.create_subscription(DiagnosticArray, "/diagnostics", lambda message: count("diagnostics"), 10)
node.create_subscription(FrameTiming, "timing", lambda message: count("timing"), 10)
end = time.monotonic() + 10
while time.monotonic() < end:
    rclpy.spin_once(node, timeout_sec=0.1)
print(heard)
"""


class Camera:
    """The process of a camera, which is told what to send."""

    def __init__(self):
        command = [sys.executable, str(HERE / "soak_camera.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def said(self):
        """The first stamp of the mode that was asked for last, or of the start."""
        # The middleware prints there as well.
        answer = next((line for line in self.process.stdout if line.startswith("SENDS ")), None)
        if answer is None:
            sys.exit("soak: the camera has ended")
        return int(answer.split()[-1])

    def ask(self, mode):
        self.process.stdin.write(mode + "\n")
        self.process.stdin.flush()
        return self.said()

    def kill(self):
        self.process.kill()
        self.process.wait()


class Soak(Manager):
    def __init__(self, seconds, pid, models):
        super().__init__()
        self.seconds, self.pid, self.models = seconds, pid, models
        pace = 1.0 if seconds >= 120 else 0.25
        self.fault, self.quiet = pace * FAULT, pace * QUIET
        self.recoveries, self.resident, self.amiss = {}, [], []
        self.camera = Camera()
        self.stalled = subprocess.Popen([sys.executable, "-c", SUBSCRIBER])
        self.begun = time.monotonic()

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            rclpy.spin_once(self.node, timeout_sec=left)
            self.check()

    def check(self):
        """Each account that the node publishes adds up; and what was answered long ago is let go."""
        ended = ("published_on_time", "published_late", "superseded", "dropped_late", "rejected")
        if self.diagnostics is not None:
            counts = {key: int(self.diagnostics[key]) for key in ("arrived", "in_flight", *ended)}
            if counts["arrived"] - counts["in_flight"] != sum(counts[key] for key in ended):
                self.amiss.append(counts)
        for kept in (self.timings, self.detections):
            while len(kept) > 100:
                kept.pop(next(iter(kept)))

    def recover(self, name, since):
        """Waits for the answer to an image that was stamped from `since` on, by the true clock."""
        self.wait(lambda: any(since <= stamp < since + 100_000_000_000 for stamp in self.timings), f"recovery of {name}")
        self.recoveries.setdefault(name, []).append((time.time_ns() - since) / 1e6)

    def kilobytes(self, kind="VmRSS"):
        lines = pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))

    def change(self, model):
        done = self.set("model", model)
        if not done[0]:
            sys.exit(f"soak: the model {model} was refused: {done[1]}")
        return time.time_ns()

    def sending(self, mode):
        self.camera.ask(mode)
        self.spin(self.fault)
        return self.camera.ask("good")

    def killed(self):
        self.camera.kill()
        self.spin(self.fault)
        self.camera = Camera()
        return self.camera.said()

    def stepped(self, seconds):
        self.camera.ask(f"step {seconds}")
        self.spin(self.fault)
        return self.camera.ask("step 0")

    def subscriber_stalled(self):
        self.stalled.send_signal(signal.SIGSTOP)
        self.spin(self.fault)
        since = time.time_ns()
        self.stalled.send_signal(signal.SIGCONT)
        return since

    def faults(self):
        return {
            "the camera was killed": self.killed,
            "sizes changed": lambda: self.sending("sizes"),
            "encodings changed": lambda: self.sending("encodings"),
            "images were damaged": lambda: self.sending("damaged"),
            "the camera was silent": lambda: self.sending("silent"),
            "a subscriber stalled": self.subscriber_stalled,
            "the model was changed": lambda: self.change(self.models[1]),
            "the model was changed back": lambda: self.change(self.models[0]),
            "the clock was an hour behind": lambda: self.stepped(-3600),
            "the clock was an hour ahead": lambda: self.stepped(3600),
        }

    def run(self):
        self.recover("start", self.camera.said())
        while True:
            for name, fault in self.faults().items():
                self.spin(self.quiet)
                now, memory = time.monotonic() - self.begun, {kind: self.kilobytes(kind) for kind in MEMORY}
                self.resident.append((now, name, memory))
                if now > self.seconds:
                    return
                self.recover(name, fault())
                recovery = f"{self.recoveries[name][-1]:6.0f} ms after {name}"
                held = ", ".join(f"{kind} {kilobytes:8}" for kind, kilobytes in memory.items())
                print(f"{now:7.1f} s {held} KiB {recovery}", file=sys.stderr, flush=True)

    def held(self, minute):
        """The mean of each kind of memory in the five minutes from `minute` on."""
        held = [memory for at, _, memory in self.resident if minute <= at / 60 < minute + 5]
        return {kind: round(sum(memory[kind] for memory in held) / max(len(held), 1)) for kind in MEMORY}

    def growth(self, kind):
        """The mean memory in the last third after the warm-up over that in the first, where it grew most.

        At one place of the round, since memory differs from place to place: two models, and segments of the
        middleware's shared memory that cameras leave.
        """
        third = (self.seconds - WARM_UP) / 3
        if third < 300:
            return None
        def mean(name, start):
            held = [memory[kind] for at, of, memory in self.resident if of == name and start < at <= start + third]
            return sum(held) / len(held)
        return max(mean(name, self.seconds - third) / mean(name, WARM_UP) for name in self.recoveries if name != "start")

    def look(self):
        """What can be seen when it fails: what each thread waits in, and what another peer hears."""
        for name, pid in (("node", self.pid), ("peer", "self")):
            for task in sorted(pathlib.Path(f"/proc/{pid}/task").iterdir()):
                known = [(task / file).read_text().strip() for file in ("comm", "wchan", "syscall")]
                print(f"soak: {name}'s thread {task.name}: {', '.join(known)}", file=sys.stderr)
        try:
            heard = subprocess.run([sys.executable, "-c", LISTENER], capture_output=True, text=True, timeout=60)
            said = heard.stdout.strip()
        except subprocess.TimeoutExpired:
            said = "nothing in 60 s, and did not end"
        print(f"soak: a new peer hears in 10 s: {said}", file=sys.stderr)

    def end(self):
        """Ends what it has started, whatever happened."""
        for process in (self.camera.process, self.stalled):
            process.kill()
            process.wait()

    def result(self):
        self.end()
        self.diagnostics = None
        self.wait(lambda: self.diagnostics and int(self.diagnostics["in_flight"]) == 0, "no frame being in flight")
        return {
            "seconds": time.monotonic() - self.begun,
            "recoveries_ms": {name: {"times": len(all), "median": sorted(all)[len(all) // 2], "max": max(all)}
                              for name, all in self.recoveries.items()},
            "resident_kib_each_five_minutes": [self.held(minute) for minute in range(0, int(self.seconds / 60), 5)],
            "resident_growth_after_warm_up": self.growth("VmRSS"),
            "own_memory_growth_after_warm_up": self.growth("RssAnon"),
            "accounts_amiss": self.amiss,
            "diagnostics": self.diagnostics,
        }


soak = Soak(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:5])
try:
    soak.run()
    result = soak.result()
except BaseException:
    soak.look()
    raise
finally:
    soak.end()
soak.answer(result)
