"""A browser without a screen: opens a page, and answers each line on its input, an expression in JavaScript, with its value
in JSON.

    browser.py CHROMIUM FOLDER URL [WIDTH HEIGHT]

`screenshot FILE` on a line saves what it shows. FOLDER is for its profile.
"""

import base64
import json
import os
import pathlib
import subprocess
import sys

program, profile, url, *size = sys.argv[1:]
window = ",".join(size or ("1000", "900"))

# The DevTools protocol over pipes: file descriptors 3 and 4 of the browser, messages that end with a zero byte.
to_browser, from_browser = os.pipe(), os.pipe()


def connect_pipes():
    """Runs in the child."""
    # By way of higher numbers, since 3 and 4 may be among the pipes' own.
    ends = os.dup2(to_browser[0], 103), os.dup2(from_browser[1], 104)
    os.dup2(ends[0], 3)
    os.dup2(ends[1], 4)


flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
browser = subprocess.Popen(
    [program, *flags, f"--window-size={window}", f"--user-data-dir={profile}"], preexec_fn=connect_pipes, close_fds=False, stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
os.close(to_browser[0])
os.close(from_browser[1])
read = os.fdopen(from_browser[0], "rb")
buffer, number = b"", 0


def ask(method, session=None, **parameters):
    """Sends a command and waits for its answer; events in between are passed over."""
    global buffer, number
    number += 1
    command = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
    os.write(to_browser[1], json.dumps(command).encode() + b"\0")
    while True:
        while b"\0" not in buffer:
            more = read.read1(1 << 16)
            if not more:
                sys.exit("browser: it has ended")
            buffer += more
        text, buffer = buffer.split(b"\0", 1)
        answer = json.loads(text)
        if answer.get("id") == number:
            return answer.get("result") or sys.exit(f"browser: {method}: {answer}")


target = ask("Target.createTarget", url=url)["targetId"]
session = ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
for line in sys.stdin:
    line = line.strip()
    if line.startswith("screenshot "):
        picture = ask("Page.captureScreenshot", session, captureBeyondViewport=True)
        pathlib.Path(line.split(" ", 1)[1]).write_bytes(base64.b64decode(picture["data"]))
        print("true", flush=True)
        continue
    result = ask("Runtime.evaluate", session, expression=line, returnByValue=True)
    print(json.dumps(result["result"].get("value")), flush=True)
browser.kill()
browser.wait()
