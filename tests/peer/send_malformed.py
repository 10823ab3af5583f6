"""Sends unusable images of several kinds, then good ones. Reports the diagnostics."""

from common import Peer, image, timing

peer = Peer()
publisher = peer.image_publisher()
answers = []
malformed = [
    image(64, 48, encoding="32FC1"),
    image(64, 48, encoding=""),
    image(64, 48, data=bytes(100)),
    image(0, 0, data=b""),
    image(64, 48, step=10),
    image(2**32 - 1, 2**32 - 1, step=2**32 - 1, data=bytes(10)),
    image(64, 48, data=b""),
]
for message in malformed:
    before = int((peer.diagnostics or {}).get("rejected", 0))
    peer.send(publisher, message, lambda _: int((peer.diagnostics or {}).get("rejected", 0)) > before)
    answers.append(dict(peer.diagnostics))

good = peer.send(publisher, image(64, 48), peer.processed)
# Odd sizes and padded rows are valid.
odd = peer.send(publisher, image(37, 41, step=128), peer.processed)
wanted = peer.timings[odd].published_on_time + peer.timings[odd].published_late
published = ("published_on_time", "published_late")
peer.wait(lambda: sum(int(peer.diagnostics[k]) for k in published) >= wanted, "diagnostics counting the good images")
peer.answer({"malformed": answers, "good": timing(peer.timings[good]), "after": peer.diagnostics})
