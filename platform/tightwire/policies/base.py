"""What a policy sees, decides and learns from, on the clients and on the server.

A policy is a frozen record of pure functions. On the client, `decide` maps (state, observation) to (decision, state)
after local training and before encoding, and `learn` maps (state, outcome) to state once the round has closed. The
state belongs to one client, is a frozen dataclass of plain numbers, and travels in checkpoints. On the server, `plan`
may tell each client of a cohort some numbers before the round, and `review` takes in how the round went; what the
server remembers is a mapping of plain numbers, in checkpoints too.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from tightwire.arrays import Flat
from tightwire.policies.stats import UpdateStats
from tightwire.spec import Spec
from tightwire.wire.schema import Schema

Numbers = Mapping[str, float]
"""Plain numbers by name."""
Plan = Mapping[int, Numbers]
"""What the server tells clients before a round, by client; those missing are told nothing. It is not billed: a few
numbers beside a model."""

NOTHING: Numbers = MappingProxyType({})


@dataclass(frozen=True)
class Observation:
    """All that a client knows when it decides what to send.

    Everything here is known to a real client at that moment; only `future` is not, which the policy `oracle` asks for
    and is given, and no other.
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
    vector: Callable[[], Flat]
    """The very vector that will be encoded (update + residual), shape (schema.size,); not to be written to."""
    deadline: float | None
    """Seconds from the start of the round after which an update is not used; None if there is no deadline."""
    downloaded: float
    """Seconds that receiving the model took this round."""
    computed: float
    """Seconds that local training took this round."""
    elapsed: float
    """Seconds of this round already spent; the two above, and what agreeing on ranges took."""
    uplink: float
    """Upload rate in bit/s that the device's profile promises, duty cycle included."""
    latency: float
    """Seconds that an upload takes besides its bytes (half a round trip)."""
    encoding: Callable[[str], float]
    """Seconds this device needs to encode the vector with a codec line."""
    workspace: Callable[[str], float]
    """Bytes of memory that encoding the vector with a codec line takes on this device."""
    memory: float
    """Bytes of memory that the device has for encoding."""
    energy: float
    """Joules that may still be spent: the battery less its reserve; infinity on mains."""
    joules_per_byte: float
    """Energy to send one byte: the radio's, and what the device draws besides in the time that the profile promises."""
    joules_per_upload: float
    """Energy that an upload takes besides its bytes: the radio's tail."""
    residual: Callable[[], float]
    """Euclidean norm of what error feedback added to the update; 0 where there is none."""
    told: Numbers = field(default_factory=lambda: NOTHING)
    """What the server's side of this policy told this client before the round; see `Policy.plan`."""
    future: Callable[[int, float], float] | None = None
    """(bytes, those of `tag` among them, seconds from the start of the round at which they are begun) -> seconds from
    the start of the round at which they have arrived, as the link will really turn out; only for policies that declare
    themselves clairvoyant."""
    draws: int = 0
    """What a policy's draws derive from, with round and client: of the run's seed, but saying nothing else of it."""
    tag: int = 0
    """Bytes of authentication that are sent behind the frame; predictions have them in."""

    @cached_property
    def stats(self) -> UpdateStats:
        """Magnitude statistics, per tensor, of the vector that will be encoded; measured when first asked for."""
        return UpdateStats.of(self.vector(), self.schema, self.tag)


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


def skip(reason: str) -> Decision:
    """The decision to send nothing."""
    return Decision(codec=None, bits=0.0, density=0.0, reason=reason)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a decision, told to the client's policy when the round has closed."""

    round: int
    decision: Decision
    bytes: int
    """Of the frame, that got through: all of it, or a part where the upload broke off; 0 when nothing was sent."""
    seconds: float
    """Simulated seconds that its upload took, latency included where it arrived."""
    latency: float
    """Seconds of these that were not transfer."""
    turn: float
    """Seconds from the start of the round until the update was there, or the client was through without one."""
    error: float
    """Squared error over squared norm (NMSE) of what was encoded."""
    samples: int
    """Of the client."""
    deadline: float | None
    accepted: bool
    """Whether the server used the update."""
    late: bool
    """Whether it missed the deadline."""


