"""Tries to configure a node with an invalid model and an invalid parameter, then corrects both."""

from managed import Manager

peer = Manager()
answer = {"parameter": peer.change(1)}


def problem(part):
    status = peer.node_status
    return status is not None and part in status.message


peer.wait(lambda: problem("nms_iou"), "the diagnostics naming the parameter")
answer["parameter_problem"] = [peer.node_status.level[0], peer.node_status.message]
answer["set_parameter"] = peer.set_real("nms_iou", 0.5)
answer["model"] = peer.change(1)
peer.wait(lambda: problem("/no/such"), "the diagnostics naming the model")
answer["model_problem"] = [peer.node_status.level[0], peer.node_status.message]
answer["set_model"] = peer.set("model", "")
answer["corrected"] = [peer.change(1), peer.change(3)]
peer.wait(lambda: peer.node_status.level[0] == 0, "the diagnostics being OK")
peer.answer(answer)
