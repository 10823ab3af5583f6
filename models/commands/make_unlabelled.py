#!/usr/bin/env python3
"""Sentences without labels for the student to be taught on by its teacher: phrases, places and objects at random.

    make_unlabelled.py [COUNT] > unlabelled.txt

The phrases differ from train.txt's on purpose: what they mean is for the teacher to say.
"""
import random
import sys

PLACES = """the next crossing|the gate|the school|the bridge|the tunnel|the depot|the station|the roundabout|the junction|
the traffic light|the petrol station|the hospital|the car park|the charging station|the river|the roof|the base|the harbour|
the corner|the exit|the entrance|the church|the supermarket|the warehouse|waypoint two|checkpoint five|the landing pad|
the field|the fence|the driveway|the playground|the ramp|the yard|the hangar|the stop line|the square""".replace("\n", "").split("|")
OBJECTS = """the bus|the truck|the red car|the white van|the cyclist|that pedestrian|the motorcycle|the ambulance|the taxi|
the tractor|the children|the dog|the police car|the runner|the boat|the train|the tram|the lorry|the black car|people|
the scooter|the man in the blue coat|the convoy|the parked car|the bicycle|the power line|the tower|the sign""".replace("\n", "").split("|")
DIRECTIONS = "left|right|straight|around|forward|back|up|down|behind|ahead".split("|")
VALUES = """thirty|fifty|twenty|10|80|sixty kilometres per hour|five metres|ten metres per second|ninety degrees|
one hundred|forty|15 metres|seventy""".replace("\n", "").split("|")
DURATIONS = "ten seconds|a minute|two minutes|half a minute|30 seconds|five minutes|a moment|an hour".split("|")
PHRASES = """stop by {place}|stop as soon as you see {object}|halt before {place}|bring it to a stop at {place}|brake for {object}|
full stop|freeze|stop moving|hold your position at {place}|you must stop at {place}|go on to {place}|drive on|start the trip to {place}|
get going|head to {place}|set off for {place}|drive {direction}|move on past {place}|navigate to {place}|fly to {place}|
take the {direction} turn at {place}|turn {direction} when you reach {place}|turn {direction} now|make a {direction} at {place}|
go {direction} after {place}|rotate by {value}|veer {direction}|turn the vehicle {direction}|change lanes to the {direction}|
switch lanes|get over to the {direction} lane|overtake {object} now|pass {object}|drive past {object} on the {direction}|
stay in your lane|take the {direction} lane at {place}|avoid {object} by moving {direction}|slow to {value}|drive slower near {place}|
go faster|increase the speed to {value}|lower your speed|stay below {value}|keep a speed of {value}|speed limit {value}|
slow down for {object}|drive more slowly|follow {object} slowly|go after {object}|keep behind {object} by {value}|stay with {object}|
keep following {object}|track {object} until {place}|do not lose sight of {object}|stick with {object}|chase {object}|
park beside {object}|park the car at {place}|land near {place}|pull over by {place}|pull up behind {object}|find a spot to park|
set it down on {place}|reverse into {place}|land now|drop off at {place} and park|go back home|return to {place} now|
come home from {place}|fly back to {place}|drive back|head home|end the mission and return|back to {place} please|
get back to {place}|look for {object}|look over at {place}|check {object}|find {object} near {place}|inspect {object} at {place}|
camera {direction}|zoom on {object}|take a photo of {place}|keep watching {object} for {duration}|examine {object}|
what is the battery level|report status|where is {object}|how many {object} do you see|what is at {place}|how far to {place}|
is {place} free|say your altitude|what is your speed|do you see {object} on the {direction}|wait {duration} at {place}|
wait for {object} to pass|hold {duration}|hover {duration}|let {object} go first|yield to {object}|pause for {duration}|
stay at {place} for {duration}|give way to {object} at {place}|hold on until {object} is gone|stand by""".replace("\n", "").split("|")
OPENINGS = ["", "", "", "", "please ", "now ", "could you ", "okay ", "i want you to ", "then "]


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    chance = random.Random(1)
    sentences = set()
    while len(sentences) < count:
        pick = {"place": PLACES, "object": OBJECTS, "direction": DIRECTIONS, "value": VALUES, "duration": DURATIONS}
        words = {name: chance.choice(choices) for name, choices in pick.items()}
        sentences.add(chance.choice(OPENINGS) + chance.choice(PHRASES).format(**words))
    print("\n".join(sorted(sentences)))


if __name__ == "__main__":
    main()
