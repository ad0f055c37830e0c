"""The last part of every turn: uploads on their way to the server, alone or side by side on its link."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tightwire.devices.links import Channel, arrives, carried
from tightwire.devices.sharing import Transfer, share
from tightwire.federation.tasks import Passage


@dataclass(frozen=True, slots=True)
class Upload:
    """A frame that a client begins to send."""

    size: int
    """Bytes of the frame."""
    resent: int
    """Bytes that the link loses besides."""
    begins: float
    """Seconds from the start of the round at which the first byte goes out."""
    latency: float
    """Seconds that it takes besides its bytes."""
    channel: Channel
    leaves: float = math.inf
    """Seconds from the start of the round at which the client goes away."""
    drops: float | None = None
    """Share of the transfer after which it drops out."""
    joules: float = math.inf
    """What its battery has for the upload."""
    joules_per_byte: float = 0.0
    joules_per_second: float = 0.0
    """While it sends."""
    tail: float = 0.0
    """Joules once it has sent."""


def passages(uploads: Sequence[Upload], clock: float, capacity: float | None) -> list[Passage]:
    """What becomes of uploads that share the server's link.

    A client that goes away, drops out or runs out of energy has sent what got through until then. The link is shared as
    if all went on to the end; where it is shared, what a broken upload has sent is in proportion to its time.

    Args:
        uploads: In any order.
        clock: Simulated seconds at the start of the round.
        capacity: Of the server's link in bit/s; None for no limit.

    Returns:
        One for each upload, in the same order.
    """
    transfers = [Transfer(clock + upload.begins, upload.size + upload.resent, upload.channel) for upload in uploads]
    done = share(transfers, capacity)
    return [_passage(upload, clock, end, capacity is None) for upload, end in zip(uploads, done, strict=True)]


def _passage(upload: Upload, clock: float, done: float, alone: bool) -> Passage:
    start = clock + upload.begins
    whole = upload.size + upload.resent
    cut = clock + upload.leaves
    if upload.drops is not None:
        cut = min(cut, start + upload.drops * (done - start))
    spent = whole * upload.joules_per_byte + (done - start) * upload.joules_per_second + upload.tail
    if spent > upload.joules:  # the battery gives out in proportion
        cut = min(cut, start + max(0.0, upload.joules / spent) * (done - start))
    if cut >= done:
        seconds = done - start + upload.latency
        return Passage(upload.size, upload.resent, seconds, upload.begins + seconds, spent)
    until = max(start, cut)
    if until == start:
        return Passage()
    sent = carried(upload.channel, start, until, whole) if alone else int(whole * ((until - start) / (done - start)))
    frame = sent * upload.size // whole
    joules = sent * upload.joules_per_byte + (until - start) * upload.joules_per_second + upload.tail
    return Passage(frame, sent - frame, until - start, None, min(joules, upload.joules))


def alone(channel: Channel, clock: float, begins: float, size: int, latency: float) -> float:
    """Seconds that a transfer takes which shares nothing: from `begins` seconds into the round, latency included."""
    start = clock + begins
    return arrives(channel, start, size) - start + latency