@dataclass(frozen=True, slots=True)
class Member:
    """One client of a cohort, as the server sees it before the round."""

    client: int
    tier: str
    samples: int
    uplink: float
    """Bit/s that the profile promises."""
    latency: float
    """Seconds, half a round trip."""
    download: float
    """Seconds that receiving the model should take, by the profile."""
    compute: float
    """Seconds that local training should take, by the profile."""
    state: Numbers | None
    """The client's policy state, as `Policy.dump` gave it; None for a newcomer."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """What the server knows before a round."""

    round: int
    members: tuple[Member, ...]
    """Ascending by client."""
    parameters: int
    """Values of an update."""
    deadline: float | None
    draws: int = 0
    """As `Observation.draws`."""


@dataclass(frozen=True, slots=True)
class Report:
    """One client's part in a closed round, as the server sees it."""

    client: int
    samples: int
    loss: float
    """Mean training loss of its local epochs."""
    decision: Decision
    bytes: int
    """Of its frame, that got through; 0 when it sent none."""
    upload: float
    """Seconds of its upload, latency included where it arrived."""
    turn: float
    """As `Outcome.turn`."""
    used: bool
    """Whether its update was used."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What the server knows after a round."""

    round: int
    seconds: float
    """Length of the round by the simulated clock."""
    reports: tuple[Report, ...]
    """Ascending by client."""
    step: float
    """Euclidean norm of the model's step."""
    update: float
    """Euclidean norm of the weighted mean of the updates in use (of all shifts with EF21); 0 where none was used."""

    @property
    def loss(self) -> float | None:
        """Mean training loss, weighted by samples; None where nobody trained."""
        samples = sum(report.samples for report in self.reports)
        return math.fsum(report.samples * report.loss for report in self.reports) / samples if samples else None


S = TypeVar("S")


class Policy(Protocol[S]):
    """The interface of all policies; `S` is the type of one client's state, a frozen dataclass of numbers."""

    @property
    def name(self) -> str:
        """The name by which an experiment file chooses this policy."""
        ...

    @property
    def clairvoyant(self) -> bool:
        """Whether it is given `Observation.future`."""
        ...

    @property
    def lines(self) -> tuple[str, ...]:
        """The codec lines that its settings name, so that they can be checked against the model before the run."""
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

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:
        """What to tell the clients of a round, on the server. Pure.

        Args:
            shared: What the server's side remembers; empty before the first round.
            cohort: The round's clients.
        """
        ...

    def review(self, shared: Numbers, closed: Closed) -> Numbers:
        """Take in how a round went, on the server. Pure."""
        ...

    def dump(self, state: S) -> dict[str, float]:
        """A client's state as plain numbers, for checkpoints."""
        ...

    def load(self, numbers: Numbers) -> S:
        """The inverse of `dump`."""
        ...


@dataclass(frozen=True, slots=True)
class NoState:
    """The state of a policy that remembers nothing."""


class Alone(Spec, ABC):
    """What most policies have in common: clients decide for themselves, and remember nothing unless they say so."""

    name: str = ""
    """A policy narrows it to the one name that it has: ``name: Literal["mine"] = "mine"``."""

    @property
    def clairvoyant(self) -> bool:
        """No."""
        return False

    @property
    def lines(self) -> tuple[str, ...]:
        """None."""
        return ()

    def initial(self) -> Any:  # Any: the state's type, which a policy narrows
        """There is nothing to remember."""
        return NoState()

    @abstractmethod
    def decide(self, state: Any, observation: Observation) -> tuple[Decision, Any]:
        """See `Policy.decide`."""

    def learn(self, state: Any, outcome: Outcome) -> Any:  # noqa: ARG002 - the interface's arguments
        """There is nothing to learn."""
        return state

    def plan(self, shared: Numbers, cohort: Cohort) -> tuple[Plan, Numbers]:  # noqa: ARG002 - the interface's arguments
        """There is nothing to say."""
        return {}, shared

    def review(self, shared: Numbers, closed: Closed) -> Numbers:  # noqa: ARG002 - the interface's arguments
        """There is nothing to take in."""
        return shared

    def dump(self, state: Any) -> dict[str, float]:
        """The state by field."""
        return asdict(state)

    def load(self, numbers: Numbers) -> Any:
        """The inverse of `dump`."""
        return type(self.initial())(**numbers)
