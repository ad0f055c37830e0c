"""What travels between the server and the client hosts: tasks out, reports and one sum back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tightwire.arrays import Flat, Sums
from tightwire.policies.base import Decision
from tightwire.wire.ledger import Sections

Fate = Literal["arrives", "rejected", "lost", "skipped", "refused", "late"]
"""What became of a client's upload on its way: it arrives, in time or not; it arrives and the server rejects what it
decodes to; it is lost, because the client drops out, goes away or its battery runs empty; the client tells the server
that it skips, by its policy's decision, or that it has nothing that could be sent (refused); or its range came too late
for it to send (late)."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one client says when the round's ranges are agreed on; see `tightwire.federation.joint`."""

    client: int
    frame: bytes | None
    """Its ranges; None when it has nothing to send."""
    arrival: float | None
    """Seconds from the start of the round; None if the client was lost before."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the server answers."""

    steps: Flat
    """Of the joint grids, shape (pieces,)."""
    seconds: float
    """From the start of the round to the answer."""
    answer: Sections
    """Bytes of the answer, which every client that may send receives."""
    outcomes: Mapping[int, str]
    """By client: empty for one that may send, else ``late``, or why its range was refused."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One client's part in the agreement, as it is billed."""

    sent: Sections
    sent_seconds: float
    sent_joules: float
    status: Literal["used", "late", "lost", "rejected"]
    """Of its range."""
    answer: Sections | None = None
    """None when it was sent none."""
    answer_seconds: float = 0.0
    answer_joules: float = 0.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the server does about long updates; Euclidean norms of what frames decode to."""

    refuse: float | None = None
    """Longer ones are refused; None for no such bound."""
    clip: float | None = None
    """Longer ones are scaled down to it; None for no such bound."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """What every host needs for one round; put into the object store once."""

    round: int
    model: Flat
    """The public model: what the clients hold after the downlink, shape (parameters,)."""
    weight: int
    """Samples behind whatever the round's sum is added to, the whole cohort at least; fixes the fixed-point format."""
    spare: int
    """Clients selected beyond those wanted. So many of a host's slowest frames go back unsummed, because the server
    may turn out not to want them."""
    clock: float = 0.0
    """Simulated seconds from the start of the run to that of the round."""
    agreement: Agreement | None = None
    """On the clients' ranges, where the codec wants one and once there is one."""
    bounds: Bounds | None = None
    """On the norms of updates; None where nobody asks for norms."""
    gather: bool = False
    """Whether all frames go back unsummed, because the server has to look at all updates at once."""


@dataclass(frozen=True, slots=True)
class ClientTask:
    """One client's turn, as the server hands it out."""

    client: int
    bytes_down: int
    """Bytes of the frames by which this client receives the model."""
    drops: float | None
    """The share of its upload's transfer after which this client drops out; None when it does not."""
    battery: float
    """Joules that it may spend; infinity on mains."""
    policy: Mapping[str, float] | None
    """The client's policy state as plain numbers; None for a newcomer."""
    told: Mapping[str, float] = field(default_factory=dict)
    """What the server's side of the policy tells it."""
    leaves: float = math.inf
    """Seconds from the start of the round at which it goes away."""
    download: float | None = None
    """Seconds that receiving the model takes, where clients share the server's link; None for as its own link lets."""
    download_fp32: float | None = None
    """The same had the model been sent whole."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What became of an upload on its way."""

    bytes: int = 0
    """Of the frame, that got through."""
    resent: int = 0
    """That the link lost."""
    seconds: float = 0.0
    """From its first byte; latency included when it arrives."""
    arrival: float | None = None
    """Seconds from the start of the round to the last byte; None when it never arrives."""
    joules: float = 0.0
    """That the radio spent on it."""


@dataclass(frozen=True, slots=True)
class ClientReport:
    """What became of one client's turn. Seconds are simulated."""

    client: int
    decision: Decision
    policy: Mapping[str, float]
    """The policy state after deciding."""
    train_loss: float
    sections: Sections | None
    """The frame's bytes by section; None when nothing was sent."""
    error: float
    """Squared error over squared norm (NMSE) of the encoded vector; 0 when nothing was sent."""
    fate: Fate
    answered: float
    """Seconds from the start of the round to the end of local training, when a client that sends nothing says so, or
    until it went away before."""
    received: int
    """Bytes of the model that got through to it."""
    download_seconds: float
    begins: float
    """Seconds from the start of the round at which the first byte of its upload goes out."""
    begins_fp32: float
    """The same had both directions carried fp32."""
    joules: float
    """Before the upload; `Passage.joules` comes on top."""
    download_joules: float
    passage: Passage
    """What became of the upload on its way; for hosts that cannot know, what would without other clients."""
    passage_fp32: Passage
    """The same had both directions carried fp32."""
    reason: str = ""
    """Why it was refused, or rejected on arrival."""
    exchange: Exchange | None = None
    """Its part in agreeing on ranges, if there was any."""
    norm: float | None = None
    """Euclidean norm of what the server decoded, refused for it or not; None where it decoded nothing, or where the
    round has no bounds."""


@dataclass(frozen=True, slots=True)
class ShareResult:
    """What one host sends back for its share of the cohort: one fixed-point sum, not its clients' updates."""

    total: Sums
    """Fixed-point sum over the clients in `summed`, shape (parameters,)."""
    summed: tuple[int, ...]
    reports: tuple[ClientReport, ...]
    """In the order of the share's tasks."""
    reserve: Mapping[int, bytes]
    """Frames of clients that the server may or may not want, see `Broadcast.spare`, or all of them, see
    `Broadcast.gather`."""
