#!/usr/bin/env python3
"""Commands with the reply that the robot should give, and commands without one.

    make_replies.py FOLDER                   # writes replies-train.tsv and replies-val.tsv
    make_replies.py --unlabelled [COUNT]     # prints commands for the teacher to answer

A command has one step or two, and the reply is JSON: the step, or the list of both in the order in which they are to be
done. A step is a phrase with its words put in. A quarter of all steps, chosen by their hash, are kept for val: every
command there has a step that neither train nor the commands without a reply have, though each phrase and each word of it
is known from others.
"""
import json
import random
import sys
import zlib
from pathlib import Path

from make_unlabelled import OBJECTS, PLACES

TRAIN, VAL, UNLABELLED = 600, 300, 3000
SPEEDS = {"ten": 10, "20": 20, "thirty": 30, "40": 40, "fifty": 50, "sixty": 60, "70": 70, "eighty": 80}
DISTANCES = {"five metres": 5, "ten metres": 10, "15 metres": 15, "twenty metres": 20, "50 metres": 50}
SECONDS = {"ten seconds": 10, "a minute": 60, "two minutes": 120, "half a minute": 30, "30 seconds": 30,
           "five minutes": 300, "an hour": 3600}
SIDES = ["left", "right"]
# Action: phrases.
PHRASES = {
    "stop": ["stop at {place}", "halt before {place}", "come to a stop at {place}", "stop behind {object}",
             "brake for {object}", "hold your position at {place}"],
    "go": ["drive to {place}", "head to {place}", "set off for {place}", "go on to {place}", "navigate to {place}"],
    "turn": ["turn {side} at {place}", "take the {side} turn at {place}", "make a {side} at {place}",
             "go {side} after {place}"],
    "lane": ["change lanes to the {side}", "get over to the {side} lane", "move into the {side} lane at {place}"],
    "speed": ["slow down to {speed}", "go at {speed}", "keep a speed of {speed}", "stay below {speed} until {place}"],
    "follow": ["follow {object}", "stay behind {object}", "follow {object} to {place}",
               "keep {distance} behind {object}"],
    "park": ["park at {place}", "pull over by {place}", "park behind {object}", "land near {place}"],
    "look": ["look for {object}", "take a photo of {place}", "inspect {object} at {place}",
             "look for {object} on the {side}"],
    "wait": ["wait {duration} at {place}", "pause for {duration}", "wait until {object} is gone",
             "stay at {place} for {duration}"],
}
# {0} is done before {1}.
JOINED = ["{0} then {1}", "{0} and then {1}", "first {0}, then {1}", "{0}, after that {1}", "before you {1}, {0}",
          "{1} but first {0}"]
OPENINGS = ["", "", "", "please ", "could you ", "now "]


def plain(words):
    """The words without their article."""
    return words.removeprefix("the ").removeprefix("that ")


def step(chance):
    """A step's words, its reply, and whether it is kept for val."""
    action = chance.choice(list(PHRASES))
    phrase = chance.choice(PHRASES[action])
    said = {"place": chance.choice(PLACES), "object": chance.choice(OBJECTS), "side": chance.choice(SIDES),
            "speed": chance.choice(list(SPEEDS)), "distance": chance.choice(list(DISTANCES)),
            "duration": chance.choice(list(SECONDS))}
    meant = {"place": ("place", plain(said["place"])), "object": ("object", plain(said["object"])),
             "side": ("direction", said["side"]), "speed": ("km/h", SPEEDS[said["speed"]]),
             "distance": ("metres", DISTANCES[said["distance"]]), "duration": ("seconds", SECONDS[said["duration"]])}
    reply = {"action": action}
    reply.update(meant[name] for name in meant if "{" + name + "}" in phrase)
    words = phrase.format(**said)
    return words, reply, zlib.crc32(words.encode()) % 4 == 0


def command(chance, for_val):
    """A command and its reply."""
    while True:
        steps = [step(chance) for _ in range(chance.choice([1, 2]))]
        if any(kept for _, _, kept in steps) == for_val:
            break
    joined = chance.choice(JOINED) if len(steps) == 2 else "{0}"
    words = chance.choice(OPENINGS) + joined.format(*(words for words, _, _ in steps))
    replies = [reply for _, reply, _ in steps]
    return words, json.dumps(replies if len(replies) == 2 else replies[0], separators=(",", ":"))


def commands(seed, count, for_val, known=()):
    chance = random.Random(seed)
    found = {}
    while len(found) < count:
        words, reply = command(chance, for_val)
        if words not in known:
            found.setdefault(words, reply)
    return found


def main():
    train = commands(1, TRAIN, False)
    if sys.argv[1:2] == ["--unlabelled"]:
        count = int(sys.argv[2]) if len(sys.argv) > 2 else UNLABELLED
        print("\n".join(commands(3, count, False, train)))
    elif len(sys.argv) == 2:
        for split, pairs in [("train", train), ("val", commands(2, VAL, True))]:
            lines = "".join(f"{words}\t{reply}\n" for words, reply in pairs.items())
            (Path(sys.argv[1]) / f"replies-{split}.tsv").write_text(lines)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
