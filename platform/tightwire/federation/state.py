"""What the server knows: what is fixed for a run, and what the next round depends on."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

from tightwire.arrays import Flat, Ints, Sums
from tightwire.devices.availability import AnyAvailability
from tightwire.devices.battery import Battery
from tightwire.devices.participation import Participation
from tightwire.devices.population import Population
from tightwire.federation.combine import Rules
from tightwire.federation.digest import START
from tightwire.federation.downlink import NEVER, Downlink, Public
from tightwire.federation.joint import Ranges
from tightwire.federation.pool import Handle
from tightwire.federation.turn import Turns
from tightwire.policies.base import NOTHING, Numbers, Policy
from tightwire.wire.schema import Schema


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """The small part of what a client carries from round to round; what its codec remembers is kept by the pool."""

    version: int = NEVER
    """The public model it holds."""
    battery: float = math.inf
    """Joules left when it last took part."""
    seen: float = 0.0
    """Simulated second at which that was."""
    policy: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class ServerState(Generic[Handle]):
    """Everything the next round depends on; what a checkpoint holds."""

    round: int
    """The round to come, from 1."""
    model: Flat
    public: Public | None = None
    clock: float = 0.0
    """Simulated seconds since the run began."""
    clock_fp32: float = 0.0
    clients: dict[int, ClientRecord] = field(default_factory=dict)
    """Only those that ever took part."""
    memories: dict[int, Handle] = field(default_factory=dict)
    """What clients' codecs and error feedback remember; only of those who remember something."""
    shared: Numbers = field(default_factory=lambda: NOTHING)
    """What the server's side of the policy remembers."""
    shifts: Sums | None = None
    """Where feedback accumulates: the sum over all clients of samples times shift, fixed point, shape (parameters,)."""
    norms: tuple[float, ...] = ()
    """Median norms of the updates of recent rounds, where updates are bounded by their norm."""
    chain: str = START


@dataclass(frozen=True, slots=True)
class ServerSetup:
    """What the server needs to know, all of it fixed for the run."""

    seed: int
    schema: Schema
    sizes: Ints
    """Samples of each client, shape (clients,)."""
    participation: Participation
    availability: AnyAvailability
    battery: Battery
    population: Population
    policy: Policy[Any]
    turns: Turns
    """How clients' links carry what is sent."""
    ingress: float | None
    """Bit/s that all uploads share; None for no limit."""
    egress: float | None
    """Bit/s that all downloads share; None for no limit."""
    downlink: Downlink
    ranges: Ranges | None
    """What clients agree on before they send; None for nothing."""
    accumulates: bool
    """Whether updates are changes of shifts, and the server steps by the mean of all clients' shifts (EF21)."""
    deadline: float | None
    lr: float
    memory_needed: int
    """Bytes that training takes at the least on a device."""
    flops_per_sample: float
    """FLOPs to train on one sample over all local epochs."""
    fp32_bytes: int
    """Exact length of a frame under the codec ``none``."""
    rules: Rules
    """What is done with updates."""
    keys: Callable[[int], bytes] | None
    """Client -> the key that authenticates its frames; None where nothing is authenticated."""
    hostile: Callable[[int], bool]
    """Whether a client means harm: for the records alone, no rule may ask."""
    evaluate: Callable[[int, Flat], tuple[float, float] | None]
    """(round, model) -> (test loss, test accuracy), or None in rounds without evaluation."""
