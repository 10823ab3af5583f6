"""Calls the standard parameter services and reports their answers."""

from rcl_interfaces.msg import Parameter, ParameterEvent, ParameterValue
from rcl_interfaces.srv import (
    DescribeParameters, GetParameters, GetParameterTypes, ListParameters, SetParameters, SetParametersAtomically
)

from common import Peer, image

NODE = "/perception"
peer = Peer()
changes = []
peer.node.create_subscription(ParameterEvent, "/parameter_events", changes.append, 10)


def call(kind, name, **fields):
    client = peer.node.create_client(kind, f"{NODE}/{name}")
    peer.wait(client.service_is_ready, f"the service {name}")
    future = client.call_async(kind.Request(**fields))
    peer.wait(future.done, f"an answer of {name}")
    return future.result()


def value(v):
    if isinstance(v, bool):
        return ParameterValue(type=1, bool_value=v)
    if isinstance(v, int):
        return ParameterValue(type=2, integer_value=v)
    if isinstance(v, float):
        return ParameterValue(type=3, double_value=v)
    return ParameterValue(type=4, string_value=v)


def set_one(name, v):
    result = call(SetParameters, "set_parameters", parameters=[Parameter(name=name, value=value(v))]).results[0]
    return {"successful": result.successful, "reason": result.reason}


def set_both(first, second):
    parameters = [Parameter(name=n, value=value(v)) for n, v in (first, second)]
    return call(SetParametersAtomically, "set_parameters_atomically", parameters=parameters).result.successful


def get(name):
    v = call(GetParameters, "get_parameters", names=[name]).values[0]
    return [None, v.bool_value, v.integer_value, v.double_value, v.string_value][v.type]


def describe(name):
    d = call(DescribeParameters, "describe_parameters", names=[name]).descriptors[0]
    ranges = list(d.floating_point_range) + list(d.integer_range)
    return {
        "read_only": d.read_only,
        "description": d.description,
        "range": [ranges[0].from_value, ranges[0].to_value] if ranges else None,
    }


answer = {
    "names": list(call(ListParameters, "list_parameters").result.names),
    "types": list(call(GetParameterTypes, "get_parameter_types", names=["threads", "nms_iou", "no_such"]).types),
    "at_start": {"score_threshold": get("score_threshold"), "deadline_ms": get("deadline_ms")},
    "describe": describe("score_threshold"),
    "describe_device": describe("device"),
    "in_range": set_one("score_threshold", 0.75),
    "whole_number": set_one("deadline_ms", 5000),
    "out_of_range": set_one("score_threshold", 1.5),
    "wrong_type": set_one("score_threshold", "much"),
    "wrong_choice": set_one("deadline_policy", "whenever"),
    "unknown": set_one("score_treshold", 0.5),
    "read_only": set_one("device", "cpu"),
    "atomic_refused": set_both(("nms_iou", 0.25), ("deadline_ms", -1.0)),
    "nms_iou_after_refusal": get("nms_iou"),
    "atomic": set_both(("nms_iou", 0.25), ("deadline_policy", "drop_late")),
}
answer["at_end"] = {n: get(n) for n in ("score_threshold", "deadline_ms", "nms_iou", "deadline_policy")}
peer.wait(lambda: len(changes) >= 3, "three parameter events")
answer["changed"] = [p.name for event in changes for p in event.changed_parameters]

# The frame thread uses it, too.
publisher = peer.image_publisher()
sent = peer.send(publisher, image(64, 48), lambda s: s in peer.timings)
answer["deadline_ms_of_a_frame"] = peer.timings[sent].deadline_ms
peer.answer(answer)
