"""What a policy sees, decides and learns from.

A policy is a frozen record of pure functions: `decide` maps (state, observation) to (decision, state) on the
client, after local training and before encoding; `learn` maps (state, outcome) to state once the round has
closed. The state belongs to one client, is a frozen dataclass of plain numbers, and travels in checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

from tightwire.policies.stats import UpdateStats
from tightwire.wire.schema import Schema


@dataclass(frozen=True)
class Observation:
    """All that a client knows when it decides what to send.

    Everything here is known to a real client at that moment; nothing is taken from the future of the link.
    """

    round: int
    client: int
    tier: str
    """Name of the device tier, such as ``"old-phone-lte"``."""
    samples: int
    """Training samples this client holds."""
    loss: float
    """Mean training loss of the client's local epochs."""
    schema: Schema
    """The tensors of the vector that will be encoded."""
    measure: Callable[[], UpdateStats]
    """Measures the very vector that will be encoded (update + residual); see `stats`."""
    deadline: float | None
    """Seconds from the start of the round after which an update is not used; None if there is no deadline."""
    elapsed: float
    """Seconds of this round already spent on download and training on this device."""
    uplink: float
    """Upload rate in bit/s that the device's profile promises, duty cycle included."""
    latency: float
    """Seconds that an upload takes besides its bytes (half a round trip)."""
    codec_seconds: float
    """Seconds this device needs to run one pass of one codec stage over one value."""
    energy: float
    """Joules left in the battery; infinity on mains."""
    joules_per_byte: float
    """Energy to send one byte."""

    @cached_property
    def stats(self) -> UpdateStats:
        """Magnitude statistics, per tensor, of the vector that will be encoded; measured when first asked for."""
        return self.measure()


@dataclass(frozen=True, slots=True)
class Decision:
    """What a client sends this round, and why."""

    codec: str | None
    """The codec line to encode with, such as ``"topk(0.1) | uniform(4) | rans"``; None skips the upload."""
    bits: float
    """Quantiser bits a kept value (mean over the layers where they differ); 0 when skipped."""
    density: float
    """Kept fraction, in (0, 1]; 0 when skipped."""
    reason: str
    """A few words for the decisions table, such as ``"deadline binds"``."""
    predicted_bytes: float | None = None
    """What the policy expects the frame to weigh, where it makes a prediction."""
    predicted_seconds: float | None = None
    """What the policy expects the upload to take, where it makes a prediction."""
    predicted_error: float | None = None
    """Expected squared error over squared norm (NMSE) of the encoded vector, where predicted."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a decision, told to the policy when the round has closed."""

    round: int
    decision: Decision
    bytes: int
    """Length of the frame."""
    seconds: float
    """Simulated seconds that its upload took, latency included."""
    latency: float
    """Seconds of these that were not transfer."""
    accepted: bool
    """Whether the server used the update."""
    late: bool
    """Whether it missed the deadline."""


S = TypeVar("S")


class Policy(Protocol[S]):
    """The interface of all policies; `S` is the type of one client's state."""

    @property
    def name(self) -> str:
        """The name by which an experiment file chooses this policy."""
        ...

    def initial(self) -> S:
        """The state of a client that has never taken part."""
        ...

    def decide(self, state: S, observation: Observation) -> tuple[Decision, S]:
        """Choose what to send. Pure: same arguments, same answer."""
        ...

    def learn(self, state: S, outcome: Outcome) -> S:
        """Take in what became of a decision. Pure."""
        ...

    def dump(self, state: S) -> dict[str, float]:
        """The state as plain numbers, for checkpoints."""
        ...

    def load(self, numbers: dict[str, float]) -> S:
        """The inverse of `dump`."""
        ...
